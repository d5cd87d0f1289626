package mirror

import (
	"context"
	"sync/atomic"
	"testing"

	"duet/replication/block"
	"duet/replication/block/crashdev"
	"duet/replication/control"
	"duet/replication/meta"
)

// durableDirty counts the blocks that the leg's map alone names if its node loses power now and nothing unsynced survives:
// what the activity log adds to it is left out.
func (d *drive) durableDirty(t *testing.T) int64 {
	t.Helper()
	id, err := parseID(testVolume)
	if err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	left := d.meta[id].CutPick(func(crashdev.Pending) bool { return false })
	d.mu.Unlock()
	m, err := meta.Open(left)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Change(func(s *meta.Superblock) { s.Flags &^= meta.FlagOpen }); err != nil { // no log is read then
		t.Fatal(err)
	}
	if m, err = meta.Open(left); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	return m.Dirty().Count()
}

// Proves: replication.md O5(c). When the other leg is excluded, the blocks of a write whose end is unknown are in the
// durable map before anything is served alone, although the write itself hangs in the disk and never looked again.
func TestWritesInFlightAreDirtyAtTheExclusion(t *testing.T) {
	p := newPair(t)
	var slow atomic.Bool
	gates := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	for n, h := range p.nodes {
		h.drive.wrap = func(d block.Device) block.Device { return &hanging{d, &slow, gates[n]} }
		h.start()
	}
	p.serve(1, 11)
	a, b := p.nodes[0], p.nodes[1]
	a.awaitStage("paired")
	b.awaitStage("paired")
	slow.Store(true)
	done := make(chan error, 1)
	go func() { done <- a.vol().WriteAt(context.Background(), fill(3*4096, 2), 8192, false) }()
	await(t, "the write in flight", func() bool { l, _ := a.vol().Record(); return l.InFlightBlocks == 3 })
	b.grant(control.Grant{Mode: control.Frozen, Epoch: 1, Members: 3})
	a.solo(2)
	a.awaitStage("alone")
	if n := a.vol().Status().DirtyBytes; n != 3*4096 {
		t.Errorf("%d bytes are marked, 12288 are in flight", n)
	}
	if n := a.drive.durableDirty(t); n != 3 {
		t.Errorf("%d blocks are marked durably, 3 are in flight", n)
	}
	select {
	case err := <-done:
		t.Fatalf("answered before its own leg had it: %v", err)
	default:
	}
	close(gates[1]) // b's copy of the write arrives late, a's hangs on until the copy waits for it
	a.grant(control.Grant{Mode: control.Solo, Epoch: 2, Session: 22, Members: 1, Volumes: owned(0, 1)})
	b.grant(control.Grant{Mode: control.Joining, Epoch: 2, Session: 22, Members: 1, Volumes: owned(0, 1)})
	if err := a.m.Copy(22); err != nil {
		t.Fatal(err)
	}
	a.awaitStage("catching")
	close(gates[0])
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if x, y := a.awaitCopyDone(22), b.awaitCopyDone(22); x != y {
		t.Fatal("digests differ")
	}
	p.sameLegs()
	if got := b.drive.contents()[8192]; got != 2 {
		t.Fatalf("the write is missing on the other leg: %d", got)
	}
}
