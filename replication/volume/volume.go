// Package volume is the engine of one mirrored disk on one node: it takes the guest's reads, writes and
// flushes, or forwards them to the node that coordinates the volume, keeps this node's leg, sends writes to the other
// node's leg, and brings a leg that fell behind up to date and proves it.
//
// It promises what replication.md section 1 lists: a write is acknowledged when every leg in Legs has it, a
// flush when every leg has synced what was acknowledged before it; what was once read never changes back; a leg
// comes back only by proof; and in doubt a request is held. It knows grants and lanes, but nothing of NBD, of
// sockets, or of who decides.
//
// # How it is built
//
// What may happen now is never remembered, it is computed: package stage derives it from a handful of facts
// (mode, legs, lane, copy), kept under one lock. Whoever changes a fact wakes everybody who waits, and each
// request looks again. So there are no transitions to forget, only facts to keep true.
//
// A request is a goroutine (the NBD server's). A write waits until writes may be issued, takes its range in the
// overlap lock, is sent to the peer and written here at the same time, and waits for both. If its lane goes
// away it parks: its end is unknown, so it keeps its range, and is issued again, to both legs, as soon as that
// is allowed. A write is idempotent while its client has no answer, so repeating is always right; forgetting
// never is. When this node stops being the place that may repeat it (another owner, a copy), its blocks are
// noted as suspect and the request waits like a new one.
//
// Both nodes may have clients. One node coordinates the volume; the other one forwards its clients' requests to it over
// the lane, where they are carried out as its own (forward.go). So there is one order of writes, and a node whose leg
// failed goes on over the other one.
//
// Before a write is submitted on a leg, that leg's activity log names its extents (package meta, O1). After a crash a copy
// compares what either log names, and the whole volume only when that is not known.
//
// A leg that fails is final: nothing is answered from it, the failure is reported once and requests are held until a grant
// takes the leg out (R23). It comes back as the target of a copy that ends in a proof (R24).
//
// A grant changes facts and returns; it waits for no device. What needs the disk (a new generation before the
// first write alone, O5) runs behind it and sets the fact that opens the gate when it is durable.
//
// # What was rejected
//
// One goroutine that owns all state and gets events: every request would cross it twice, and the waiting that
// requests do is exactly what goroutines are for. A state machine with named transitions: the first draft had
// forty, and the bugs were in the pairs that could happen at once.
package volume

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"duet/replication/block"
	"duet/replication/control"
	"duet/replication/internal/nowait"
	"duet/replication/link"
	"duet/replication/meta"
	"duet/replication/volume/stage"
)

// Block is the unit of everything: offsets, locks, dirty bits.
const Block = block.Unit

// Limits.
const (
	MaxRequest       = 1 << 20         // one request; the NBD server splits larger ones
	peerFlushEvery   = time.Second     // bounds the unsynced set (replication.md section 5)
	peerFlushBytes   = 64 << 20        // the same, by volume of writes
	storeDirtyEvery  = 5 * time.Second // lazily while alone: what is hot counts as dirty after a crash
	coolEvery        = 5 * time.Second // extents not written for so long leave the activity log
	digestRead       = 1 << 20         // one read for a digest
	maxProofRounds   = 3               // then the copy fails: something loses writes
	staleLeavesLimit = 8               // extents that may be digested while writes are held
	maxSoftRounds    = 3               // tries to get below it
)

// ErrClosed is the answer while the daemon stops: no answer must reach the guest.
var ErrClosed = errors.New("the volume is being closed")

// Env is what a volume needs from its surroundings.
type Env struct {
	Log   *slog.Logger
	Fault func(control.Fault)
	// LegFailed: this leg is dead. Requests are held until a grant takes it out. inStep says that the other one was known to
	// be equal at that moment, so it may stand alone; else that depends on what the other node says of it.
	LegFailed func(inStep bool)
	// Room bounds what all volumes together forward at a time; nil: nothing does.
	Room  chan struct{}
	Clock func() int64 // CLOCK_BOOTTIME, ns
}

// Boottime reads CLOCK_BOOTTIME.
func Boottime() int64 {
	return nowait.Boottime()
}

