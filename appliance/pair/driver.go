package pair

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/appliance/pair/peerlink"
	"duet/replication/control"
)

// ErrHalted: the record could not be written. Nothing is served by this node until a person has looked.
var ErrHalted = errors.New("the membership record could not be written: this node has stopped serving")

// Driver drives one node's membership.
type Driver struct {
	cfg    Config
	log    *slog.Logger
	lock   *os.File
	link   *peerlink.Link
	mirror *mirrord
	guard  *leaseGuard
	pets   *pets
	dog    *watchdog

	inputs   chan input
	mirrorUp chan bool

	// Owned by the loop.
	state    membership.State
	site     Site
	placed   membership.Digest // the version of the site document that site follows from
	resume   peerlink.Resume
	peerKey  ed25519.PublicKey
	timers   [membership.TimerCount]membership.Boottime
	wantAt   membership.Boottime
	beatAt   membership.Boottime
	lane     lane
	laneSeen control.LinkEvent // the last one, whatever it belongs to
	asks     asks
	legs     legs
	resumed  bool
	// unsnapped: the last snapshot could not be written
	unsnapped bool
	number    uint64 // of the input, for the flight record

	view  atomic.Pointer[View]
	trail trail
	wg    sync.WaitGroup
	ctx   context.Context // of Run
	leave func()          // ends the connection to duet-mirrord
	done  chan struct{}   // closed when Run ends

	cut func(membership.Effect) bool // of tests: the process dies before this effect
}

// ErrEnded: the driver has ended, before or while it carried out an order.
var ErrEnded = errors.New("the pair driver has ended")

// errNotYet: nothing is decided before duet-mirrord answers.
var errNotYet = errors.New("this node waits for duet-mirrord and decides nothing yet")

// errCut ends a driver as the death of its process would: nothing more is done.
var errCut = errors.New("the process died here")

// input is an event for the core, or a function for the loop.
type input struct {
	event membership.Event
	do    func()
	try   func() error // as do, and its error ends the driver
	deny  func(error)  // of a try that somebody waits for: it is not taken
}

// lane is the data lane of a session, as far as the rule of 5.3 needs it.
type lane struct {
	session membership.Session
	up      bool
	by      membership.Boottime // when its absence ends the session
	path    string
}

// New opens what a driver needs; nothing is decided yet.
func New(cfg Config) (*Driver, error) {
	d := &Driver{
		cfg: cfg, log: cfg.Log, inputs: make(chan input, inputQueue), mirrorUp: make(chan bool, 1),
		pets: &pets{}, done: make(chan struct{}),
	}
	var err error
	if d.lock, err = lock(cfg.RunDir); err != nil {
		return nil, err
	}
	seq, payload := cfg.Records.Record()
	var rec membership.Record
	if seq != 0 {
		if rec, err = membership.ParseRecord(payload); err != nil {
			return nil, errors.Join(fmt.Errorf("membership record: %w", err), d.lock.Close())
		}
	}
	snap, valid, err := readSnapshot(cfg.RunDir, cfg.BootID, rec.Seq)
	if err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	if cfg.Recorder == nil {
		d.cfg.Recorder = nobody{}
	}
	d.mirror = newMirrord(cfg.MirrorSocket, cfg.BootID, cfg.Log)
	d.mirror.seq = uint64(boottime.Now()) //nolint:gosec // positive
	d.state = membership.State{Cfg: cfg.Timing, Rec: rec}
	if valid {
		d.resumed = true
		d.state, d.resume = snap.State, snap.Link
		d.state.Cfg = cfg.Timing
		d.mirror.seq = max(d.mirror.seq, snap.GrantSequence)
	}
	cfg.Link.Resume = d.resume
	d.link = peerlink.New(cfg.Link)
	d.publish()
	return d, nil
}

// Record is the record that the driver starts from.
func (d *Driver) Record() membership.Record { return d.state.Rec }

// Run drives until ctx ends or the node must stop serving. site is what the record's document says; zero on a fresh node.
func (d *Driver) Run(ctx context.Context, site Site) (err error) {
	defer d.lock.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer d.wg.Wait()
	defer close(d.done)
	defer cancel()
	d.ctx, d.site, d.placed = ctx, site, documentOf(d.state.Rec)
	d.link.SetPin(site.Pin)
	if err := d.open(); err != nil {
		return err
	}
	defer d.close()
	if err := d.holdTheLease(); err != nil {
		return d.stopServing(err)
	}
	if err := d.awaitMirror(ctx); err != nil {
		return err
	}
	if err := d.begin(); err != nil {
		return d.stopServing(err)
	}
	d.wg.Go(func() { _ = d.link.Run(ctx) }) //nolint:errcheck // it ends with ctx only
	if err := d.loop(ctx); err != nil {
		return d.stopServing(err)
	}
	return ctx.Err()
}

