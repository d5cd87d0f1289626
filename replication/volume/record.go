package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"duet/replication/block"
	"duet/replication/control"
	"duet/replication/handshake"
	"duet/replication/link"
	"duet/replication/meta"
	"duet/replication/volume/stage"
)

// Record is what this node says about its leg in the handshake; ok is false while the leg is being made or opened.
func (v *Volume) Record() (l handshake.Leg, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.facts.Ready {
		l = handshake.Leg{Volume: handshake.ID(v.ID), Node: uint8(v.Self), State: handshake.Missing, Right: v.right.handshake()}
		return l, v.facts.Failed
	}
	s := v.md().Super()
	l = handshake.Leg{
		Site: handshake.ID(s.Site), Volume: handshake.ID(s.Volume), Leg: handshake.ID(s.Leg),
		Node: uint8(v.Self), FormatMajor: s.FormatMajor, BlockBytes: s.BlockBytes, VolumeBytes: s.VolumeBytes,
		State: handshake.State(s.State), Zeroed: s.Flags&meta.FlagZeroed != 0,
		Current: handshake.Generation(s.Current), Base: handshake.Generation(s.Base),
		SyncSource: handshake.Generation(s.SyncSource),
		Clean:      v.clean, HotKnown: !v.clean && v.hotKnown(), Rebooted: v.rebooted,
		Unconfirmed:    s.ResyncFlags&meta.ResyncUnconfirmed != 0,
		DirtyBlocks:    uint64(v.md().Dirty().Count()),
		InFlightBlocks: v.inFlight(),
		SuspectBlocks:  uint64(v.suspect.Count()),
		Right:          v.right.handshake(),
	}
	if v.facts.Failed {
		l.State = handshake.Failed
	}
	for _, g := range s.History {
		l.History = append(l.History, handshake.Generation(g))
	}
	return l, true
}

// hotKnown: map pages that could not be trusted make the map useless, as a lost log does. The caller holds mu.
func (v *Volume) hotKnown() bool {
	_, known := v.md().Hot()
	return known && v.md().BadPages() == 0
}

func (v *Volume) inFlight() uint64 {
	n := int64(0)
	for q := range v.active {
		n += q.blocks()
	}
	return uint64(n)
}

// handshake is the right as both nodes compare it.
func (r Right) handshake() handshake.Right {
	e := r.Epoch
	if r.Prepared != 0 {
		e = r.Prepared
	}
	return handshake.Right{Epoch: e, Session: r.Session, Legs: uint8(r.Legs), Owner: uint8(r.Owner)}
}

// Arm records that the leg is in use (O4) and the grant it obeys, before it can be written on a lane.
func (v *Volume) Arm() error {
	v.mu.Lock()
	ready, failed, r, boot := v.facts.Ready, v.facts.Failed, v.right, v.bootToRecord()
	v.mu.Unlock()
	if !ready || failed {
		return errors.New("no usable leg")
	}
	s := v.md().Super()
	if s.Flags&meta.FlagOpen != 0 && s.GrantEpoch == r.Epoch && s.Legs == uint8(r.Legs) && s.Owner == uint8(r.Owner) {
		return nil
	}
	err := v.change(func(s *meta.Superblock) {
		s.Flags |= meta.FlagOpen
		stampGrant(s, r, boot)
	})
	if err != nil {
		return v.legError("open flag", err)
	}
	return nil
}

// Result is the end of a copy of one volume.
type Result struct {
	Volume     string
	Generation meta.Generation
	Root       Leaf // zero: not proved, a reconcile inside a session
	Epoch      uint64
}

// NewGeneration is for a volume that never had one (row H4).
func NewGeneration(epoch uint64) meta.Generation {
	return meta.Generation{Epoch: epoch, Nonce: nonce()}
}

// Generation is the leg's current one.
func (v *Volume) Generation() meta.Generation { return v.md().Super().Current }

// FinishSink makes a completed copy durable at its target: up to date, with the source's generation. A proved
// result is compared once more with what this leg's own reading said.
func (v *Volume) FinishSink(l *link.Lane, r Result) error {
	if r.Root != (Leaf{}) && (v.leaves.staleCount() != 0 || r.Root != v.leaves.root(v.ID, v.size)) {
		return fmt.Errorf("volume %s: the root changed since it was proved", v.ID)
	}
	return v.finish(l, stage.Sink, r, func(s *meta.Superblock) {
		if s.Current != r.Generation {
			s.History = push(s.History, s.Current)
		}
		s.SyncSource = meta.Generation{}
	})
}