// Right is the part of the grant that concerns one volume.
type Right struct {
	Mode     control.Mode
	Epoch    uint64
	Prepared uint64
	Session  uint64
	Owner    control.Node
	Legs     control.Set // Legs[v] ∩ Members
	Version  uint32
}

// Volume is one leg with its engine.
type Volume struct {
	ID     meta.ID
	Name   string
	Self   control.Node
	env    Env
	size   int64
	boot   meta.ID
	parts  atomic.Pointer[parts]
	locks  rangeLock
	leaves *leaves
	count  counters

	deadline atomic.Int64
	term     atomic.Uint64 // grows when the right to answer lapsed or changed

	mu         sync.Mutex
	changed    chan struct{}
	waiters    int
	closed     bool
	right      Right
	facts      stage.Facts
	lane       *link.Lane
	laneCtx    context.Context // of forwarded requests: ends with the lane
	endLane    context.CancelFunc
	handle     uint32 // how this node names the volume on the lane
	active     map[*request]struct{}
	suspect    *meta.Bitmap // blocks whose write was given up here with unknown end
	unsynced   *meta.Bitmap // blocks the other leg acknowledged after its last completed sync
	clean      bool         // this leg's divergence is known (handshake.Leg.Clean)
	rebooted   bool
	excluding  bool
	drains     uint64 // number of the last drain
	pledged    bool   // the copy is finished and may have been reported: nothing alone before the stage of the grant changes
	copying    *source
	sink       *sink
	flushing   *flushBatch
	nextFlush  *flushBatch
	heard      heard
	ejected    bool               // the leg failed because it was too slow
	damaged    map[int64]struct{} // blocks that no leg has
	readErrors []int64            // when blocks could not be read, CLOCK_BOOTTIME, the oldest first
	lastSent   map[int64]uint64   // catching: newest frame in flight per block
	sends      uint64

	forwards   chan struct{} // a place for each request that the other node carries out
	forwarding int           // those that have been sent
	onTheWay   rangeLock     // their blocks, until they are answered

	recording  sync.Mutex // one change of generation or state at a time; taken before mu
	peerFlush  sync.Mutex // one FLUSH of the unsynced set at a time
	sinceFlush atomic.Int64

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// parts are the two objects of a leg. A dead leg's are replaced by a new one's; what still hangs in the old ones ends there.
type parts struct {
	data *block.Watch
	meta *meta.Meta
	side *block.Watch // what meta is on
}

func (v *Volume) disk() *block.Watch { return v.parts.Load().data }

func (v *Volume) md() *meta.Meta { return v.parts.Load().meta }

type counters struct {
	reads, writes, flushes atomic.Uint64
	held                   atomic.Int64
	dirtyAtStart           atomic.Int64
	resync, digest         atomic.Int64
	repaired               atomic.Int64 // blocks of this leg, from the other one
	repairedPeer           atomic.Int64 // blocks of the other leg, by a scrub here
	differed               atomic.Int64 // blocks that were different without a sign of it
	uncompared             atomic.Int64
	stallMS                atomic.Int64
}

// beginCopy: the counters of a copy are about the running or the last one.
func (c *counters) beginCopy() {
	c.dirtyAtStart.Store(0)
	c.uncompared.Store(0)
	c.resync.Store(0)
	c.digest.Store(0)
}

// countDirty notes what a copy begins with: marked on either leg as far as this one knows, and what is to be compared.
func (v *Volume) countDirty(compared int64) {
	v.count.dirtyAtStart.Store(min(v.size, v.md().Dirty().Count()*Block+compared))
	v.count.uncompared.Store(compared)
}

// New makes a volume whose leg does not exist yet: everything is held.
func New(id meta.ID, name string, size int64, self control.Node, env Env) *Volume {
	ctx, stop := context.WithCancel(context.Background())
	if env.Clock == nil {
		env.Clock = Boottime
	}
	blocks := size / Block
	return &Volume{
		ID: id, Name: name, Self: self, env: env, size: size,
		changed: make(chan struct{}), active: map[*request]struct{}{}, damaged: map[int64]struct{}{}, lastSent: map[int64]uint64{},
		suspect: meta.NewBitmap(blocks), unsynced: meta.NewBitmap(blocks), leaves: newLeaves(size),
		forwards: make(chan struct{}, forwardsMax), laneCtx: ctx, endLane: func() {},
		ctx: ctx, stop: stop,
	}
}

// Attach gives the volume its leg: the first one, or a new one after Detach. boot is the boot id of this node.
func (v *Volume) Attach(leg Leg, boot meta.ID) error {
	m, data := leg.Meta, leg.Data
	s := m.Super()
	switch {
	case s.Volume != v.ID:
		return fmt.Errorf("leg of volume %s found at the place of %s", s.Volume, v.ID)
	case int64(s.VolumeBytes) != v.size || data.Size() < v.size:
		return fmt.Errorf("leg of %d bytes, the volume has %d", s.VolumeBytes, v.size)
	}
	logFailed := func(err error) {
		if v.md() == m { // else of a leg that is there no more
			_ = v.legError("activity log", err) //nolint:errcheck // recorded and held
		}
	}
	if err := m.StartLog(data, logFailed); err != nil {
		return fmt.Errorf("activity log: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	first := v.parts.Swap(&parts{data, m, leg.Side}) == nil
	v.boot = boot
	v.leaves.forget()
	v.suspect.Clear(0, v.suspect.Blocks())
	v.unsynced.Clear(0, v.unsynced.Blocks())
	clear(v.damaged)
	v.ejected = s.State == meta.Ejected
	v.readErrors = nil
	v.clean = !m.Unclean() && m.BadPages() == 0
	v.rebooted = !v.clean && s.Boot != boot
	v.facts.Ready = true
	v.facts.Failed = s.State == meta.Failed || s.State == meta.Ejected || m.ReadOnly()
	v.wake()
	v.consider()
	if first {
		v.wg.Go(v.background)
		v.wg.Go(v.watchLeg)
	}
	if v.facts.Failed {
		v.tellFailed(false)
	}
	return nil
}

// Detach takes a dead leg's objects away for good. What hangs in them is waited for until ctx ends.
func (v *Volume) Detach(ctx context.Context) error {
	v.mu.Lock()
	if !v.facts.Failed {
		v.mu.Unlock()
		return errors.New("the leg works")
	}
	v.facts.Ready = false
	old := v.parts.Load()
	v.mu.Unlock()
	if old == nil {
		return nil
	}
	return old.close(ctx)
}

// close waits for what hangs in a leg until ctx ends.
func (leg *parts) close(ctx context.Context) error {
	closed := make(chan error, 1)
	go func() { closed <- errors.Join(unlessClosed(leg.data.Close()), unlessClosed(leg.meta.Close())) }()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("a request still hangs in the disk: %w", ctx.Err())
	}
}

// unlessClosed: being closed already is no error of a close.
func unlessClosed(err error) error {
	if errors.Is(err, block.ErrClosed) {
		return nil
	}
	return err
}

// NoLeg says that this node has no leg of the volume that it could use, and why is told elsewhere.
func (v *Volume) NoLeg() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.facts.Failed = true
	v.wake()
	v.tellFailed(false)
}

func (v *Volume) tellFailed(inStep bool) {
	if v.env.LegFailed != nil {
		v.env.LegFailed(inStep)
	}
}

// Size is the volume's size in bytes.
func (v *Volume) Size() int64 { return v.size }

// wake tells everybody that a fact changed. The caller holds mu.
func (v *Volume) wake() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// live says that the grant's deadline has not passed.
func (v *Volume) live() bool {
	d := v.deadline.Load()
	return d == noDeadline || v.env.Clock() < d
}

// noDeadline stands for a solo grant; 0 is "no right".
const noDeadline = -1

// Live is the check before a batch of replies: one clock read.
func (v *Volume) Live() bool { return v.live() }

// Term names the present right to answer: a read that began in another term is done again.
func (v *Volume) Term() uint64 { return v.term.Load() }

// Grant obeys a grant. It only changes facts: when it returns, nothing more is issued under the old one.
func (v *Volume) Grant(r Right, deadline int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if deadline == 0 {
		if r.Mode == control.Solo {
			deadline = noDeadline
		}
	}
	if r != v.right || !v.live() {
		v.term.Add(1)
	}
	v.deadline.Store(deadline)
	if r == v.right {
		if v.waiters > 0 {
			v.wake()
		}
		return
	}
	old := v.right
	v.right = r
	if !sameStage(r, old) || r.Mode == control.Paired && r.Legs != old.Legs {
		v.pledged = false
	}
	if !sameStage(r, old) || r.Owner != old.Owner {
		v.endDrain()
	}
	f := &v.facts
	f.Mode, f.Owner = r.Mode, r.Owner == v.Self
	f.Self, f.Peer = r.Legs.Has(v.Self), r.Legs.Has(v.Self^1)
	if r.Session != old.Session {
		v.detachLane()
	}
	if f.Role != stage.NoCopy && !copies(r, old) {
		v.endCopy()
	}
	if f.Peer || !f.Self {
		f.Excluded = false
	}
	if !f.Self {
		f.Sound = false
	}
	if r.Legs != old.Legs && f.Mode == control.Paired && !(f.Self && f.Peer) {
		f.InStep = false // a leg was taken out (R23)
	}
	v.wake()
	v.consider()
}

// copies says that a copy goes on under the new grant: only while mode and session stay.
func copies(r, old Right) bool {
	return r.Session == old.Session && r.Mode == old.Mode && r.Legs == old.Legs
}

// sameStage says that the membership is where it was: a grant that moves only an owner or the legs may come while the
// report of a finished copy is on its way, and must not release what is held since its barrier (protocol.md R14).
func sameStage(r, old Right) bool {
	return r.Mode == old.Mode && r.Session == old.Session && r.Epoch == old.Epoch && r.Prepared == old.Prepared
}

// detachLane forgets the lane: nothing is known to be equal any more. The caller holds mu.
func (v *Volume) detachLane() {
	v.lane = nil
	v.endLane()
	v.facts.InStep, v.facts.Linked = false, false
	v.endCopy()
}

// endCopy gives a copy up or finishes its hold. The caller holds mu.
func (v *Volume) endCopy() {
	if v.copying != nil {
		v.copying.cancel()
		v.copying = nil
	}
	if v.sink != nil {
		v.sink.cancel()
		v.sink = nil
	}
	if v.facts.Role == stage.Source && v.parts.Load() != nil && v.facts.Self && !v.facts.Peer {
		v.unsyncedToDirty()
	}
	v.facts.Role, v.facts.Phase = stage.NoCopy, stage.Exchange
}

// unsyncedToDirty: what the other leg may have lost again counts as missing there (O5, O6).
func (v *Volume) unsyncedToDirty() {
	for at := int64(0); ; {
		from, n := v.unsynced.Next(at, v.unsynced.Blocks())
		if n == 0 {
			return
		}
		v.md().Dirty().Set(from, n)
		at = from + n
	}
}

// LaneUp tells the volume the lane of its session. Nothing is equal before the handshake says so.
func (v *Volume) LaneUp(l *link.Lane, handle uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.detachLane()
	v.lane, v.handle = l, handle
	v.heard.ticks = -1
	v.laneCtx, v.endLane = context.WithCancel(v.ctx)
	v.wake()
}

// LaneDown is the end of that lane. void says that no finished copy of this session was reported, nor will be before
// another one: then a source that had finished its part goes on alone. After a report only the grant decides.
func (v *Volume) LaneDown(l *link.Lane, void bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.lane != l {
		return
	}
	v.detachLane()
	if void {
		v.pledged = false
	}
	v.wake()
	v.consider()
}

// Linked says that both nodes agreed on lane l what their legs are to each other.
func (v *Volume) Linked(l *link.Lane) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.lane == l {
		v.facts.Linked = true
		v.wake()
	}
}

