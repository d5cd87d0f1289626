package core

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"duet/build/lab/cable"
	"duet/build/lab/control"
	"duet/build/lab/drive"
	"duet/build/lab/ns"
	"duet/build/lab/power"
	"duet/build/lab/watchdog"
)

// machine is one computer with its plug. The core's mu guards the fields below op; op is held over a whole change of
// power, so changes of one machine come one after another while those of two machines overlap.
type machine struct {
	cfg       MachineConfig
	folder    string
	machineID string // 32 hex digits

	op sync.Mutex

	chassis   power.Chassis
	energised bool // has power: from the start of a power-on to the end of step 3 of a cut. What a BMC reports.
	crashed   bool // power, but its kernel is dead
	hung      bool
	body      *ns.Body
	fronts    []*drive.Front
	watchdog  *watchdog.Timer
	reaped    chan struct{} // of the last body: closed when nothing of it is left
	boots     int
	bootID    string
	resets    int // by the watchdog
	cause     string

	clockAhead time.Duration // of the boot clock, from the next power-on
}

// newMachine finds or makes the machine's identity and folders.
func newMachine(cfg MachineConfig, state string) (*machine, error) {
	m := &machine{cfg: cfg, folder: filepath.Join(state, cfg.Name), reaped: make(chan struct{})}
	close(m.reaped)
	for _, dir := range []string{"upper", "work", "root", "log"} {
		if err := os.MkdirAll(filepath.Join(m.folder, dir), 0o755); err != nil {
			return nil, fmt.Errorf("machine %s: %w", cfg.Name, err)
		}
	}
	path := filepath.Join(m.folder, "machine-id")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		b = []byte(randomHex())
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", cfg.Name, err)
	}
	m.machineID = strings.TrimSpace(string(b))
	return m, nil
}

// randomHex is 128 random bits.
func randomHex() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b[:])
}

// uuid writes 32 hex digits as a UUID.
func uuid(h string) string {
	return h[0:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:32]
}

// clockSpan is the range of a machine's boot clock at power-on: a firmware needs some seconds before the kernel counts,
// and two nodes never have the same.
const clockSpan = 60 * time.Second

// settle makes the machine's body what its chassis says. It is called after every change of the chassis.
func (c *core) settle(ctx context.Context, m *machine, cause string) error {
	m.op.Lock()
	defer m.op.Unlock()
	c.mu.Lock()
	on, is := m.chassis.On(), m.energised
	c.mu.Unlock()
	switch {
	case on && !is:
		return c.powerOn(ctx, m, cause)
	case !on && is:
		return c.powerOff(m, cause)
	}
	return nil
}

// powerOn boots a machine. The caller holds m.op.
func (c *core) powerOn(ctx context.Context, m *machine, cause string) error {
	select {
	case <-m.reaped:
	case <-ctx.Done():
		return fmt.Errorf("machine %s: its former life has not ended: %w", m.cfg.Name, ctx.Err())
	}
	c.mu.Lock()
	m.energised, m.crashed, m.hung, m.cause = true, false, false, cause
	m.boots++
	m.bootID = uuid(randomHex())
	c.mu.Unlock()
	started := time.Now()
	if err := c.boot(ctx, m); err != nil {
		c.events.add(m.cfg.Name, "boot-failed", err.Error())
		return errors.Join(err, c.powerOff(m, "boot failed"))
	}
	c.events.addf(m.cfg.Name, "power-on", "%s; boot %d, PID 1 after %d ms", cause, m.boots, time.Since(started).Milliseconds())
	return nil
}