// FinishSource records the same at the source; its own base goes into history.
func (v *Volume) FinishSource(l *link.Lane, r Result) error {
	return v.finish(l, stage.Source, r, func(s *meta.Superblock) {
		if !s.Base.IsZero() && !slices.Contains(s.History, s.Base) {
			s.History = push(s.History, s.Base)
		}
	})
}

// finish records the end of a copy, unless the copy is over: then this leg may already be on its way to another
// generation, which must not be undone. The recording mutex keeps the two apart. The superblock goes first and
// the map after it: a crash between leaves bits too many, never too few.
func (v *Volume) finish(l *link.Lane, role stage.Role, r Result, change func(*meta.Superblock)) error {
	v.recording.Lock()
	defer v.recording.Unlock()
	v.mu.Lock()
	over := v.lane != l || v.facts.Failed || v.facts.Role != role || role == stage.Source && v.facts.Phase != stage.Holding
	if !over && role == stage.Sink {
		v.md().Dirty().Clear(0, v.size/Block) // the source's version stands now
	}
	v.mu.Unlock()
	if over {
		return errCopyOver
	}
	if err := v.disk().Sync(); err != nil {
		return v.legError("sync", err)
	}
	// The target has synced all that it acknowledged: the proof's barrier and FinishSink's own sync came after it.
	v.md().Covered(v.md().Mark())
	err := v.change(func(s *meta.Superblock) {
		change(s)
		s.State = meta.UpToDate
		s.Current, s.Base = r.Generation, meta.Generation{}
		s.ResyncFlags &^= meta.ResyncUnconfirmed
		s.Boot = v.boot
		if r.Root != (Leaf{}) {
			s.ProofRoot = [16]byte(r.Root[:16])
			s.ProofEpoch = r.Epoch
			s.ProofTime = uint64(time.Now().Unix()) // for people only
		}
	})
	if err == nil {
		err = v.md().StoreDirty()
	}
	if err == nil {
		err = v.md().Reconciled()
	}
	if err != nil {
		return v.legError("end of the copy", err)
	}
	return v.finished(l, role)
}

// finished sets what is now known. The stage stays Preparing until the next grant, or becomes paired at once for
// a reconcile inside a session. If the lane went meanwhile, the source goes on alone under the generation that
// both legs have (row H6b); consider gives it its own again.
func (v *Volume) finished(l *link.Lane, role stage.Role) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.facts.Excluded = false
	v.wake()
	if v.lane != l || v.facts.Role != role {
		v.consider()
		return errCopyOver
	}
	v.clean, v.rebooted = true, false
	v.suspect.Clear(0, v.suspect.Blocks())
	v.unsynced.Clear(0, v.unsynced.Blocks())
	v.facts.InStep, v.facts.Sound = true, true
	v.facts.Phase = stage.Holding
	v.pledged = true
	if v.facts.Self && v.facts.Peer && (v.right.Mode == control.Paired || v.right.Mode == control.Prepared) {
		v.endCopy() // both legs counted all the time; else the next grant says what follows (R14, R24)
		v.pledged = false
	}
	return nil
}

// Quiesce refuses new requests and gives those in progress a moment to end, with the lane still up.
func (v *Volume) Quiesce(grace context.Context) {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	_ = v.until(grace, func() bool { return len(v.active) == 0 }) //nolint:errcheck // what is left is not clean
	v.mu.Lock()
	v.wake() // who waits leaves without an answer
	v.mu.Unlock()
}

// closeLimit is how long a disk that hangs keeps the daemon from ending.
const closeLimit = time.Second

