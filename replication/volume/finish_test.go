package volume

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"duet/replication/block"
	"duet/replication/block/crashdev"
	"duet/replication/control"
	"duet/replication/handshake"
	"duet/replication/link"
	"duet/replication/meta"
	"duet/replication/volume/slow"
	"duet/replication/volume/stage"
)

const testBytes = 2 * meta.ExtentBytes

// newLeg is an attached volume of node a with a leg in memory.
func newLeg(t *testing.T, state meta.State) (v *Volume, md *crashdev.Device) {
	t.Helper()
	v, m := newLegIn(t, state)
	return v, m.meta
}

func newLegIn(t *testing.T, state meta.State) (v *Volume, on medium) {
	t.Helper()
	id, md := meta.ID{1}, crashdev.New(meta.SizeFor(testBytes))
	err := meta.Format(md, meta.Superblock{
		Site: meta.ID{2}, Volume: id, VolumeBytes: testBytes, State: state, Current: meta.Generation{Epoch: 1, Nonce: 1}, Flags: meta.FlagOpen,
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := meta.Open(md)
	if err != nil {
		t.Fatal(err)
	}
	v = New(id, "disk", testBytes, 0, Env{Log: slog.New(slog.DiscardHandler)})
	data := crashdev.New(testBytes)
	leg := Leg{Data: block.NewWatch(data), Meta: m, Side: block.NewWatch(crashdev.New(block.Unit))}
	if err := v.Attach(leg, meta.ID{3}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v, medium{data, md}
}

func (v *Volume) awaitStage(t *testing.T, want stage.Stage) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		v.mu.Lock()
		is, changed := stage.Of(v.facts), v.changed
		v.mu.Unlock()
		if is == want {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("stage %s, never %s", is, want)
		}
	}
}

// finishedSource is a solo source that has recorded the end of its copy on lane l.
func finishedSource(t *testing.T, l *link.Lane) (*Volume, Right) {
	t.Helper()
	v, _ := newLeg(t, meta.UpToDate)
	r := Right{Mode: control.Solo, Epoch: 2, Session: 7, Legs: 1}
	v.Grant(r, 0)
	v.awaitStage(t, stage.Alone)
	v.LaneUp(l, 1)
	s, err := v.BeginSource(l, handshake.ByMap, true)
	if err != nil {
		t.Fatal(err)
	}
	s.setPhase(stage.Holding)
	if err := v.FinishSource(l, Result{Generation: v.Generation(), Root: Leaf{1}, Epoch: 2}); err != nil {
		t.Fatal(err)
	}
	v.awaitStage(t, stage.Preparing)
	return v, r
}

// Proves: protocol.md R17. The lane goes after this volume recorded the end of its copy, and before the copy of all
// volumes was reported: nobody was told, so this leg goes on alone, under a generation of its own.
func TestFinishedCopyThatWasNotReported(t *testing.T) {
	var l link.Lane
	v, _ := finishedSource(t, &l)
	before := v.Generation()
	v.LaneDown(&l, true)
	v.awaitStage(t, stage.Alone)
	if v.Generation() == before {
		t.Error("alone under the generation that the other leg has")
	}
}

// Proves: protocol.md R14. A reported copy may be committed at any moment: nothing is acknowledged alone, whatever
// happens to the lane or to owners, until the grant says that it is committed or void.
func TestReportedCopyHoldsUntilTheGrant(t *testing.T) {
	var l link.Lane
	v, r := finishedSource(t, &l)
	v.LaneDown(&l, false)
	r.Owner = 1 // R8 moves an owner while the report is on its way
	v.Grant(r, 0)
	v.mu.Lock()
	excluding, is := v.excluding, stage.Of(v.facts)
	v.mu.Unlock()
	if excluding || is != stage.Held {
		t.Fatalf("stage %s, excluding %v", is, excluding)
	}
	r.Session, r.Owner = 0, 0
	v.Grant(r, 0)
	v.awaitStage(t, stage.Alone)
}

// Proves: replication.md section 7. A frame takes its place in the overlap lock under the grant that admitted it:
// otherwise a write of the old owner could land on top of what this node acknowledged alone after a takeover.
func TestFrameIsAdmittedAndLockedAtOnce(t *testing.T) {
	v, _ := newLeg(t, meta.UpToDate)
	v.Grant(Right{Mode: control.Paired, Epoch: 2, Session: 7, Legs: 3, Owner: 1}, Boottime()+int64(time.Hour))
	var l link.Lane
	v.LaneUp(&l, 1)
	v.InStep(&l)
	v.leaves.set(0, Leaf{})
	v.locks.mu.Lock() // the frame gets as far as the lock
	done := make(chan error, 1)
	f := &link.Frame{Type: link.Write, Request: 1, Length: Block, Payload: block.Get(Block)}
	go func() { done <- v.Frame(&l, f) }()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !v.leaves.isStale(0) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the frame was not taken")
		}
	}
	free := v.mu.TryLock()
	if free {
		v.mu.Unlock()
	}
	v.locks.mu.Unlock()
	if free {
		t.Error("a grant could come between the admission of a write and its lock")
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A leg that failed stays failed, whatever is recorded at the same moment.
func TestFailedStaysFailed(t *testing.T) {
	var l link.Lane
	v, _ := newLeg(t, meta.UpToDate)
	v.Grant(Right{Mode: control.Solo, Epoch: 2, Session: 7, Legs: 1}, 0)
	v.awaitStage(t, stage.Alone)
	v.LaneUp(&l, 1)
	s, err := v.BeginSource(&l, handshake.ByMap, true)
	if err != nil {
		t.Fatal(err)
	}
	s.setPhase(stage.Holding)
	_ = v.legError("read", errors.New("medium error")) // the point is what it records
	if err := v.FinishSource(&l, Result{Generation: v.Generation(), Root: Leaf{1}, Epoch: 2}); err == nil {
		t.Error("a failed leg took part in a finished copy")
	}
	v.Quiesce(t.Context())
	v.Close()
	if s := v.md().Super(); s.State != meta.Failed {
		t.Errorf("recorded as %s", s.State)
	}
}

// Proves: replication.md O6. The end of a copy says that the target has synced everything: no block stays marked on
// disk, or a planned restart would compare the whole volume.
func TestNothingStaysMarkedAfterTheEnd(t *testing.T) {
	var l link.Lane
	v, md := newLeg(t, meta.UpToDate)
	v.Grant(Right{Mode: control.Solo, Epoch: 2, Session: 7, Legs: 1}, 0)
	v.awaitStage(t, stage.Alone)
	v.LaneUp(&l, 1)
	s, err := v.BeginSource(&l, handshake.ByMap, true)
	if err != nil {
		t.Fatal(err)
	}
	v.md().Dirty().Set(5, 3)
	v.md().Acked(5, 3)
	s.setPhase(stage.Holding)
	if err := v.FinishSource(&l, Result{Generation: v.Generation(), Root: Leaf{1}, Epoch: 2}); err != nil {
		t.Fatal(err)
	}
	m, err := meta.Open(md.CutPick(func(crashdev.Pending) bool { return false }))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if n := m.Dirty().Count(); n != 0 {
		t.Errorf("%d blocks are marked on disk", n)
	}
}

// A leg that was taken out as slow is a failed one for every later daemon, until it is made anew.
func TestAnEjectedLegStaysOut(t *testing.T) {
	for state, out := range map[meta.State]bool{meta.Ejected: true, meta.Failed: true, meta.UpToDate: false} {
		v, _ := newLeg(t, state)
		word := v.Status().LegState
		if v.facts.Failed != out || word != StateName(state) {
			t.Errorf("%s: failed %v, shown as %s", state, v.facts.Failed, word)
		}
		if l, ok := v.Record(); !ok || (l.State == handshake.Failed) != out {
			t.Errorf("%s: told as %v", state, l.State)
		}
	}
}

// What the other node said counts for its lane, and grows old with each look; a leg is judged only while both legs are in step.
func TestLook(t *testing.T) {
	v, _ := newLeg(t, meta.UpToDate)
	v.LaneUp(nil, 1)
	look := func() slow.Look { return v.look(v.parts.Load()) }
	if k := look(); k.HeardFor >= 0 {
		t.Errorf("nothing was heard on this lane: %+v", k)
	}
	v.takeStat(nil, &link.Frame{Offset: 7000, Length: 3})
	for n := 1; n < 4; n++ {
		if k := look(); k.HeardFor != n || k.Other != (slow.Stat{OldestTicks: 3, P50MicroS: 7000}) {
			t.Errorf("look %d: %+v", n, k)
		}
	}
	both := stage.Facts{Ready: true, InStep: true, Self: true, Peer: true}
	for name, spoil := range map[string]func(*stage.Facts){
		"": func(*stage.Facts) {}, "no leg": func(f *stage.Facts) { f.Ready = false }, "dead": func(f *stage.Facts) { f.Failed = true },
		"not in step": func(f *stage.Facts) { f.InStep = false }, "alone": func(f *stage.Facts) { f.Peer = false },
		"out": func(f *stage.Facts) { f.Self = false },
	} {
		v.mu.Lock()
		v.facts = both
		spoil(&v.facts)
		v.mu.Unlock()
		if got := look().InStep; got != (name == "") {
			t.Errorf("%q: judged %v", name, got)
		}
	}
}

// A node that is still opening its leg is told how quick the other one's is; that is no reason to lose the lane.
func TestAStatBeforeTheLegIsThere(t *testing.T) {
	v := New(meta.ID{1}, "v", testBytes, 0, Env{Log: slog.New(slog.DiscardHandler)})
	v.LaneUp(nil, 1)
	if err := v.Frame(nil, &link.Frame{Type: link.Stat, Offset: 7, Length: 3}); err != nil || v.heard.stat.OldestTicks != 3 {
		t.Errorf("%v, heard %+v", err, v.heard)
	}
}

// What comes too late for a leg that is closed, and so cannot be written, says nothing of its disk: it does not fail.
func TestAClosedLegHasNotFailed(t *testing.T) {
	v, _ := newLeg(t, meta.UpToDate)
	if err := v.md().CloseLog(); err != nil {
		t.Fatal(err)
	}
	p := block.Alloc(Block)
	if err := v.parts.Load().put(p, sumsOf(p), 0, Block, block.Durable); !errors.Is(err, meta.ErrClosed) {
		t.Fatal(err)
	} else if err = v.legError("repair", err); !errors.Is(err, meta.ErrClosed) {
		t.Error(err)
	}
	if s := v.Status(); s.LegState != "uptodate" {
		t.Errorf("the leg is %s", s.LegState)
	}
}

// awaitQueue waits for a number of claims.
func (v *Volume) awaitQueue(t *testing.T, want int) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		v.locks.mu.Lock()
		n := len(v.locks.queue)
		v.locks.mu.Unlock()
		if n == want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d claims, never %d", n, want)
		}
	}
}

