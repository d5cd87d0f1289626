// Package core is the outer process of a lab: PID 1 of its own PID namespace, with its own mounts and network.
// The hardware lives here, never inside a node: drives, watchdogs, switches and cables, power supplies, BMCs, PDU, and
// the monitor that tells the truth.
//
// It promises that one SIGKILL, of it or of the process that started it, leaves nothing behind: every process is in
// its PID namespace, every mount in its mount namespace, every link in its network namespace, loop devices clear
// themselves. It reads commands from a socket in the state folder and ends when its starter's socket closes.
//
// It knows the product only as units and files that its starter gives it, and never asks the product anything. A verb
// that cannot be done is refused with a sentence; a step of a power cut that fails is an event of kind "lab-failure",
// which a test must treat as a failure of the lab, never of the product.
package core

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"duet/build/lab/cable"
	"duet/build/lab/control"
	"duet/build/lab/drive"
	"duet/build/lab/ns"
	"duet/build/lab/power"
	"duet/ipmi/sim"
)

// coreName is argv[0] of a core; digestName of the small program that sums a leg from inside a node.
const (
	coreName   = "duet-lab-core"
	digestName = "duet-lab-digest"
)

// Argv0 is how a starter names the core.
const Argv0 = coreName

// Reexec becomes the core, an init or the digest program when this process was started as one; else it returns.
func Reexec() {
	ns.Reexec()
	if len(os.Args) == 0 {
		return
	}
	switch os.Args[0] {
	case coreName:
		if err := run(); err != nil {
			slog.Error("lab core ends", "error", err)
			os.Exit(1)
		}
		os.Exit(0)
	case digestName:
		os.Exit(digestMain(os.Args[1:], os.Stdout, os.Stderr))
	}
}

// core owns the whole lab.
type core struct {
	cfg     Config
	born    time.Time
	events  *journal
	monitor *monitor
	drives  map[string]*drive.Drive // a.0, a.1, b.0, b.1
	bmc     map[string]*sim.BMC
	pdu     *sim.PDU
	verbs   map[string]verb

	mu       sync.Mutex // guards what follows; held only for moments
	machines map[string]*machine
	bmcMode  map[string]string
	pduMode  string
	rng      *rand.Rand

	wiring sync.Mutex // one change of the cables at a time
	wires  wires
	rough  *cable.Rough // the bad way to the witness, if it has one
}

func run() error {
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)    // the lock of the state folder, held until this process ends
	runtime.LockOSThread() // main thread stays: some kernel calls are per thread
	starter, err := control.FromFile(os.NewFile(3, "starter"))
	if err != nil {
		return err
	}
	var cfg Config
	if _, err := starter.Receive(&cfg); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	c, listener, err := rise(cfg, func(what string) { _ = starter.Send(Greeting{Progress: what}) })
	if err != nil {
		_ = starter.Send(Greeting{Error: err.Error()}) // nobody else to tell
		return err
	}
	if err := starter.Send(Greeting{Ready: true}); err != nil {
		return err
	}
	go c.serve(listener)
	// The starter says nothing more; the end of its socket is the end of the lab.
	_, err = starter.Receive(&struct{}{})
	c.events.add("", "down", "the starter's socket closed")
	if err != nil && !errors.Is(err, os.ErrClosed) {
		slog.Info("starter gone", "error", err)
	}
	return nil
}

// bootTimeout bounds the coming up of the whole lab; on a quiet machine it takes under two seconds.
const bootTimeout = 60 * time.Second

// rise builds everything and switches it on.
func rise(cfg Config, progress func(string)) (*core, *net.UnixListener, error) {
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	if err := settleIn(); err != nil {
		return nil, nil, err
	}
	born := time.Now()
	events, err := openJournal(filepath.Join(cfg.State, "events.jsonl"), born)
	if err != nil {
		return nil, nil, err
	}
	c := &core{
		cfg: cfg, born: born, events: events, drives: map[string]*drive.Drive{}, bmc: map[string]*sim.BMC{},
		machines: map[string]*machine{}, bmcMode: map[string]string{"a": "ok", "b": "ok"}, pduMode: "ok",
		rng: rand.New(rand.NewPCG(cfg.Seed, 0)), wires: wires{}, verbs: verbTable(),
	}
	c.monitor = newMonitor(born, c.events)
	progress("drives, switches, BMCs and PDU")
	if err := c.makeDrives(ctx); err != nil {
		return nil, nil, err
	}
	if err := wireSwitches(); err != nil {
		return nil, nil, err
	}
	for _, mc := range cfg.Machines {
		m, err := newMachine(mc, cfg.State)
		if err != nil {
			return nil, nil, err
		}
		c.machines[mc.Name] = m
	}
	if err := c.rackUp(); err != nil {
		return nil, nil, err
	}
	go c.monitor.run(c.bodies)
	progress("witness, client, node a, node b")
	if err := c.wake(ctx); err != nil {
		return nil, nil, err
	}
	l, err := control.Listen(cfg.State)
	return c, l, err
}

// settleIn gives the core its own view: private mounts, a /proc of its PID namespace, loopback, no IPv6 on switches.
func settleIn() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount of /proc: %w", err)
	}
	// A switch has no address of its own on the mirror cable: nothing there but the nodes.
	for _, conf := range []string{"all", "default"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+conf+"/disable_ipv6", []byte("1"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("IPv6 of the switches: %w", err)
		}
	}
	return nil
}

// makeDrives opens and, at first use, formats the drives, all at once.
func (c *core) makeDrives(ctx context.Context) error {
	dir := filepath.Join(c.cfg.State, "disks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("disks: %w", err)
	}
	sizes := []int64{c.cfg.DataMiB << 20, c.cfg.PoolMiB << 20}
	formats := make(chan error)
	for _, node := range []string{"a", "b"} {
		for i, size := range sizes {
			name := fmt.Sprintf("%s.%d", node, i)
			path := filepath.Join(dir, name+".img")
			d, err := drive.Open(path, size)
			if err != nil {
				return err
			}
			c.drives[name] = d
			go func() { formats <- drive.Format(ctx, path) }()
		}
	}
	var err error
	for range c.drives {
		err = errors.Join(err, <-formats)
	}
	return err
}

// wake switches the machines on: the world first, then both nodes at once.
func (c *core) wake(ctx context.Context) error {
	results := make(chan error)
	for _, name := range names {
		m := c.machines[name]
		c.mu.Lock()
		m.chassis = power.Chassis{}
		for i := range m.chassis.Supplies {
			m.chassis = m.chassis.SwitchOutlet(i, true)
		}
		m.chassis = m.chassis.Cords(true)
		if !isNode(name) || !c.cfg.Off {
			m.chassis = m.chassis.Press()
		}
		c.mu.Unlock()
		go func() { results <- c.settle(ctx, m, "first power-on") }()
	}
	var err error
	for range names {
		err = errors.Join(err, <-results)
	}
	return err
}

// bodies is what the monitor looks at: the living bodies of nodes that have power.
func (c *core) bodies() map[string]*ns.Body {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]*ns.Body{}
	for name, m := range c.machines {
		if isNode(name) && m.body != nil && m.energised {
			out[name] = m.body
		}
	}
	return out
}

// draw returns a generator of its own for one power cut, from the lab's seed.
func (c *core) draw() *rand.Rand {
	c.mu.Lock()
	defer c.mu.Unlock()
	return rand.New(rand.NewPCG(c.rng.Uint64(), c.rng.Uint64()))
}