func (d *Driver) open() error {
	var err error
	if d.guard, err = newLeaseGuard(d.leaseEnded); err != nil {
		return err
	}
	d.pets.idle = d.nothingRuns
	if d.cfg.Watchdog != "" {
		if d.dog, err = openWatchdog(d.cfg.Watchdog, d.pets, boottime.Now, d.log); err != nil {
			d.log.Error("watchdog is off", "code", "SYS-9008", "error", err.Error())
			d.trail.note("watchdog-off", err.Error())
		}
	}
	d.mirror.tell = d.mirrorSaid
	d.mirror.state = func(up bool) {
		if !up {
			d.mirrorGone()
			return
		}
		select {
		case d.mirrorUp <- true:
		default:
		}
	}
	if d.site.Mirror.Site != "" {
		d.mirror.config = &d.site.Mirror
	}
	// The connection outlives the loop: closing it under a call would look as if duet-mirrord did not confirm.
	ctx, cancel := context.WithCancel(context.WithoutCancel(d.ctx))
	d.leave = cancel
	d.wg.Go(func() { d.mirror.run(ctx) })
	return nil
}

func (d *Driver) close() {
	d.leave()
	d.guard.stop()
	if d.dog != nil {
		d.dog.stop()
	}
}

// holdTheLease: duet-mirrord may take long to answer, and until then the core decides nothing. What runs here from
// before has no right beyond the lease of the snapshot, and none at all without a snapshot (R1).
func (d *Driver) holdTheLease() error {
	switch {
	case d.resumed && d.state.Mode == membership.Solo:
		d.pets.solo.Store(true) // also while duet-mirrord is awaited
		return nil
	case d.resumed && d.now() < d.state.Lease:
		d.guard.set(d.state.Lease)
		d.pets.grantedTo.Store(int64(d.state.Lease))
		return nil
	}
	return d.stop(membership.Stop{All: true})
}

