package mirror

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"duet/replication/block"
	"duet/replication/block/crashdev"
	"duet/replication/control"
)

// drain asks a node to drain the volume and waits for the answer.
func (h *host) drain(volumes ...string) bool {
	h.t.Helper()
	result, err := h.m.Drain(volumes)
	if err != nil {
		h.t.Fatal(err)
	}
	select {
	case ids := <-result:
		return slices.Equal(ids, volumes)
	case <-time.After(patience):
		h.t.Fatal("never: an answer to the drain")
		return false
	}
}

// held begins a write that must wait.
func (h *host) heldWrite(with byte) (done chan error, cancel context.CancelFunc) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h.t.Cleanup(cancel)
	done = make(chan error, 1)
	before := h.vol().Status().HeldOps
	go func() { done <- h.vol().WriteAt(ctx, fill(4096, with), 0, false) }()
	await(h.t, "the write is held", func() bool { return h.vol().Status().HeldOps > before })
	return done, cancel
}

// durableContents is what is left of the leg when its node loses power now and nothing unsynced survives.
func (h *host) durableContents() []byte {
	id, err := parseID(testVolume)
	if err != nil {
		h.t.Fatal(err)
	}
	h.drive.mu.Lock()
	defer h.drive.mu.Unlock()
	return h.drive.data[id].CutPick(func(crashdev.Pending) bool { return false }).Contents()
}

// Proves: protocol.md R22, the giver's drain: what was acknowledged is durable on both legs, nothing is under way, new
// requests wait without an error, and extensions of the lease release nothing.
func TestDrainUnderLoad(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	h := &history{t: t, p: p, r: rand.New(rand.NewPCG(7, 42)), epoch: 1, session: 11}
	a := p.nodes[0]
	for range 5 {
		h.startGuests()
		h.work(200)
		if !a.drain(testVolume) {
			t.Fatal("not drained")
		}
		if s := a.stage(); s != "drained" {
			t.Errorf("the status says %s", s)
		}
		if l, _ := a.vol().Record(); l.InFlightBlocks != 0 {
			t.Errorf("%d blocks are under way after the drain", l.InFlightBlocks)
		}
		x, y := a.durableContents(), p.nodes[1].durableContents()
		if !bytes.Equal(x, y) {
			t.Fatal("the legs differ after the drain, or one is not durable")
		}
		if !bytes.Equal(x, a.drive.contents()) {
			t.Fatal("something was not synced")
		}
		acked := h.guests.acked.Load()
		h.regrant(a) // the lease is extended
		if a.stage() != "drained" || !bytes.Equal(x, a.drive.contents()) || h.guests.acked.Load() != acked {
			t.Fatal("an extension of the lease released the drain")
		}
		if !a.drain() {
			t.Fatal("not released")
		}
		h.work(50)
		h.stopGuests()
		p.quiet()
		h.verify(true)
	}
}

// The ends of the hold: a grant of another stage, another owner, a later call.
func TestWhatEndsADrain(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*control.Grant)
		ends   bool
	}{
		{"deadline", func(g *control.Grant) { g.Deadline++ }, false},
		{"legs version", func(g *control.Grant) { g.Volumes[0].LegsVersion++ }, false},
		{"session", func(g *control.Grant) { g.Session++ }, true},
		{"epoch", func(g *control.Grant) { g.Epoch++ }, true},
		{"prepared", func(g *control.Grant) { g.Prepared = 9 }, true},
		{"mode", func(g *control.Grant) { g.Mode = control.Frozen }, true},
		{"owner", func(g *control.Grant) { g.Volumes[0].Owner = 1 }, true},
		{"volume is gone", func(g *control.Grant) { g.Volumes = []control.VolumeGrant{} }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startPair(t)
			p.serve(1, 11)
			a := p.nodes[0]
			a.awaitStage("paired")
			if !a.drain(testVolume) {
				t.Fatal("not drained")
			}
			g := control.Grant{
				Mode: control.Paired, Epoch: 1, Session: 11, Members: 3, Deadline: p.clock() + int64(time.Hour), Volumes: owned(0, 3),
			}
			c.change(&g)
			a.grant(g)
			if ended := a.stage() != "drained"; ended != c.ends {
				t.Errorf("the volume is %s", a.stage())
			}
		})
	}
}

