package flight

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"duet/appliance/membership"
)

// Limits of the recorder.
const (
	queueLength   = 512              // decisions: at thirty a second, a disk may hang for 17 s before entries are left out
	flushEvery    = time.Second      // what a power cut may cost, of what is no transition
	snapshotEvery = 10 * time.Minute // by CLOCK_BOOTTIME; replay of a part begins at most so far before it
	retryAfter    = 10 * time.Minute // a new file after an error: space may have been made
	closeLimit    = time.Second      // a disk that hangs does not hold the end of duetd
	maxPending    = 64 << 10         // bytes of entries that wait for a frame
)

// Config is everything a recorder needs.
type Config struct {
	Dir    string // of the ring; made when it is not there
	Limit  int64  // bytes of all files
	BootID string
	Node   membership.Node
	Log    *slog.Logger
	Broken func(error) // recording has stopped: once, until Mended
	Mended func()      // recording goes on, in a new file

	// Of tests.
	open    func(path string, flag int) (medium, error)
	retry   time.Duration
	segment int64
}

// Recorder takes decisions from one goroutine and writes them from another.
type Recorder struct {
	cfg   Config
	log   *slog.Logger
	queue chan item
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	// Owned by whoever calls Decided.
	known bool             // last is the state after the last entry that was queued
	last  membership.State //
	lost  uint64           // since the last entry that was queued

	sequence atomic.Uint64 // of the last entry that was written
	left     atomic.Uint64 // entries left out since the start
	broken   atomic.Bool
}

// item is one decision on its way.
type item struct {
	before  *membership.State // nil: the state after the item before it
	lost    uint64
	in      membership.Input
	after   membership.State
	effects []membership.Effect
	died    bool
}

// Start begins a recording. It does no I/O itself: a folder that cannot be used is a fault of the recorder, not of duetd's
// start.
func Start(cfg Config) *Recorder {
	if cfg.segment == 0 {
		cfg.Limit = max(cfg.Limit, MinLimit)
	}
	if cfg.open == nil {
		cfg.open = openFile
	}
	if cfg.retry == 0 {
		cfg.retry = retryAfter
	}
	r := &Recorder{
		cfg: cfg, log: cfg.Log, queue: make(chan item, queueLength), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go r.run()
	return r
}

// Decided keeps what Step made of an input. It never waits. One goroutine calls it.
func (r *Recorder) Decided(before membership.State, in membership.Input, after membership.State, effects []membership.Effect) {
	r.put(before, item{in: in, after: after, effects: effects})
}

// Died keeps an input that Step could not take; the process ends with it. It returns when the entry is on the disk, or
// after a second.
func (r *Recorder) Died(before membership.State, in membership.Input) {
	r.put(before, item{in: in, after: before, died: true})
	r.Close()
}

func (r *Recorder) put(before membership.State, it item) {
	if !r.known || before != r.last {
		it.before, it.lost = &before, r.lost
	}
	select {
	case r.queue <- it:
		r.known, r.last, r.lost = true, it.after, 0
	default:
		r.known = false
		r.lost++
		r.left.Add(1)
	}
}

// Status is for people.
type Status struct {
	Recording bool
	Sequence  uint64 // of the last entry in the ring
	Lost      uint64 // entries that were left out since duetd began
}

// Status may be asked for at any time.
func (r *Recorder) Status() Status {
	return Status{Recording: !r.broken.Load(), Sequence: r.sequence.Load(), Lost: r.left.Load()}
}

// Done is closed when Close was called and everything is written, however long the disk takes.
func (r *Recorder) Done() <-chan struct{} { return r.done }

// Close writes what is left. After closeLimit it leaves the disk to itself.
func (r *Recorder) Close() {
	r.once.Do(func() { close(r.stop) })
	select {
	case <-r.done:
	case <-time.After(closeLimit):
	}
}

// run owns the files.
func (r *Recorder) run() {
	defer close(r.done)
	t := &tape{cfg: r.cfg, ring: ring{dir: r.cfg.Dir, limit: r.cfg.Limit, node: byte(r.cfg.Node), open: r.cfg.open, segment: r.cfg.segment}}
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case it := <-r.queue:
			r.keep(t, it)
		case <-tick.C:
			r.try(t, t.flush)
		case <-r.stop:
			r.drain(t)
			return
		}
	}
}

func (r *Recorder) drain(t *tape) {
	for {
		select {
		case it := <-r.queue:
			r.keep(t, it)
		default:
			r.try(t, t.flush)
			t.ring.drop()
			return
		}
	}
}

func (r *Recorder) keep(t *tape, it item) {
	if r.broken.Load() && time.Since(t.brokenAt) < r.cfg.retry {
		t.missed(it)
		r.left.Add(1)
		return
	}
	r.try(t, func() error { return t.take(it) })
}

// try does something to the disk. The first error stops the recording with one fault; the first success after it ends
// that, and only a sync is one: a sick disk still takes what it will not keep.
func (r *Recorder) try(t *tape, do func() error) {
	err := guarded(do)
	if err == nil && r.broken.Load() && t.ring.file != nil {
		err = guarded(t.flush)
	}
	if err != nil {
		t.breaks()
		if !r.broken.Swap(true) {
			r.log.Error("the flight recorder stops; nothing else does", "code", "SYS-9020", "error", err.Error())
			r.cfg.Broken(err)
		}
		return
	}
	r.sequence.Store(max(t.ring.next+t.count, 1) - 1) // a ring that has not begun knows of none
	if r.broken.Load() && t.ring.file != nil {
		r.broken.Store(false)
		r.log.Info("the flight recorder goes on", "file", t.ring.path)
		r.cfg.Mended()
	}
}