// boot starts the body of a machine that has just got power.
func (c *core) boot(ctx context.Context, m *machine) error {
	name := m.cfg.Name
	log, err := os.OpenFile(filepath.Join(m.folder, "log", "init.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("machine %s: %w", name, err)
	}
	defer log.Close()
	spec, err := c.attach(m)
	if err != nil {
		return err
	}
	rng := c.draw()
	// The clock starts near zero, as after a real power-on; offsets are against the real boot clock.
	c.mu.Lock()
	ahead := m.clockAhead
	c.mu.Unlock()
	offset := time.Duration(rng.Int64N(int64(clockSpan))) + ahead - bootTime()
	body, err := ns.Start(name, ns.Clocks{Offset: offset}, log, func(unit, event string, s control.Service) {
		c.events.addf(name, "service-"+event, "%s pid %d %s", unit, s.PID, s.LastExit)
	})
	if err != nil {
		c.unmount(m, m.fronts, m.watchdog)
		return err
	}
	c.mu.Lock()
	m.body, m.reaped = body, make(chan struct{})
	c.mu.Unlock()
	go c.mourn(m, body, m.fronts, m.watchdog, m.reaped)
	if err := c.plug(m, body.PID()); err != nil {
		return err
	}
	return body.Boot(ctx, spec)
}

// attach gives the machine its drives and watchdog and writes its specification.
func (c *core) attach(m *machine) (ns.Spec, error) {
	name := m.cfg.Name
	spec := ns.Spec{
		Machine: name, Hostname: m.cfg.Hostname, BootID: m.bootID, MachineID: m.machineID, HostUUID: uuid(m.machineID),
		Upper: filepath.Join(m.folder, "upper"), Work: filepath.Join(m.folder, "work"), Root: filepath.Join(m.folder, "root"),
		Hide: []string{c.cfg.State}, Bin: c.cfg.Bin, LogDir: filepath.Join(m.folder, "log"),
		Files: m.cfg.Files, Folders: m.cfg.Folders, Remove: m.cfg.Remove, Units: m.cfg.Units,
	}
	for i, f := range spec.Files {
		f.Data = strings.NewReplacer(MachineIDMark, spec.MachineID, HostUUIDMark, spec.HostUUID).Replace(f.Data)
		spec.Files[i] = f
	}
	for _, p := range hardware[name] {
		spec.Interfaces = append(spec.Interfaces, ns.Interface{Name: p.inner, Addresses: p.addresses})
	}
	if !isNode(name) {
		return spec, nil
	}
	mounts := []string{"/data", "/pool"}
	var fronts []*drive.Front
	for i, target := range mounts {
		id := fmt.Sprintf("%s.%d", name, i)
		front, err := c.drives[id].Attach(filepath.Join(m.folder, fmt.Sprintf("drive%d.%d", i, m.boots)))
		if err != nil {
			return spec, err
		}
		fronts = append(fronts, front)
		spec.Drives = append(spec.Drives, ns.Drive{Name: id, File: front.File(), Mount: target})
	}
	boot := m.boots
	dog, err := watchdog.Attach(filepath.Join(m.folder, fmt.Sprintf("watchdog.%d", boot)), func() { c.bark(m, boot) })
	if err != nil {
		return spec, err
	}
	spec.Watchdog = dog.File()
	c.mu.Lock()
	m.fronts, m.watchdog = fronts, dog
	c.mu.Unlock()
	return spec, nil
}

// plug puts the machine's cables in.
func (c *core) plug(m *machine, pid int) error {
	c.wiring.Lock()
	defer c.wiring.Unlock()
	name := m.cfg.Name
	for _, p := range hardware[name] {
		if err := cable.Plug(cable.Port{
			Outer: p.outer(name), Inner: p.inner, Switch: p.bridge, MAC: mac(name, p.inner), Group: groupOf(name),
			Isolated: c.wires.isolated(name, p), Carrier: c.wires.carrier(name, p, c.powered),
		}, pid); err != nil {
			return err
		}
	}
	return c.peerCarrier(name)
}

// peerCarrier gives or takes the carrier of the peer's end of the back-to-back cable. The caller holds wiring.
func (c *core) peerCarrier(node string) error {
	if !isNode(node) {
		return nil
	}
	peer := peerOf(node)
	c.mu.Lock()
	there := c.machines[peer] != nil && c.machines[peer].body != nil && c.machines[peer].energised
	c.mu.Unlock()
	p := hardware[peer][0]
	if !there || !cable.Exists(p.outer(peer)) { // off, or not that far: it looks at this node when it plugs its own in
		return nil
	}
	err := cable.SetCarrier(p.outer(peer), c.wires.carrier(peer, p, c.powered))
	if err != nil && !cable.Exists(p.outer(peer)) {
		return nil // it died meanwhile, and its port with it
	}
	return err
}

// powered says whether a node has power now.
func (c *core) powered(node string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.machines[node]
	return m != nil && m.energised
}

// mourn waits for the end of a body and takes its drives and watchdog away. A body that ends while it should live
// crashed by itself.
func (c *core) mourn(m *machine, body *ns.Body, fronts []*drive.Front, dog *watchdog.Timer, reaped chan struct{}) {
	<-body.Done()
	c.mu.Lock()
	alive := m.body == body && m.energised
	if alive {
		m.crashed = true // the watchdog, if armed, goes on counting
	}
	if m.body == body {
		m.body = nil
	}
	c.mu.Unlock()
	if alive {
		c.events.add(m.cfg.Name, "crashed", "PID 1 is gone; power is on")
	}
	c.unmount(m, fronts, dog)
	close(reaped)
}

// unmount takes a former life's drives and watchdog away.
func (c *core) unmount(m *machine, fronts []*drive.Front, dog *watchdog.Timer) {
	for _, f := range fronts {
		f.Abandon()
		if err := f.Detach(); err != nil {
			c.labFailure(m.cfg.Name, err)
		}
	}
	if dog != nil {
		if err := dog.Detach(); err != nil {
			c.labFailure(m.cfg.Name, err)
		}
	}
}

// labFailure is a fault of the lab itself.
func (c *core) labFailure(machine string, err error) {
	c.events.add(machine, "lab-failure", err.Error())
}