// A request that waited at the old owner is carried out by the new one, when the old one has been told.
func TestHeldRequestsFollowTheVolume(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	a, b := p.nodes[0], p.nodes[1]
	a.awaitStage("paired")
	if !a.drain(testVolume) {
		t.Fatal("not drained")
	}
	done, _ := a.heldWrite(5)
	moved := control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3, Volumes: owned(1, 3)}
	b.grant(moved)
	b.write(4096, 6, 4096) // a has not been told yet: it takes the writes of the new owner all the same
	select {
	case err := <-done:
		t.Fatalf("the old owner answered: %v", err)
	default:
	}
	a.grant(moved)
	if err := <-done; err != nil { // carried out by the new owner
		t.Fatal(err)
	}
	if s := a.stage(); s != "paired" {
		t.Errorf("the old owner's volume is %s", s)
	}
	b.write(8192, 7, 4096)
	if !b.drain(testVolume) {
		t.Fatal("not drained")
	}
	p.serve(1, 11)
	if got := a.read(0, 12288); got[0] != 5 || got[4096] != 6 || got[8192] != 7 {
		t.Errorf("a reads %d %d %d", got[0], got[4096], got[8192])
	}
	p.quiet()
	p.sameLegs()
	if p.nodes[0].m.link.Lane() == nil {
		t.Error("the lane was lost")
	}
}

// A disk that hangs is no reason to wait for ever, and a drain that was given up may be released; a later call ends the
// wait of the one before it.
func TestDrainThatTakesTooLong(t *testing.T) {
	p := newPair(t)
	var slow atomic.Bool
	gate := make(chan struct{})
	p.nodes[1].drive.wrap = func(d block.Device) block.Device { return &hanging{d, &slow, gate} }
	for _, h := range p.nodes {
		h.start()
	}
	p.serve(1, 11)
	a := p.nodes[0]
	a.awaitStage("paired")
	slow.Store(true)
	done := make(chan error, 1)
	go func() { done <- a.vol().WriteAt(context.Background(), fill(4096, 2), 0, false) }()
	await(t, "the write in flight", func() bool { l, _ := a.vol().Record(); return l.InFlightBlocks == 1 })
	first, err := a.m.Drain([]string{testVolume})
	if err != nil {
		t.Fatal(err)
	}
	if s := a.stage(); s != "draining" {
		t.Errorf("the status says %s", s)
	}
	a.m.drainLimit = 20 * time.Millisecond
	if a.drain(testVolume) {
		t.Error("drained, although a write hangs")
	}
	if ids := <-first; len(ids) != 0 {
		t.Errorf("the call before says that %v is drained", ids)
	}
	waiting, _ := a.heldWrite(3)
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-waiting:
		t.Fatalf("the end of the wait released the volume: %v", err)
	default:
	}
	a.m.drainLimit = patience
	if !a.drain(testVolume) { // asked again, it is quick
		t.Error("not drained")
	}
	if !a.drain() {
		t.Error("not released")
	}
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	if _, err := a.m.Drain([]string{"0123"}); err == nil {
		t.Error("an unknown volume was drained")
	}
}

// A lane that goes away during a drain: the write that it parked is issued again, and the drain waits for it.
func TestDrainOverALostLane(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	h := &history{t: t, p: p, r: rand.New(rand.NewPCG(8, 42)), epoch: 1, session: 11}
	a := p.nodes[0]
	for range 3 {
		h.startGuests()
		h.work(100)
		faults[0].do(h)
		if !a.drain(testVolume) {
			t.Fatal("not drained")
		}
		if x, y := a.durableContents(), p.nodes[1].durableContents(); !bytes.Equal(x, y) {
			t.Fatal("the legs differ after the drain")
		}
		a.drain()
		h.work(10)
		h.stopGuests()
	}
}

// move hands the volume to the other node as R22 orders it. The guests of the old owner end there, and begin at the new
// one before the old one has its grant: the giver's own grant comes last.
func (h *history) move() {
	h.t.Helper()
	giver, taker := h.own(), h.other()
	if !giver.drain(testVolume) {
		h.t.Fatal("not drained")
	}
	h.stopGuests()
	h.owner ^= 1
	early := h.r.IntN(2) == 0
	if !early {
		h.regrant(giver)
	}
	h.regrant(taker)
	h.verify(true)
	h.startGuests()
	if early {
		h.work(20)
		h.regrant(giver)
	}
}

// Proves: protocol.md R22 on the data path: twenty moves under load, nothing lost, nothing out of order, legs equal, and
// never a broken lane.
func TestMovesUnderLoad(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	h := &history{t: t, p: p, r: rand.New(rand.NewPCG(9, 42)), epoch: 1, session: 11}
	h.own().awaitStage("paired")
	h.other().awaitStage("paired")
	lane := p.nodes[0].m.link.Lane()
	h.startGuests()
	for range 20 {
		h.work(100)
		h.move()
		if t.Failed() {
			return
		}
	}
	h.work(100)
	h.stopGuests()
	p.quiet()
	h.verify(true)
	p.sameLegs()
	if p.nodes[0].m.link.Lane() != lane {
		t.Error("the lane did not live through the moves")
	}
}