// guarded: a mistake in here is a fault of the recording, never the end of duetd.
func guarded(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("flight recorder: %v", p)
		}
	}()
	return do()
}

// tape is the encoder above the ring: what is known of the recording so far, and the entries that wait for a frame.
type tape struct {
	cfg      Config
	ring     ring
	begun    bool // the end of the ring is known
	framer   framer
	run      *run // nil: the next entry needs a snapshot
	started  bool // an entry of this process was written
	state    membership.State
	snapped  membership.Boottime
	lost     uint64 // left out, and not said yet
	said     uint64 // by snapshots that wait for a frame
	claimed  uint64 // by written ones that no sync has confirmed
	pending  []byte
	count    uint64 // of pending
	unsynced bool
	brokenAt time.Time
}

// missed is an entry that is not written: its state is all that is kept of it.
func (t *tape) missed(it item) {
	t.state = it.after
	t.lost += it.lost + 1
}

// breaks gives up what was not written.
func (t *tape) breaks() {
	t.ring.drop()
	t.lost += t.count + t.said
	t.begun, t.run, t.pending, t.count, t.said, t.unsynced = false, nil, nil, 0, 0, false
	t.brokenAt = time.Now()
}

// take writes one decision, behind a snapshot where one is due.
func (t *tape) take(it item) error {
	if !t.begun {
		missing, err := t.ring.begin()
		if err != nil {
			t.missed(it)
			return err
		}
		t.begun = true
		if missing > 0 { // and with it what the snapshots in it said
			t.lost += missing + t.claimed
		}
		t.claimed = 0
	}
	t.lost += it.lost
	reason := Periodic
	if it.before != nil {
		t.state, t.run = *it.before, nil
		reason = AfterLoss
	}
	if err := t.prepare(reason, it.in.Now); err != nil {
		t.missed(item{after: it.after})
		return err
	}
	calm, transition, err := t.add(it)
	t.state = it.after
	switch {
	case err != nil:
		return err
	case transition:
		return t.flush()
	case !calm, len(t.pending) > maxPending:
		return t.write()
	}
	return nil
}

// prepare makes a new file or a snapshot, when it is time.
func (t *tape) prepare(reason Reason, now membership.Boottime) error {
	switch {
	case t.ring.full():
		if err := t.flush(); err != nil {
			return err
		}
		if err := t.ring.roll(); err != nil {
			return err
		}
		t.unsynced, t.run = true, nil
		reason = max(reason, AtSegment)
	case t.run != nil && now-t.snapped < membership.Boottime(snapshotEvery):
		return nil
	}
	if t.lost > 0 {
		reason = AfterLoss
	}
	if !t.started {
		reason = AtStart
	}
	return t.snapshot(reason, now)
}

func (t *tape) snapshot(reason Reason, now membership.Boottime) error {
	s := Snapshot{Reason: reason, Lost: t.lost, BootID: t.cfg.BootID, Now: now, Wall: time.Now(), State: t.state}
	b, err := appendSnapshot(t.pending, &s)
	if err != nil {
		return err
	}
	t.pending, t.run, t.snapped, t.started = b, newRun(now), now, true
	t.said, t.lost = t.said+t.lost, 0
	t.count++
	return nil
}

// add encodes a decision. calm: a beat or its answer, which may wait for the others of its second.
func (t *tape) add(it item) (calm, transition bool, err error) {
	o, err := outcomeOf(it.after, it.effects)
	if err != nil {
		return false, false, err
	}
	e, usesFresh, err := entryOf(&t.state, it.in, &o, it.died)
	if err != nil {
		return false, false, err
	}
	if t.pending, err = t.run.appendInput(t.pending, &e, usesFresh); err != nil {
		return false, false, err
	}
	t.count++
	return isBeat(it.in.Event), it.died || t.state.Mode != it.after.Mode || t.state.Rec != it.after.Rec, nil
}

func isBeat(e membership.Event) bool {
	switch e := e.(type) {
	case membership.Beat:
		return true
	case membership.Received:
		switch e.Message.(type) {
		case membership.BeatMsg, membership.BeatAck:
			return true
		}
	}
	return false
}

// write hands what waits to the kernel: it survives this process.
func (t *tape) write() error {
	if t.count == 0 {
		return nil
	}
	b := t.framer.append(nil, t.ring.next, t.count, t.pending)
	if len(b) > maxFrame {
		return fmt.Errorf("flight recorder: %d bytes do not fit a frame", len(b))
	}
	if err := t.ring.append(b, t.count); err != nil {
		return err
	}
	t.claimed += t.said
	t.pending, t.count, t.said, t.unsynced = t.pending[:0], 0, 0, true
	return nil
}

// flush makes what waits durable: it survives the node.
func (t *tape) flush() error {
	if err := t.write(); err != nil || !t.unsynced {
		return err
	}
	t.unsynced = false
	err := t.ring.sync()
	if err == nil {
		t.claimed = 0
	}
	return err
}