// Busy says that nothing about the legs needs to be agreed: they are equal, or a copy is under way.
func (v *Volume) Busy() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.facts.InStep || v.facts.Role != stage.NoCopy
}

// InStep says that the legs are equal on this lane except for writes that their owner sends again.
func (v *Volume) InStep(l *link.Lane) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.lane != l || v.facts.Failed {
		return
	}
	v.endCopy()
	v.facts.InStep, v.facts.Sound = true, true
	v.clean, v.rebooted = true, false
	v.wake()
}

// consider starts what the facts ask for in the background. The caller holds mu.
func (v *Volume) consider() {
	f := v.facts
	alone := f.Self && !f.Peer && (f.Mode == control.Solo || f.Mode == control.Paired)
	// A copy may have begun before the exclusion was durable; its source waits for it. After the hold began only
	// the next grant decides.
	open := f.Role == stage.NoCopy || f.Role == stage.Source && f.Phase == stage.Exchange
	if alone && open && !v.pledged && f.Ready && !f.Failed && !f.Excluded && !v.excluding && !v.closed {
		v.excluding = true
		v.wg.Add(1)
		go v.exclude(v.right)
	}
}

// exclude makes the exclusion of the other leg durable (O5): the open flag, a generation of our own, and in the
// dirty map everything the other leg may lack. Only then may a write be acknowledged by this leg alone.
func (v *Volume) exclude(r Right) {
	defer v.wg.Done()
	err := v.recordExclusion(r)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.excluding = false
	switch {
	case v.right != r:
		v.consider()
	case err != nil:
		v.env.Log.Error("exclusion of the other leg", "volume", v.ID, "error", err)
	default:
		v.facts.Excluded, v.facts.Sound = true, true
		v.wake()
	}
}

