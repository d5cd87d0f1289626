package mirror

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"duet/replication/block"
	"duet/replication/block/crashdev"
	"duet/replication/control"
	"duet/replication/link"
)

// liar is a drive that says "written" and loses some of the writes.
type liar struct {
	block.Device
	lose func(off int64) bool
}

func (d *liar) WriteAt(p []byte, off int64, dur block.Durability) error {
	if d.lose(off) {
		return nil
	}
	return d.Device.WriteAt(p, off, dur)
}

func (p *pair) soloAndLag() (a, b *host) {
	p.t.Helper()
	p.serve(1, 11)
	a, b = p.nodes[0], p.nodes[1]
	a.awaitStage("paired")
	b.awaitStage("paired")
	b.crash()
	a.solo(2)
	a.write(0, 1, 1<<20)
	return a, b
}

// Proves: replication.md P4. A write that the target's drive lost is found by the proof and sent again.
func TestProofFindsALostWrite(t *testing.T) {
	p := startPair(t)
	a, b := p.soloAndLag()
	var lost atomic.Int64
	b.drive.wrap = func(d block.Device) block.Device {
		return &liar{d, func(int64) bool { return lost.Add(1) == 1 }}
	}
	b.start()
	p.rejoin(0, 2, 22)
	if lost.Load() < 2 {
		t.Fatal("nothing was lost: the test proves nothing")
	}
	said := false
	for _, e := range a.m.Standing() {
		said = said || e.Fault != nil && e.Fault.Code == "REPL-2005"
	}
	if !said {
		t.Error("the difference was not reported")
	}
	p.sameLegs()
}

// A drive that always loses a block never gets its leg back in.
func TestProofFailsForADriveThatLies(t *testing.T) {
	p := startPair(t)
	a, b := p.soloAndLag()
	b.drive.wrap = func(d block.Device) block.Device {
		return &liar{d, func(off int64) bool { return off == 0 }}
	}
	b.start()
	a.grant(control.Grant{Mode: control.Solo, Epoch: 2, Session: 22, Members: 1})
	b.grant(control.Grant{Mode: control.Joining, Epoch: 2, Session: 22, Members: 1})
	if err := a.m.Copy(22); err != nil {
		t.Fatal(err)
	}
	e := a.awaitEvent("copy failed", func(e control.Event) bool { return e.CopyFailed != nil || e.CopyDone != nil })
	if e.CopyDone != nil {
		t.Fatal("a leg that lost a write was proved")
	}
	if s := b.vol().Status(); s.LegState != "inconsistent" {
		t.Fatalf("%+v", s)
	}
	a.write(4096, 2, 4096) // the source goes on
}

func TestDeadlineHolds(t *testing.T) {
	p := newPair(t)
	var now atomic.Int64
	now.Store(1e9)
	p.clock = now.Load
	for _, h := range p.nodes {
		h.start()
	}
	right := control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3, Deadline: 5e9}
	for _, h := range p.nodes {
		h.grant(right)
	}
	a := p.nodes[0]
	a.awaitStage("paired")
	a.write(0, 1, 4096)
	now.Store(6e9)
	done := make(chan error, 2)
	go func() { done <- a.vol().WriteAt(context.Background(), fill(4096, 2), 0, false) }()
	go func() { done <- a.vol().ReadAt(context.Background(), fill(4096, 0), 8192) }()
	await(t, "two held requests", func() bool { return a.vol().Status().HeldOps == 2 })
	if !a.m.Status().Held {
		t.Error("status does not say held")
	}
	select {
	case err := <-done:
		t.Fatalf("answered without a right: %v", err)
	default:
	}
	right.Deadline = 9e9
	a.grant(right)
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// A write whose deadline passes while the disk works is not answered.
func TestDeadlineDuringAWrite(t *testing.T) {
	p := newPair(t)
	var now atomic.Int64
	now.Store(1e9)
	p.clock = now.Load
	gate := make(chan struct{})
	var slow atomic.Bool
	p.nodes[0].drive.wrap = func(d block.Device) block.Device { return &hanging{d, &slow, gate} }
	for _, h := range p.nodes {
		h.start()
	}
	right := control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3, Deadline: 5e9}
	for _, h := range p.nodes {
		h.grant(right)
	}
	a := p.nodes[0]
	a.awaitStage("paired")
	slow.Store(true)
	done := make(chan error, 1)
	go func() { done <- a.vol().WriteAt(context.Background(), fill(4096, 2), 0, false) }()
	await(t, "the write in flight", func() bool { l, _ := a.vol().Record(); return l.InFlightBlocks == 1 })
	now.Store(6e9)
	close(gate)
	// The write is done on both legs; only the right to say so is missing.
	await(t, "the write on the peer", func() bool { return p.nodes[1].drive.contents()[0] == 2 })
	select {
	case err := <-done:
		t.Fatalf("acknowledged after the deadline: %v", err)
	default:
	}
	right.Deadline = 9e9
	a.grant(right)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// hanging is a drive whose writes wait for a gate.