// Proves: protocol.md R22. Who waited behind a drain for a place, as a repair does, gets it when the volume is drained, and sees that.
func TestWhoComesAfterADrainSeesIt(t *testing.T) {
	v, _ := newLeg(t, meta.UpToDate)
	v.Grant(Right{Mode: control.Solo, Epoch: 2, Legs: 1}, 0)
	v.awaitStage(t, stage.Alone)
	before := v.locks.enqueue(5, 1, true)
	v.BeginDrain()
	drained := make(chan bool, 1)
	go func() { drained <- v.Drain(t.Context()) }()
	v.awaitQueue(t, 2)
	after := v.locks.enqueue(5, 1, true)
	v.mu.Lock() // so that the drain has its claim, and has not come to its end
	v.locks.release(before)
	select { // nothing tells that it has not happened
	case <-after.granted:
		t.Error("the claim of the drain is over before its end")
	case <-time.After(20 * time.Millisecond):
	}
	v.mu.Unlock()
	<-after.granted
	v.mu.Lock()
	is := v.facts.Drain
	v.mu.Unlock()
	if is != stage.Drained {
		t.Errorf("the drain is %d when its claim is over", is)
	}
	if err := v.heal(t.Context(), badBlock{n: 6}); err != nil {
		t.Errorf("a repair after the drain: %v", err)
	}
	v.locks.release(after)
	if !<-drained {
		t.Error("not drained")
	}
}