func (v *Volume) recordExclusion(r Right) error {
	v.recording.Lock()
	defer v.recording.Unlock()
	s := v.md().Super()
	v.mu.Lock()
	doubtful := r.Mode == control.Paired && v.rebooted && !v.facts.Sound && s.Legs != uint8(r.Legs)
	v.mu.Unlock()
	if s.State != meta.UpToDate || doubtful {
		v.fault("REPL-2002", "The only leg that may serve this volume is not up to date",
			fmt.Sprintf("Its state is %s; the grant names it as the only one with every write.", StateName(s.State)),
			"Bring the other node back; its leg may be the source.")
		return errors.New("leg is not up to date")
	}
	v.mu.Lock()
	if v.right != r {
		v.mu.Unlock()
		return errCopyOver // a newer grant; exclude looks again
	}
	dirty := v.md().Dirty()
	for q := range v.active {
		dirty.Set(q.first(), q.blocks())
	}
	v.unsyncedToDirty()
	v.unsynced.Clear(0, v.unsynced.Blocks())
	v.suspectToDirty()
	v.hotToDirty()
	boot := v.bootToRecord()
	v.mu.Unlock()
	err := v.change(func(s *meta.Superblock) {
		stampGrant(s, r, boot)
		s.Flags |= meta.FlagOpen
		s.ResyncFlags &^= meta.ResyncUnconfirmed // whatever it was the source of, it stands alone now
		if s.Base.IsZero() {
			s.Base = s.Current
			s.History = push(s.History, s.Current)
			s.Current = meta.Generation{Epoch: r.Epoch, Nonce: nonce()}
		}
	})
	if err == nil {
		err = v.md().StoreDirty()
	}
	if err == nil {
		err = v.md().Reconciled() // the map has it now
	}
	if err != nil {
		return v.legError("record of the exclusion", err)
	}
	return nil
}