// awaitMirror: at the start a duet-mirrord of before may still serve under the grant of an earlier duetd. Nothing is
// decided before it can be told, however long that takes; by itself it holds at its deadline.
func (d *Driver) awaitMirror(ctx context.Context) error {
	for {
		select {
		case <-d.mirrorUp:
			return nil
		case in := <-d.inputs:
			switch {
			case in.do != nil:
				in.do()
			case in.deny != nil:
				in.deny(errNotYet)
			}
		case <-time.After(5 * time.Second):
			d.log.Warn("waiting for duet-mirrord", "socket", d.cfg.MirrorSocket)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begin is the first input: Resume with a valid snapshot, else Boot.
func (d *Driver) begin() error {
	if d.resumed {
		d.log.Info("going on from the snapshot", "mode", d.state.Mode.String(), "epoch", d.state.Rec.Ep)
		err := d.step(membership.Resume{})
		d.drain(0) // of the process before: the core has forgotten it, also when its release was not carried out
		return err
	}
	return d.step(membership.Boot{Record: d.state.Rec})
}

func (d *Driver) loop(ctx context.Context) error {
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case e := <-d.link.Events():
			err = d.linkSaid(e)
		case r := <-d.link.Refusals():
			d.log.Warn("connection refused", "from", r.From, "path", r.Path, "why", r.Why)
			d.trail.note("connection-refused", r.Path+": "+r.Why)
			d.cfg.Hooks.Refused(r)
		case in := <-d.inputs:
			err = d.take(in)
		case <-tick.C:
			err = d.due()
		}
		if err != nil {
			return err
		}
		tick.Reset(d.untilNext())
	}
}

func (d *Driver) take(in input) error {
	switch {
	case in.do != nil:
		in.do()
		return nil
	case in.try != nil:
		return in.try()
	}
	return d.step(in.event)
}

// post hands an input to the loop; it waits while the queue is full.
func (d *Driver) post(in input) {
	select {
	case d.inputs <- in:
	case <-d.done:
	}
}

func (d *Driver) postEvent(e membership.Event) { d.post(input{event: e}) }

// step is the whole of an input.
func (d *Driver) step(e membership.Event) error {
	in := membership.Input{Now: d.now(), Fresh: fresh(), Event: e}
	before := d.state
	after, effects := d.decide(before, in)
	if err := errors.Join(membership.CheckStep(before, after, in, effects), membership.CheckState(after)); err != nil {
		return fmt.Errorf("input %d: %w", d.number, err)
	}
	d.state = after
	if before != after || len(effects) > 0 {
		if err := d.saveSnapshot(); err != nil {
			return err
		}
	}
	if before.Rec.Site != after.Rec.Site {
		if err := d.belong(); err != nil {
			return err
		}
	}
	for i, eff := range effects {
		if d.cut != nil && d.cut(eff) {
			return errCut
		}
		if err := d.perform(eff); err != nil {
			return fmt.Errorf("input %d, effect %d (%T): %w", d.number, i, eff, err)
		}
	}
	d.afterStep(before, after)
	return nil
}

// decide steps and tells the flight recorder, which also learns of an input that the core could not take.
func (d *Driver) decide(before membership.State, in membership.Input) (after membership.State, effects []membership.Effect) {
	taken := false
	defer func() {
		if !taken { // Step panicked: this process ends, and its input is what explains it
			d.cfg.Recorder.Died(before, in)
		}
	}()
	after, effects = membership.Step(before, in)
	taken = true
	d.number++
	d.trace(in, effects)
	d.cfg.Recorder.Decided(before, in, after, effects)
	return after, effects
}

func (d *Driver) saveSnapshot() error {
	d.mirror.mu.Lock()
	granted := d.mirror.seq
	d.mirror.mu.Unlock()
	link := d.resume
	if link.Session != uint64(d.state.Session) {
		link = peerlink.Resume{} // the core has dropped it, or has not heard of it yet
	}
	err := writeSnapshot(d.cfg.RunDir, snapshot{
		BootID: d.cfg.BootID, Seq: d.state.Rec.Seq, State: d.state, Link: link, GrantSequence: granted + grantsPerStep,
	})
	if err == nil {
		d.unsnapped = false
		return nil
	}
	// Without a snapshot the next duetd of this boot kills and begins anew (R1): that is safe, and no reason to kill what
	// runs now. An old snapshot is not safe: it may pass for this state.
	if gone := dropSnapshot(d.cfg.RunDir); gone != nil {
		return errors.Join(err, gone)
	}
	if !d.unsnapped {
		d.unsnapped = true
		d.log.Error("no snapshot: a restart of duetd would stop what runs here", "error", err.Error())
		d.trail.note("no-snapshot", err.Error())
	}
	return nil
}

// belong follows the record into a site, out of one that was never founded, or to another version of its document.
func (d *Driver) belong() error {
	site, err := d.cfg.Hooks.Belongs(d.state.Rec)
	if err != nil {
		return fmt.Errorf("site document: %w", err)
	}
	same := reflect.DeepEqual(site.Mirror, d.site.Mirror)
	d.site, d.placed = site, documentOf(d.state.Rec)
	d.link.SetPin(site.Pin)
	if same {
		return nil
	}
	var cfg *control.Config
	if site.Mirror.Site != "" {
		cfg = &site.Mirror
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), confirmTimeout)
	defer cancel()
	if err := d.mirror.configure(ctx, cfg); err != nil {
		d.log.Error("duet-mirrord does not take its configuration", "error", err.Error())
	}
	return nil
}

// afterStep notices what a step changed that is not an effect.
func (d *Driver) afterStep(before, after membership.State) {
	d.pets.solo.Store(after.Mode == membership.Solo)
	if before.Mode != after.Mode {
		d.log.Info("mode", "from", before.Mode.String(), "to", after.Mode.String(), "epoch", after.Rec.Ep,
			"members", after.Rec.Members.String())
		d.trail.note("mode "+after.Mode.String(), fmt.Sprintf("epoch %d, members %v", after.Rec.Ep, after.Rec.Members))
	}
	if before.Mode != after.Mode || before.Committed() != after.Committed() || before.Rec.Fenced != after.Rec.Fenced {
		d.wantAt = 0
	}
	if after.Session == 0 {
		d.lane = lane{}
	}
	if before.Rec.Ep != after.Rec.Ep {
		d.link.Pause(0) // the question that laneHoldOff protects is answered
	}
	d.publish()
}

// nothingRuns is asked by the watchdog's thread.
func (d *Driver) nothingRuns() bool {
	return boottime.Now() >= d.pets.grantedTo.Load() && d.cfg.Workloads.Idle()
}

func (d *Driver) now() membership.Boottime { return membership.Boottime(boottime.Now()) }

// fresh is a nonce that was never used: 64 random bits.
func fresh() membership.Nonce {
	var b [8]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			panic(err) // cannot happen since Go 1.24; a node without randomness must not vote
		}
		if n := binary.LittleEndian.Uint64(b[:]); n != 0 {
			return membership.Nonce(n)
		}
	}
}
