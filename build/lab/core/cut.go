package core

import (
	"errors"
	"time"

	"duet/build/lab/cable"
	"duet/build/lab/drive"
)

// powerOff is loss of power, whatever took it: cords, outlets, the BMC's "off". The order is lab.md section 5. The
// caller holds m.op.
func (c *core) powerOff(m *machine, cause string) error {
	survival, err := drive.ParseSurvival(c.cfg.Cache)
	if err != nil {
		return err
	}
	return c.fell(m, fall{cause: cause, kind: "power-cut", drives: func() error {
		var err error
		for _, d := range c.drivesOf(m) {
			err = errors.Join(err, d.Cut(survival, c.draw()))
		}
		return err
	}, after: func() { m.energised = false }})
}

// fall is one way in which a node ends.
type fall struct {
	cause, kind string
	drives      func() error // what its drives do then
	after       func()       // the new state of the machine; called under the core's mu
	dogLives    bool         // the watchdog, if armed, goes on counting
}

// fell is the common part of a cut, a reset and a panic: silence first, then death, then the drives.
func (c *core) fell(m *machine, f fall) error {
	name, started := m.cfg.Name, time.Now()
	c.mu.Lock()
	body, dog := m.body, m.watchdog
	c.mu.Unlock()
	// 0: nothing more is acknowledged by a drive; what was answered before may have been told to the world.
	for _, d := range c.drivesOf(m) {
		d.Hold()
	}
	// 1: links go first. A process that dies with its links up makes the kernel send FIN and RST within 15 ms, and
	// detection by the peer would look a hundred times better than it is.
	failed := c.unplug(m)
	silent := time.Since(started)
	// 2: death, without waiting: most of what follows is reaping.
	if body != nil {
		failed = errors.Join(failed, body.Kill())
	}
	if dog != nil && !f.dogLives {
		dog.Stop()
	}
	// 3: the drives forget, and answer EIO to whoever waits: a process that waits on a silent FUSE server cannot die.
	failed = errors.Join(failed, f.drives())
	c.mu.Lock()
	m.cause, m.crashed, m.hung = f.cause, false, false
	f.after()
	c.mu.Unlock()
	c.wiring.Lock()
	failed = errors.Join(failed, c.peerCarrier(name)) // the peer's end of the back-to-back cable goes dark
	c.wiring.Unlock()
	c.events.addf(name, f.kind, "%s; silent after %.1f ms, done after %.1f ms", f.cause,
		float64(silent.Microseconds())/1000, float64(time.Since(started).Microseconds())/1000)
	if failed != nil {
		c.labFailure(name, failed)
	}
	return failed
}

// unplug takes all the machine's ports away at once.
func (c *core) unplug(m *machine) error {
	c.wiring.Lock()
	defer c.wiring.Unlock()
	return cable.UnplugAll(groupOf(m.cfg.Name))
}

func (c *core) drivesOf(m *machine) []*drive.Drive {
	if !isNode(m.cfg.Name) {
		return nil
	}
	return []*drive.Drive{c.drives[m.cfg.Name+".0"], c.drives[m.cfg.Name+".1"]}
}
