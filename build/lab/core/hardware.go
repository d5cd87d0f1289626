package core

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"duet/build/lab/power"
	"duet/ipmi/sim"
)

// outletOf is the outlet, from 0, that feeds a supply: a.1 and a.2 on outlets 1 and 2, b's on 3 and 4.
func outletOf(node string, supply int) int {
	if node == "b" {
		return power.SuppliesPerNode + supply
	}
	return supply
}

// outlets of the PDU.
const outlets = 2 * power.SuppliesPerNode

// bmcChassis is what one node's BMC switches.
type bmcChassis struct {
	core *core
	node string
}

// Powered says whether the node has power. It says no only after step 3 of a cut: who reads "off" may rely on it.
func (b bmcChassis) Powered() bool { return b.core.powered(b.node) }

// PowerOn presses the button and does not wait for the boot, as a BMC.
func (b bmcChassis) PowerOn() error {
	b.core.settleLater(b.core.apply(b.node, power.Chassis.Press), "BMC on")
	return nil
}

// PowerOff takes the power at once.
func (b bmcChassis) PowerOff() error {
	return b.core.change(context.Background(), b.node, "BMC off", power.Chassis.Off)
}

// change applies a change to a node's chassis and waits until the body has followed.
func (c *core) change(ctx context.Context, node, cause string, f func(power.Chassis) power.Chassis) error {
	return c.settle(ctx, c.apply(node, f), cause)
}

// apply changes a node's chassis. BMC and AC are one: with the last AC the BMC goes silent.
func (c *core) apply(node string, f func(power.Chassis) power.Chassis) *machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.machines[node]
	had := m.chassis.AC()
	m.chassis = f(m.chassis)
	if has := m.chassis.AC(); had != has {
		c.bmc[node].SetAlive(has) // never waits: it takes the BMC's own lock only
	}
	return m
}

// settleLater boots without making the caller wait.
func (c *core) settleLater(m *machine, cause string) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
		defer cancel()
		if err := c.settle(ctx, m, cause); err != nil {
			slog.Error("power", "machine", m.cfg.Name, "cause", cause, "error", err)
		}
	}()
}

// rackUp starts BMCs and PDU on the BMC network.
func (c *core) rackUp() error {
	for node, address := range map[string]string{"a": AddressBMCA, "b": AddressBMCB} {
		guid, err := hex.DecodeString(c.machines[node].machineID)
		if err != nil || len(guid) != 16 {
			return fmt.Errorf("machine id of %s is not 32 hex digits", node)
		}
		bmc, err := sim.NewBMC(sim.BMCConfig{
			User: c.cfg.BMCUser, Password: c.cfg.BMCPass, GUID: [16]byte(guid), Chassis: bmcChassis{c, node},
		})
		if err != nil {
			return fmt.Errorf("BMC %s: %w", node, err)
		}
		conn, err := net.ListenPacket("udp", net.JoinHostPort(address, strconv.Itoa(PortBMC)))
		if err != nil {
			return fmt.Errorf("BMC %s: %w", node, err)
		}
		c.bmc[node] = bmc
		go c.watchServer("bmc "+node, func() error { return bmc.Serve(context.Background(), conn) })
	}
	pdu, err := sim.NewPDU(sim.PDUConfig{Product: c.cfg.PDU, Outlets: outlets, SetOutlet: c.setOutlet, Watts: c.watts})
	if err != nil {
		return fmt.Errorf("PDU: %w", err)
	}
	c.pdu = pdu
	ln, err := net.Listen("tcp", net.JoinHostPort(AddressPDU, strconv.Itoa(PortPDU)))
	if err != nil {
		return fmt.Errorf("PDU: %w", err)
	}
	go c.watchServer("pdu", func() error { return pdu.Serve(context.Background(), ln) })
	return nil
}

// watchServer records a device that stopped serving: a fault of the lab.
func (c *core) watchServer(name string, serve func() error) {
	if err := serve(); err != nil {
		c.labFailure("", fmt.Errorf("%s: %w", name, err))
	}
}

// setOutlet is the PDU switching outlet number n, from 1. It returns when the supply feels it; a boot that follows is
// not waited for.
func (c *core) setOutlet(n int, on bool) {
	node, supply := "a", n-1
	if supply >= power.SuppliesPerNode {
		node, supply = "b", supply-power.SuppliesPerNode
	}
	c.events.addf(node, "outlet", "%d %s", n, onOff(on))
	m := c.apply(node, func(p power.Chassis) power.Chassis { return p.SwitchOutlet(supply, on) })
	cause := fmt.Sprintf("outlet %d %s", n, onOff(on))
	if on {
		c.settleLater(m, cause)
	} else if err := c.settle(context.Background(), m, cause); err != nil {
		slog.Error("outlet", "outlet", n, "error", err)
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// bark is the watchdog's expiry: the node is reset, frozen or not.
func (c *core) bark(m *machine, boot int) {
	m.op.Lock()
	defer m.op.Unlock()
	c.mu.Lock()
	stale := m.boots != boot || !m.energised
	if !stale {
		m.resets++
	}
	c.mu.Unlock()
	if stale {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	if err := c.reset(ctx, m, "watchdog"); err != nil {
		slog.Error("watchdog reset", "node", m.cfg.Name, "error", err)
	}
}

// reset restarts a node whose power stays on: its drives keep their cache. The caller holds m.op.
func (c *core) reset(ctx context.Context, m *machine, cause string) error {
	err := c.fell(m, fall{cause: cause, kind: "reset", drives: c.drivesKeep(m), after: func() {}})
	if err != nil {
		return err
	}
	return c.powerOn(ctx, m, cause)
}

// drivesKeep is what drives do when their node ends and their power stays: they answer who waits, and keep their cache.
func (c *core) drivesKeep(m *machine) func() error {
	return func() error {
		for _, d := range c.drivesOf(m) {
			d.Reset()
		}
		return nil
	}
}

// bootTime is the machine's CLOCK_BOOTTIME.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // the clock exists on every Linux this builds for
	}
	return time.Duration(ts.Nano())
}