type hanging struct {
	block.Device
	on   *atomic.Bool
	gate chan struct{}
}

func (d *hanging) WriteAt(p []byte, off int64, dur block.Durability) error {
	if d.on.Load() {
		<-d.gate
	}
	return d.Device.WriteAt(p, off, dur)
}

// Proves: replication.md test 21. A grant is confirmed while a disk hangs; the late completion passes nothing by.
func TestGrantWhileTheDiskHangs(t *testing.T) {
	p := newPair(t)
	gate := make(chan struct{})
	var slow atomic.Bool
	p.nodes[0].drive.wrap = func(d block.Device) block.Device { return &hanging{d, &slow, gate} }
	for _, h := range p.nodes {
		h.start()
	}
	p.serve(1, 11)
	a, b := p.nodes[0], p.nodes[1]
	a.awaitStage("paired")
	b.awaitStage("paired")
	slow.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.vol().WriteAt(ctx, fill(4096, 2), 0, false) }()
	await(t, "the write on the peer", func() bool { return b.drive.contents()[0] == 2 })
	// The session is lost, b goes on alone and writes the same block; a returns as a target while its own old
	// write still hangs in its disk.
	a.grant(control.Grant{Mode: control.Frozen, Epoch: 1, Members: 3})
	b.grant(control.Grant{Mode: control.Solo, Epoch: 2, Members: 2, Volumes: owned(1, 2)})
	b.awaitStage("alone")
	b.write(0, 9, 4096)
	b.grant(control.Grant{Mode: control.Solo, Epoch: 2, Session: 22, Members: 2, Volumes: owned(1, 2)})
	a.grant(control.Grant{Mode: control.Joining, Epoch: 2, Session: 22, Members: 2, Volumes: owned(1, 2)})
	if err := b.m.Copy(22); err != nil {
		t.Fatal(err)
	}
	a.awaitStage("target")
	slow.Store(false)
	close(gate)
	cancel()
	<-done
	if x, y := a.awaitCopyDone(22), b.awaitCopyDone(22); x != y {
		t.Fatal("digests differ")
	}
	p.sameLegs()
	if got := a.drive.contents()[0]; got != 9 {
		t.Fatalf("the late write came through: %d", got)
	}
}