// What waits behind a request that will never give its place back does not keep the daemon from ending.
func TestCloseWaitsForNoPlace(t *testing.T) {
	v, _ := newLeg(t, meta.UpToDate)
	v.Grant(Right{Mode: control.Paired, Epoch: 2, Session: 7, Legs: 3, Owner: 1}, Boottime()+int64(time.Hour))
	var l link.Lane
	v.LaneUp(&l, 1)
	v.InStep(&l)
	v.locks.enqueue(0, 1, true) // of a request that is gone
	for _, f := range []*link.Frame{
		{Type: link.LegRead, Request: 1, Length: Block},
		{Type: link.Compare, Request: 2, Length: Block, Payload: block.Get(digestBytes)},
		{Type: link.Write, Request: 3, Length: Block, Payload: block.Get(Block), Sums: []uint32{meta.SumOfZero}},
	} {
		if err := v.Frame(&l, f); err != nil {
			t.Fatalf("%d: %v", f.Type, err)
		}
	}
	closed := make(chan error, 1)
	go func() { closed <- v.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("never closed")
	}
}

// A disk that hangs does not keep the daemon from ending, and that it was ended says nothing of the disk.
func TestCloseOverADiskThatHangs(t *testing.T) {
	v, m := newLegIn(t, meta.UpToDate)
	v.Grant(Right{Mode: control.Paired, Epoch: 2, Session: 7, Legs: 3, Owner: 1}, Boottime()+int64(time.Hour))
	var l link.Lane
	v.LaneUp(&l, 1)
	v.InStep(&l)
	entered, letGo := make(chan struct{}), make(chan struct{})
	m.data.Hook(func(op crashdev.Op) error {
		if op.Kind == crashdev.Write {
			close(entered)
			<-letGo
		}
		return nil
	})
	t.Cleanup(func() { close(letGo) })
	f := &link.Frame{Type: link.Write, Flags: link.FUA, Request: 1, Length: Block, Payload: block.Get(Block), Sums: []uint32{meta.SumOfZero}}
	if err := v.Frame(&l, f); err != nil {
		t.Fatal(err)
	}
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- v.Close() }()
	select {
	case err := <-closed:
		if err == nil {
			t.Error("closed, although a write is under way")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("never closed")
	}
	after, err := meta.Open(m.meta.CutPick(every))
	if err != nil {
		t.Fatal(err)
	}
	if s := after.Super(); s.State != meta.UpToDate {
		t.Errorf("the leg is %s: %s", s.State, s.ReasonText)
	}
}