// Close ends the volume after Quiesce and after the lane: a leg with nothing in flight and a known divergence is
// closed clean (O4).
func (v *Volume) Close() error {
	v.mu.Lock()
	v.closed = true
	v.endCopy()
	v.wake()
	v.mu.Unlock()
	v.stop()
	v.waitOrAbandon()
	v.mu.Lock()
	ready := v.parts.Load() != nil
	quiet := len(v.active) == 0 && v.clean && v.suspect.Count() == 0 && v.lane == nil && !v.facts.Failed
	v.mu.Unlock()
	if !ready {
		return nil
	}
	var err error
	if quiet {
		err = v.closeClean()
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	return errors.Join(err, v.parts.Load().close(ctx))
}

// waitOrAbandon waits for what goes on behind the requests, and not for a disk that hangs: after closeLimit the leg is given up, which
// fails nothing but what hangs, and is no failure of the leg (legError).
func (v *Volume) waitOrAbandon() {
	ended := make(chan struct{})
	go func() {
		v.wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return
	case <-time.After(closeLimit):
	}
	if leg := v.parts.Load(); leg != nil {
		cause := fmt.Errorf("the daemon stops: %w", block.ErrClosed)
		leg.data.Abandon(cause)
		leg.side.Abandon(cause)
	}
	<-ended
}

// closeClean needs the lane to be down: no request of the other node is in flight.
func (v *Volume) closeClean() error {
	v.mu.Lock()
	v.unsyncedToDirtyIfAlone()
	v.mu.Unlock()
	if err := v.md().CloseLog(); err != nil {
		return fmt.Errorf("clean close: %w", err)
	}
	return nil
}

// unsyncedToDirtyIfAlone: a target that lost power later brings back what it had not synced.
func (v *Volume) unsyncedToDirtyIfAlone() {
	if v.facts.Self && !v.facts.Peer {
		v.unsyncedToDirty()
	}
}

// Status is the leg and its engine for people and tests.
func (v *Volume) Status() control.VolumeStatus {
	v.mu.Lock()
	defer v.mu.Unlock()
	st := control.VolumeStatus{
		ID: v.ID.String(), Name: v.Name, SizeBytes: v.size,
		Stage:    v.stageWord(),
		LegState: "missing",
		HeldOps:  int(v.count.held.Load()),
		Reads:    v.count.reads.Load(), Writes: v.count.writes.Load(), Flushes: v.count.flushes.Load(),
		LastStallMS:    v.count.stallMS.Load(),
		RepairedBlocks: v.count.repaired.Load(),
		Scrub:          control.ScrubProgress{PeerRepaired: v.count.repairedPeer.Load(), Different: v.count.differed.Load()},
		Copy: control.CopyProgress{
			Running:     v.facts.Role != stage.NoCopy && v.facts.Phase != stage.Holding,
			DirtyBytes:  v.count.dirtyAtStart.Load(),
			ResyncBytes: v.count.resync.Load(),
			DigestBytes: v.count.digest.Load(),
		},
	}
	if !v.facts.Ready {
		return st
	}
	s := v.md().Super()
	st.LegState = StateName(s.State)
	st.DamagedBlocks = len(s.Damaged)
	switch {
	case v.ejected:
		st.LegState = StateName(meta.Ejected)
	case v.facts.Failed:
		st.LegState = StateName(meta.Failed)
	}
	st.Generation = fmt.Sprintf("%d:%016x", s.Current.Epoch, s.Current.Nonce)
	st.ProvenEpoch = s.ProofEpoch
	st.DirtyBytes = v.md().Dirty().Count() * Block
	st.Copy.RemainingBytes = st.DirtyBytes + max(v.count.uncompared.Load(), 0)
	return st
}

// Armed says that Arm has nothing to do.
func (v *Volume) Armed() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !stage.Ready(v.facts) {
		return true // a leg that is missing or dead is never written
	}
	s := v.md().Super()
	return s.Flags&meta.FlagOpen != 0 && s.GrantEpoch == v.right.Epoch && s.Legs == uint8(v.right.Legs) &&
		s.Owner == uint8(v.right.Owner)
}

// Found gives a volume that never had one its first generation, durable here before the other leg learns of it
// (row H4): a crash between leaves one new leg, which is brought up to date from this one (row H5).
func (v *Volume) Found(g meta.Generation) error {
	v.recording.Lock()
	defer v.recording.Unlock()
	err := v.change(func(s *meta.Superblock) {
		if s.State == meta.New {
			s.State, s.Current = meta.UpToDate, g
		}
	})
	if err != nil {
		return v.legError("first generation", err)
	}
	return nil
}

// PeerFailed is what the other node says about its leg.
func (v *Volume) PeerFailed() { v.peerFailed("its own report") }