// Proves: protocol.md R17. A copy that was done but not committed is void: the source goes on alone under a new
// generation, and what it writes then reaches the other leg by the next copy.
func TestCopyDoneButNeverPaired(t *testing.T) {
	p := startPair(t)
	a, b := p.soloAndLag()
	b.start()
	for round := range uint64(3) {
		session := 22 + round
		a.grant(control.Grant{Mode: control.Solo, Epoch: 2, Session: session, Members: 1})
		b.grant(control.Grant{Mode: control.Joining, Epoch: 2, Session: session, Members: 1})
		if err := a.m.Copy(session); err != nil {
			t.Fatal(err)
		}
		a.awaitCopyDone(session)
		b.awaitCopyDone(session)
		p.sameLegs()
		before := a.vol().Generation()
		done := make(chan error, 1)
		go func() { done <- a.vol().WriteAt(context.Background(), fill(4096, byte(100+round)), 1<<20, false) }()
		await(t, "the held write", func() bool { return a.vol().Status().HeldOps == 1 })
		b.grant(control.Grant{Mode: control.Frozen, Epoch: 2, Members: 1})
		a.solo(2)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if a.vol().Generation() == before {
			t.Fatal("writes alone under the generation of the other leg")
		}
	}
	p.rejoin(0, 2, 90)
	p.sameLegs()
}

func TestOldGrantsAreRefused(t *testing.T) {
	p := startPair(t)
	p.serve(5, 11)
	a := p.nodes[0]
	g := control.Grant{BootID: a.boot, Sequence: 0, Mode: control.Solo, Epoch: 9}
	if err := a.m.Grant(g); err == nil || !strings.Contains(err.Error(), "older") {
		t.Errorf("older sequence: %v", err)
	}
	g.Sequence, g.BootID = 99, "another"
	if err := a.m.Grant(g); err == nil || !strings.Contains(err.Error(), "boot") {
		t.Errorf("another boot: %v", err)
	}
}

// A frame of a foreign epoch on a living lane is not applied and ends the lane.
func TestFrameOfAnotherEpochIsRefused(t *testing.T) {
	p := startPair(t)
	p.serve(5, 11)
	a, b := p.nodes[0], p.nodes[1]
	a.awaitStage("paired")
	b.awaitStage("paired")
	a.write(0, 1, 4096)
	lane := a.m.link.Lane()
	a.m.link.SetRight(link.Right{Session: 11, Epoch: 4}) // what a node with an older grant would stamp
	result := make(chan error, 1)
	f := &link.Frame{Type: link.Write, Volume: 1, Offset: 0, Length: 4096, Payload: fill(4096, 66)}
	lane.Send(f, func(_ uint32, err error) { result <- err })
	select {
	case err := <-result:
		if !errors.Is(err, link.ErrLost) {
			t.Fatalf("answered: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the lane did not end")
	}
	if got := b.drive.contents()[0]; got != 1 {
		t.Fatalf("applied: %d", got)
	}
}

func TestDiskErrorHoldsAndSays(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	a, b := p.nodes[0], p.nodes[1]
	a.awaitStage("paired")
	b.awaitStage("paired")
	id, err := parseID(testVolume)
	if err != nil {
		t.Fatal(err)
	}
	b.drive.data[id].Hook(func(crashdev.Op) error { return errors.New("medium error") })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.vol().WriteAt(ctx, fill(4096, 2), 0, false) }()
	b.awaitEvent("fault", func(e control.Event) bool { return e.Fault != nil && e.Fault.Code == "REPL-2021" })
	b.awaitStage("failed")
	await(t, "failed in the superblock", func() bool { return b.vol().Status().LegState == "failed" })
	select {
	case err := <-done:
		t.Fatalf("answered: %v", err)
	default:
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("a client that left got %v", err)
	}
}

// Proves: replication.md P2. What a flush covered survives on each leg by itself, when its drive loses all it may.
func TestFlushIsDurableOnBothLegs(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	a := p.nodes[0]
	a.awaitStage("paired")
	id, err := parseID(testVolume)
	if err != nil {
		t.Fatal(err)
	}
	for with := byte(1); with < 20; with++ {
		a.write(0, with, 4096)
		a.flush()
		for n, h := range p.nodes {
			h.drive.mu.Lock()
			left := h.drive.data[id].CutPick(func(crashdev.Pending) bool { return false })
			h.drive.mu.Unlock()
			if got := left.Contents()[0]; got != with {
				t.Fatalf("node %c holds %d after the flush of %d", 'a'+n, got, with)
			}
		}
	}
}