// hotToDirty: what was hot at a crash may be missing at the other leg, or be there and missing here: this leg's version
// stands now.
func (v *Volume) hotToDirty() {
	hot, known := v.md().Hot()
	dirty := v.md().Dirty()
	if !known {
		dirty.Set(0, dirty.Blocks())
	}
	for _, e := range hot {
		from := e * meta.BlocksPerExtent
		dirty.Set(from, min(meta.BlocksPerExtent, dirty.Blocks()-from))
	}
}

func (v *Volume) suspectToDirty() {
	for at := int64(0); ; {
		from, n := v.suspect.Next(at, v.suspect.Blocks())
		if n == 0 {
			break
		}
		v.md().Dirty().Set(from, n)
		at = from + n
	}
	v.suspect.Clear(0, v.suspect.Blocks())
}

// change is meta.Change for everything but a failure: a leg that failed stays failed, whatever else was on its way.
func (v *Volume) change(f func(*meta.Superblock)) error {
	return v.md().Change(func(s *meta.Superblock) {
		was := s.State
		f(s)
		if was == meta.Failed || was == meta.Ejected {
			s.State = was
		}
	})
}

// bootToRecord is this boot for a leg whose divergence is known; an unclean leg keeps the boot that made it so. The
// caller holds mu.
func (v *Volume) bootToRecord() (boot meta.ID) {
	if v.clean {
		return v.boot
	}
	return boot
}

