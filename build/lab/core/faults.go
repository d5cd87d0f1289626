package core

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"duet/build/lab/cable"
	"duet/ipmi/sim"
)

// panicked is a kernel that stops at once: nothing more leaves the node, not even a farewell; its power stays, its BMC
// says "on", an armed watchdog goes on counting. A cut takes the BMC with it, a hang leaves processes that may wake.
func (c *core) panicked(_ context.Context, args []string) error {
	m, err := c.node(args[0])
	if err != nil {
		return err
	}
	m.op.Lock()
	defer m.op.Unlock()
	if _, _, err := c.living(args[0]); err != nil {
		return err
	}
	return c.fell(m, fall{
		cause: "panic by verb", kind: "panic", drives: c.drivesKeep(m), dogLives: true,
		after: func() { m.crashed = true },
	})
}

// clockAheadMax keeps a stepped clock far from what the kernel's time namespace refuses.
const clockAheadMax = 20 * 365 * 24 * time.Hour

// clock steps CLOCK_BOOTTIME and CLOCK_MONOTONIC of a node, from its next power-on. The wall clock is one for all
// namespaces of a kernel, so it is not stepped here.
func (c *core) clock(_ context.Context, args []string) error {
	m, err := c.node(args[0])
	if err != nil {
		return err
	}
	ahead, err := time.ParseDuration(args[1])
	if err != nil || ahead < 0 || ahead > clockAheadMax {
		return fmt.Errorf("clock: %q must be a duration from 0 to %s", args[1], clockAheadMax)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m.clockAhead = ahead
	return nil
}

// setBMC turns a BMC's switches.
func (c *core) setBMC(_ context.Context, args []string) error {
	if _, err := c.node(args[0]); err != nil {
		return err
	}
	var f sim.BMCFaults
	mode := args[1]
	switch {
	case mode == "ok" && len(args) == 2:
	case mode == "mute" && len(args) == 2:
		f.Mute = true
	case mode == "badpass" && len(args) == 2:
		f.Password = "changed-by-hand"
	case mode == "refuse" && len(args) == 2:
		f.Refuse = true
	case mode == "slow" && len(args) == 3:
		slow, err := time.ParseDuration(args[2])
		if err != nil || slow < 0 {
			return fmt.Errorf("bmc slow: %q is no duration like 1.5s", args[2])
		}
		f.Slow, mode = slow, "slow "+slow.String()
	default:
		return fmt.Errorf("bmc %v: must be ok, mute, badpass, refuse, or slow with a duration", args[1:])
	}
	c.mu.Lock()
	c.bmcMode[args[0]] = mode
	c.mu.Unlock()
	c.bmc[args[0]].SetFaults(f)
	return nil
}

// setPDU turns the PDU's switches.
func (c *core) setPDU(_ context.Context, args []string) error {
	var f sim.PDUFaults
	mode := args[0]
	switch {
	case mode == "ok" && len(args) == 1:
	case mode == "mute" && len(args) == 1:
		f.Mute = true
	case mode == "late" && len(args) == 2:
		late, err := time.ParseDuration(args[1])
		if err != nil || late < 0 {
			return fmt.Errorf("pdu late: %q is no duration like 1.5s", args[1])
		}
		f.Late, mode = late, "late "+late.String()
	default:
		return fmt.Errorf("pdu %v: must be mute, ok, or late with a duration", args)
	}
	c.pdu.SetFaults(f)
	c.mu.Lock()
	c.pduMode = mode
	c.mu.Unlock()
	return nil
}

// The witness's machine and service.
const (
	witnessMachine = "witness"
	witnessUnit    = "duet-witness"
)

// witness stops the program, stops its machine in its tracks, or makes every way to it slow and lossy.
func (c *core) witness(ctx context.Context, args []string) error {
	words := []string{witnessMachine, witnessUnit}
	switch {
	case len(args) == 3 && args[0] == "slow":
		return c.witnessSlow(args[1], args[2])
	case len(args) > 1:
	case args[0] == "stop":
		return c.stop(ctx, words)
	case args[0] == "start":
		return c.start(ctx, words)
	case args[0] == "pause":
		return c.freeze(witnessMachine, true)
	case args[0] == "resume":
		return c.freeze(witnessMachine, false)
	case args[0] == "fast":
		c.wiring.Lock()
		defer c.wiring.Unlock()
		return c.smooth()
	}
	return fmt.Errorf("witness %v: must be stop, start, pause, resume, fast, or slow with a delay and a loss like 2.5s 30%%", args)
}

// witnessSlow makes every frame from and to the witness late by delay each way, and loses some each way.
func (c *core) witnessSlow(delayText, lossText string) error {
	delay, err := time.ParseDuration(delayText)
	if err != nil || delay < 0 {
		return fmt.Errorf("witness slow: %q is no duration like 2.5s", delayText)
	}
	percent, isPercent := strings.CutSuffix(lossText, "%")
	loss, err := strconv.ParseFloat(percent, 64)
	if err != nil || !isPercent || loss < 0 || loss > 100 {
		return fmt.Errorf("witness slow: %q is no loss like 30%%", lossText)
	}
	c.wiring.Lock()
	defer c.wiring.Unlock()
	if err := c.smooth(); err != nil {
		return err
	}
	p := hardware[witnessMachine][0]
	c.rough, err = cable.Roughen(p.outer(witnessMachine), p.bridge, delay, loss/100, func() *rand.Rand { return c.draw() })
	return err
}

// smooth undoes witnessSlow. The caller holds wiring.
func (c *core) smooth() error {
	if c.rough == nil {
		return nil
	}
	carried, lost := c.rough.Counts()
	err := c.rough.Smooth()
	c.rough = nil
	c.events.addf(witnessMachine, "rough", "%d frames carried, %d lost", carried, lost)
	return err
}