// stampGrant records the last grant obeyed, and the boot if there is one to record.
func stampGrant(s *meta.Superblock, r Right, boot meta.ID) {
	s.GrantEpoch, s.Legs, s.Owner, s.LegsVersion = r.Epoch, uint8(r.Legs), uint8(r.Owner), uint64(r.Version)
	if !boot.IsZero() {
		s.Boot = boot
	}
}

func push(history []meta.Generation, g meta.Generation) []meta.Generation {
	if g.IsZero() {
		return history
	}
	out := append([]meta.Generation{g}, history...)
	return out[:min(len(out), meta.HistoryMax)]
}

func nonce() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:]) | 1
}

// legError makes a write, sync or read error of this leg final: nothing is answered from it any more, and
// nothing is retried into success (replication.md 9.5). Requests are held: R23 may take the leg out of Legs.
func (v *Volume) legError(what string, err error) error {
	v.mu.Lock()
	closed := errors.Is(err, block.ErrClosed) || errors.Is(err, meta.ErrClosed) // by this daemon, cleanly: it says nothing of the disk
	first := !v.facts.Failed && !closed
	if first {
		inStep := v.facts.InStep || v.facts.Role == stage.Sink
		v.facts.Failed = true
		v.facts.InStep = false
		v.wake()
		v.wg.Add(1)
		go v.recordFailure(what, err, inStep)
	}
	v.mu.Unlock()
	return fmt.Errorf("%s of leg %s: %w", what, v.ID, err)
}

func (v *Volume) recordFailure(what string, cause error, inStep bool) {
	defer v.wg.Done()
	state := meta.Failed
	if errors.Is(cause, errEjected) {
		state = meta.Ejected
		v.fault("REPL-2023", "A leg was taken out because its disk is too slow", cause.Error(),
			"The other node's leg serves the volume alone. Look at the drive, its cable and its controller; then: duet volume readmit NAME.")
	} else {
		v.fault("REPL-2021", "A disk failed under a volume's leg", what+": "+cause.Error(),
			"The other node's leg serves the volume alone, if it counts. Replace the drive and switch this node off and on, or, if only the error has passed: duet volume readmit NAME.")
	}
	v.mu.Lock()
	v.ejected = state == meta.Ejected
	v.mu.Unlock()
	v.tellFailed(inStep)
	err := v.md().Change(func(s *meta.Superblock) {
		s.State = state
		s.ReasonText = what + ": " + cause.Error()
	})
	if err != nil {
		v.env.Log.Error("failed leg not recorded", "volume", v.ID, "error", err)
	}
}

func (v *Volume) fault(code, what, why, next string) {
	v.env.Log.Error("fault", "code", code, "volume", v.ID, "what", what, "why", why)
	if v.env.Fault != nil {
		v.env.Fault(control.Fault{Code: code, What: what, Why: why, Next: next, Volume: v.ID.String()})
	}
}

// StateName is the word of VolumeStatus.LegState.
func StateName(s meta.State) string {
	switch s {
	case meta.New:
		return "new"
	case meta.UpToDate:
		return "uptodate"
	case meta.Inconsistent:
		return "inconsistent"
	case meta.Outdated:
		return "outdated"
	case meta.Failed:
		return "failed"
	case meta.Ejected:
		return "ejected"
	}
	return "missing"
}
