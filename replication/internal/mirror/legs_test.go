package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"duet/replication/block"
	"duet/replication/block/crashdev"
	"duet/replication/control"
	"duet/replication/meta"
	"duet/replication/volume"
)

// servedPair is two nodes that serve one volume of a size, both legs in step, at epoch 1 in session 11.
func servedPair(t *testing.T, size int64) *pair {
	t.Helper()
	p := newPair(t)
	p.size = size
	for _, h := range p.nodes {
		h.start()
	}
	p.serve(1, 11)
	p.allPaired()
	return p
}

// paired grants one volume to both nodes, in the order of the nodes given; the legs have a version.
func (p *pair) paired(epoch, session uint64, owner control.Node, legs control.Set, version uint32, order ...control.Node) {
	p.t.Helper()
	for _, n := range order {
		p.nodes[n].grant(control.Grant{
			Mode: control.Paired, Epoch: epoch, Session: session, Members: 3,
			Volumes: []control.VolumeGrant{{Volume: testVolume, Owner: owner, Legs: legs, LegsVersion: version}},
		})
	}
}

// writer writes its own blocks for as long as it may, and knows what each must hold: what was acknowledged last, since it
// has one write in flight at a time.
type writer struct {
	first, blocks int64
	want          []byte // by block
	writes        atomic.Int64
}

func (w *writer) run(t *testing.T, h *host, stop <-chan struct{}) {
	random := rand.New(rand.NewPCG(uint64(w.first), 1))
	for with := byte(1); ; with = with%250 + 1 {
		select {
		case <-stop:
			return
		default:
		}
		b := random.Int64N(w.blocks)
		if err := h.vol().WriteAt(context.Background(), fill(4096, with), (w.first+b)*4096, false); err != nil {
			t.Errorf("write at node %c: %v", 'a'+h.node, err)
			return
		}
		w.want[b] = with
		if with%16 == 0 {
			if err := h.vol().Flush(context.Background()); err != nil {
				t.Errorf("flush at node %c: %v", 'a'+h.node, err)
			}
		}
		p := block.Alloc(4096)
		if err := h.vol().ReadAt(context.Background(), p, (w.first+b)*4096); err != nil || p[0] != with || p[4095] != with {
			t.Errorf("read at node %c: %v, %d instead of %d", 'a'+h.node, err, p[0], with)
			return
		}
		w.writes.Add(1)
	}
}

func (w *writer) check(t *testing.T, where string, read func(off int64, n int) []byte) {
	t.Helper()
	for b := range w.blocks {
		if got := read((w.first+b)*4096, 4096); got[0] != w.want[b] {
			t.Fatalf("%s: block %d holds %d, acknowledged was %d", where, w.first+b, got[0], w.want[b])
		}
	}
}

// load runs a writer at each of the nodes given, and says how to end it.
func (p *pair) load(nodes ...control.Node) (writers []*writer, end func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, n := range nodes {
		w := &writer{first: int64(i) * 500, blocks: 300, want: make([]byte, 300)}
		writers = append(writers, w)
		wg.Go(func() { w.run(p.t, p.nodes[n], stop) })
	}
	return writers, func() { close(stop); wg.Wait() }
}

// goOn is load of one writer that knows what an earlier one wrote.
func (p *pair) goOn(w *writer, n control.Node) (writers []*writer, end func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	again := &writer{first: w.first, blocks: w.blocks, want: w.want}
	wg.Go(func() { again.run(p.t, p.nodes[n], stop) })
	return []*writer{again}, func() { close(stop); wg.Wait() }
}

func (p *pair) progress(writers []*writer) {
	p.t.Helper()
	for _, w := range writers {
		from := w.writes.Load()
		await(p.t, "writes go on", func() bool { return w.writes.Load() > from+20 })
	}
}

// Proves: replication.md section 14. Both nodes have the disk open; the requests of the one that does not own it are
// carried out at the owner, and the ownership moves under load without an error or a lost write.
func TestBothNodesMayHaveTheDiskOpen(t *testing.T) {
	p := servedPair(t, testSize)
	writers, end := p.load(0, 1)
	p.progress(writers)
	for owner := range control.Node(6) {
		giver, taker := p.nodes[owner%2], p.nodes[1-owner%2]
		drained, err := giver.m.Drain([]string{testVolume})
		if err != nil {
			t.Fatal(err)
		}
		if ids := <-drained; len(ids) != 1 {
			t.Fatal("not drained")
		}
		p.paired(1, 11, taker.node, 3, 0, taker.node, giver.node)
		p.progress(writers)
	}
	end()
	p.sameLegs()
	for i, w := range writers {
		w.check(t, fmt.Sprintf("node %c", 'a'+i), p.nodes[i].read)
	}
}

// A lane that is lost under forwarded requests: each is carried out once more, and nothing old comes over something new.
func TestForwardedRequestsSurviveTheLane(t *testing.T) {
	p := servedPair(t, testSize)
	writers, end := p.load(1, 1)
	for range 5 {
		p.progress(writers)
		p.nodes[0].m.link.Lane().Close(errors.New("cut by the test"))
	}
	p.progress(writers)
	end()
	p.nodes[0].awaitStage("paired")
	for _, w := range writers {
		w.check(t, "node b", p.nodes[1].read)
	}
}

// fail makes the next write or sync of a data device fail, or every read: one that fails once is healed.
func (d *drive) fail(kind crashdev.Kind) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, data := range d.data {
		if kind != crashdev.Read {
			data.FailNth(1, kind, errMedium)
			continue
		}
		data.Hook(func(op crashdev.Op) error {
			if op.Kind == crashdev.Read {
				return errMedium
			}
			return nil
		})
	}
}

var errMedium = errors.New("medium error")

// renew replaces the leg by a new one on a new disk full of what was there before, and lets the daemon find it.
func (h *host) renew() {
	h.t.Helper()
	h.crash()
	h.drive.mu.Lock()
	id, _ := parseID(testVolume) // a constant
	md := crashdev.New(meta.SizeFor(testSize))
	err := meta.Format(md, meta.Superblock{Site: h.drive.site, Volume: id, Node: h.drive.node, VolumeBytes: testSize})
	h.drive.data[id], h.drive.meta[id] = crashdev.New(testSize), md
	h.drive.mu.Unlock()
	if err != nil {
		h.t.Fatal(err)
	}
	h.start()
}

// Proves: protocol.md R23, R24; replication.md 9.5: a leg that fails, on either node and in each way, costs no
// acknowledged write and no error; what the owner wants goes on over the other leg; a new leg comes back under load.
func TestALegFailsAndComesBack(t *testing.T) {
	for _, bad := range []control.Node{0, 1} {
		for _, kind := range []crashdev.Kind{crashdev.Write, crashdev.Sync, crashdev.Read} {
			if kind == crashdev.Read && bad == 1 {
				continue // nothing reads a leg that does not coordinate
			}
			t.Run(fmt.Sprintf("%c-%s", 'a'+bad, kind), func(t *testing.T) { legFailsAndReturns(t, bad, kind) })
		}
	}
}

func legFailsAndReturns(t *testing.T, bad control.Node, kind crashdev.Kind) {
	p := servedPair(t, testSize)
	x, s := p.nodes[bad], p.nodes[1-bad]
	writers, end := p.load(0, 1)
	p.progress(writers)
	x.drive.fail(kind)
	x.awaitEvent("leg failed", func(e control.Event) bool { return e.LegFailed != nil && e.LegFailed.Volume == testVolume })
	// R23: the peer of the owner records and is granted first.
	p.paired(1, 11, 0, 1<<s.node, 2, 1, 0)
	p.progress(writers)
	x.awaitStage("remote")
	s.awaitStage("alone")

	// Its daemon comes back with a new leg. Its clients wait meanwhile; those of the other node go on.
	end()
	x.renew()
	writers2, end2 := p.goOn(writers[0], s.node)
	p.paired(1, 11, 0, 1<<s.node, 2, x.node)
	isSynced := func(e control.Event) bool { return e.LegSynced != nil && e.LegSynced.Session == 11 }
	if a, b := s.awaitEvent("synced", isSynced), x.awaitEvent("synced", isSynced); *a.LegSynced != *b.LegSynced {
		t.Fatalf("%+v and %+v", a.LegSynced, b.LegSynced)
	}
	if got := s.stage(); got != "preparing" {
		t.Fatalf("the coordinator is %s after it reported the return: nothing may be acknowledged alone", got)
	}
	// R24: the node whose leg was in is granted first.
	p.paired(1, 11, 0, 3, 3, s.node, x.node)
	p.progress(writers2)
	for _, h := range p.nodes {
		h.awaitStage("paired")
	}
	end2()
	p.sameLegs()
	writers2[0].check(t, "after the return", s.read)
	writers[1].check(t, "after the return", x.read)
	if n := p.differences.Load(); n != 0 {
		t.Errorf("%d proofs found a difference", n)
	}
}

// The return of a leg is cut after the coordinator reported it and before the target heard so: the target does not report,
// the coordinator holds, and the next lane tells.
func TestReturnIsReportedByTheTargetLast(t *testing.T) {
	p := servedPair(t, testSize)
	a, b := p.nodes[0], p.nodes[1]
	a.write(0, 7, 1<<20)
	b.drive.fail(crashdev.Write)
	done := make(chan error, 1)
	go func() { done <- a.vol().WriteAt(context.Background(), fill(4096, 9), 0, false) }()
	b.awaitEvent("leg failed", func(e control.Event) bool { return e.LegFailed != nil })
	p.paired(1, 11, 0, 1, 2, 1, 0)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.renew()
	p.paired(1, 11, 0, 1, 2, 1)
	isSynced := func(e control.Event) bool { return e.LegSynced != nil }
	a.awaitEvent("synced", isSynced)
	a.m.link.Lane().Close(errors.New("cut by the test"))
	b.awaitEvent("synced", isSynced) // on this lane or on the next one
	if got := a.stage(); got != "preparing" && got != "held" {
		t.Fatalf("the coordinator is %s", got)
	}
	held := make(chan error, 1)
	go func() { held <- a.vol().WriteAt(context.Background(), fill(4096, 11), 4096, false) }()
	await(t, "a held write", func() bool { return a.vol().Status().HeldOps == 1 })
	p.paired(1, 11, 0, 3, 3, 0, 1)
	if err := <-held; err != nil {
		t.Fatal(err)
	}
	for _, h := range p.nodes {
		h.awaitStage("paired")
	}
	p.sameLegs()
	if got := b.read(0, 4096); !bytes.Equal(got, fill(4096, 9)) {
		t.Fatalf("%x", got[:4])
	}
}

// Proves: replication.md sections 6 and 10.1. After a crash of either daemon only what the activity logs name is compared,
// however large the volume is, and the volume serves again; the same holds for a target that was away.
func TestOnlyHotExtentsAreComparedAfterACrash(t *testing.T) {
	p := newPair(t)
	p.size = 256 << 20
	for _, h := range p.nodes {
		h.start()
	}
	p.serve(1, 11)
	for n := range control.Node(2) {
		for _, h := range p.nodes {
			h.awaitStage("paired")
		}
		a := p.nodes[0]
		for i := range int64(3) {
			a.write(i*20<<20, byte(i+1), 4096)
		}
		x := p.nodes[n]
		x.crash()
		x.start()
		x.grant(control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3})
		for _, h := range p.nodes {
			h.awaitStage("paired")
			if c := h.vol().Status().Copy; c.DigestBytes > 3*4<<20 || c.DigestBytes == 0 {
				t.Errorf("crash of %c, node %c: %+v", 'a'+n, 'a'+h.node, c)
			}
		}
	}
	p.sameLegs()
}

// A leg whose error has passed is readmitted while its daemon and both nodes' clients go on; one that works, or counts, is not.
func TestReadmit(t *testing.T) {
	p := servedPair(t, testSize)
	a, b := p.nodes[0], p.nodes[1]
	if err := a.m.Readmit(testVolume); err == nil {
		t.Fatal("a leg that works was thrown away")
	}
	writers, end := p.load(0, 1)
	p.progress(writers)
	a.drive.fail(crashdev.Write)
	a.awaitEvent("leg failed", func(e control.Event) bool { return e.LegFailed != nil })
	if err := a.m.Readmit(testVolume); err == nil {
		t.Fatal("a leg that counts was thrown away")
	}
	p.paired(1, 11, 0, 2, 2, 1, 0)
	p.progress(writers)
	if err := a.m.Readmit(testVolume); err != nil {
		t.Fatal(err)
	}
	isSynced := func(e control.Event) bool { return e.LegSynced != nil && e.LegSynced.Session == 11 }
	a.awaitEvent("synced", isSynced)
	b.awaitEvent("synced", isSynced)
	p.paired(1, 11, 0, 3, 3, 1, 0)
	p.progress(writers)
	for _, h := range p.nodes {
		h.awaitStage("paired")
	}
	end()
	p.sameLegs()
	for i, w := range writers {
		w.check(t, fmt.Sprintf("node %c", 'a'+i), p.nodes[i].read)
	}
}

// A target whose disk hangs while its lane lives costs the node that serves nothing: writes go on beyond what may be on the
// way to it, the copy ends after a while, and begins again when the disk answers.
func TestAHangingTargetStallsNobody(t *testing.T) {
	p := servedPair(t, 160<<20)
	a, b := p.nodes[0], p.nodes[1]
	b.crash()
	a.solo(2)
	a.write(0, 1, 1<<20)
	var slow atomic.Bool
	gate := make(chan struct{})
	slow.Store(true)
	b.drive.wrap = func(d block.Device) block.Device { return &hanging{d, &slow, gate} }
	b.start()
	a.grant(control.Grant{Mode: control.Solo, Epoch: 2, Session: 22, Members: 1, Volumes: owned(0, 1)})
	b.grant(control.Grant{Mode: control.Joining, Epoch: 2, Session: 22, Members: 1, Volumes: owned(0, 1)})
	if err := a.m.Copy(22); err != nil {
		t.Fatal(err)
	}
	a.awaitStage("catching")
	for i := range int64(150) { // more than a lane may have in flight
		a.write(i<<20, 2, 1<<20)
	}
	a.awaitEvent("the end of the copy", func(e control.Event) bool { return e.Link != nil && !e.Link.Up && e.Link.Session == 22 })
	a.write(0, 3, 4096)
	slow.Store(false)
	close(gate)
	if x, y := a.awaitCopyDone(22), b.awaitCopyDone(22); x != y {
		t.Fatal("different digests")
	}
	p.sameLegs()
}

// hangLog makes the next write of a leg's activity log hang until the node is killed; then the ring is without it.
func (h *host) hangLog() (kill func()) {
	h.t.Helper()
	id, _ := parseID(testVolume) // a constant
	release, reached := make(chan struct{}), make(chan struct{}, 1)
	md := h.drive.meta[id]
	md.Hook(func(op crashdev.Op) error {
		if op.Kind != crashdev.Write || op.Off < 2<<20 || op.Off >= 8<<20 {
			return nil
		}
		select {
		case reached <- struct{}{}:
		default:
		}
		<-release
		return errors.New("killed")
	})
	return func() {
		<-reached
		h.drive.mu.Lock()
		left := md.CutPick(func(crashdev.Pending) bool { return false })
		h.drive.mu.Unlock()
		go close(release)
		h.crash()
		h.drive.mu.Lock()
		h.drive.meta[id] = left
		h.drive.mu.Unlock()
	}
}

// A write is sent to the other leg only when the activity log of this one has it: killed before that, nobody has it.
func TestNothingIsSentBeforeItIsHot(t *testing.T) {
	p := servedPair(t, 256<<20)
	a, b := p.nodes[0], p.nodes[1]
	a.write(0, 1, 4096)
	a.flush()
	kill := a.hangLog()
	go func() { _ = a.vol().WriteAt(context.Background(), fill(4096, 9), 100<<20, false) }()
	await(t, "a write in flight", func() bool { l, _ := a.vol().Record(); return l.InFlightBlocks == 1 })
	kill()
	a.start()
	a.grant(control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3})
	for _, h := range p.nodes {
		h.awaitStage("paired")
	}
	if b.drive.contents()[100<<20] != 0 {
		t.Error("the other leg has what this one's log did not name")
	}
	p.sameLegs()
}

// A write that one leg has and the other has not keeps its extent in the log of its owner, however long that lasts.
func TestAWriteInFlightStaysHot(t *testing.T) {
	p := servedPair(t, 256<<20)
	a, b := p.nodes[0], p.nodes[1]
	a.write(0, 1, 4096)
	a.flush()
	kill := b.hangLog()
	go func() { _ = a.vol().WriteAt(context.Background(), fill(4096, 9), 100<<20, false) }()
	await(t, "the write on its own leg", func() bool { return a.drive.contents()[100<<20] == 9 })
	for range 5 {
		a.vol().Cool()
	}
	a.crash()
	kill()
	for _, h := range p.nodes {
		h.start()
		h.seq = 0
		h.grant(control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3})
	}
	for _, h := range p.nodes {
		h.awaitStage("paired")
	}
	p.sameLegs()
}

// A return ends with the grants in either order, and leaves nothing marked: the next lane finds the legs equal at once.
func TestReturnEndsInEitherOrder(t *testing.T) {
	for _, first := range []control.Node{0, 1} {
		p := servedPair(t, testSize)
		a, b := p.nodes[0], p.nodes[1]
		a.write(0, 7, 1<<20)
		a.drive.fail(crashdev.Write)
		done := make(chan error, 1)
		go func() { done <- a.vol().WriteAt(context.Background(), fill(4096, 9), 0, false) }()
		a.awaitEvent("leg failed", func(e control.Event) bool { return e.LegFailed != nil })
		p.paired(1, 11, 0, 2, 2, 1, 0)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		a.renew()
		p.paired(1, 11, 0, 2, 2, 0)
		isSynced := func(e control.Event) bool { return e.LegSynced != nil }
		a.awaitEvent("synced", isSynced)
		b.awaitEvent("synced", isSynced)
		p.paired(1, 11, 0, 3, 3, first)
		if first == 0 {
			a.write(4096, 11, 4096) // the other node does not know yet
		}
		p.paired(1, 11, 0, 3, 3, 1-first)
		for _, h := range p.nodes {
			h.awaitStage("paired")
			if n := h.vol().Status().DirtyBytes; n != 0 {
				t.Errorf("grant of %c first: %d bytes are marked at %c", 'a'+first, n, 'a'+h.node)
			}
		}
		p.sameLegs()
	}
}

// A leg that is found dead at the start of its daemon is reported when the other node says that its own ran through.
func TestADeadLegIsReportedAfterARestart(t *testing.T) {
	p := servedPair(t, testSize)
	a, b := p.nodes[0], p.nodes[1]
	b.drive.fail(crashdev.Write)
	go func() { _ = a.vol().WriteAt(context.Background(), fill(4096, 9), 0, false) }()
	b.awaitEvent("leg failed", func(e control.Event) bool { return e.LegFailed != nil })
	id, _ := parseID(testVolume) // a constant
	await(t, "the record of it", func() bool {
		s, err := meta.Open(b.drive.meta[id].CutPick(func(crashdev.Pending) bool { return false }))
		return err == nil && s.Super().State == meta.Failed
	})
	b.crash()
	b.drive.mu.Lock()
	b.drive.data[id] = b.drive.data[id].CutPick(func(crashdev.Pending) bool { return true })
	b.drive.mu.Unlock()
	b.start()
	b.grant(control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3})
	b.awaitEvent("leg failed", func(e control.Event) bool { return e.LegFailed != nil })
}

// The only leg with what was acknowledged is not dropped because its disk fails during the reconcile: the volume is held.
func TestTheSourceOfAReconcileIsNotDropped(t *testing.T) {
	p := servedPair(t, testSize)
	a, b := p.nodes[0], p.nodes[1]
	a.write(0, 1, 4096)
	a.flush()
	a.write(0, 2, 4096) // acknowledged, not flushed
	b.powerCut(3)
	a.drive.fail(crashdev.Read) // the compare of the reconcile meets a bad sector
	b.start()
	b.grant(control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3})
	a.awaitEvent("the fault", func(e control.Event) bool { return e.Fault != nil && e.Fault.Code == "REPL-2021" })
	await(t, "both know", func() bool { return a.stage() == "failed" && b.stage() == "held" })
	for _, e := range a.m.Standing() {
		if e.LegFailed != nil {
			t.Fatal("the source of a reconcile was reported for being dropped")
		}
	}
	// Whatever the membership thinks: a leg that lost its power does not go on alone as one of a pair.
	p.paired(1, 11, 0, 2, 2, 1, 0)
	b.awaitEvent("the refusal", func(e control.Event) bool { return e.Fault != nil && e.Fault.Code == "REPL-2002" })
}

// The same before the nodes have met again: the state of the leg says nothing of what it lost with its power.
func TestALegThatLostItsPowerRefusesToStandAlone(t *testing.T) {
	p := servedPair(t, testSize)
	b := p.nodes[1]
	p.nodes[0].write(0, 1, 4096)
	b.powerCut(3)
	b.start()
	b.grant(control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3, Volumes: []control.VolumeGrant{
		{Volume: testVolume, Owner: 1, Legs: 2, LegsVersion: 2},
	}})
	b.awaitEvent("the refusal", func(e control.Event) bool { return e.Fault != nil && e.Fault.Code == "REPL-2002" })
}

// allPaired waits for every volume.
func (p *pair) allPaired() {
	p.t.Helper()
	await(p.t, "every volume paired", func() bool {
		for _, h := range p.nodes {
			for _, v := range h.m.Status().Volumes {
				if v.Stage != "paired" {
					return false
				}
			}
		}
		return true
	})
}

// Several legs come back one at a time.
func TestLegsComeBackOneAtATime(t *testing.T) {
	p := newPair(t)
	p.more = []string{"0123456789abcdef0123456789abcde0", "0123456789abcdef0123456789abcde1"}
	for _, h := range p.nodes {
		h.start()
	}
	ids := append([]string{testVolume}, p.more...)
	grant := func(legs map[string]control.Set, order ...control.Node) {
		for _, n := range order {
			g := control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3}
			for _, id := range ids {
				version := uint32(1)
				if legs[id] == 3 {
					version = 2
				}
				g.Volumes = append(g.Volumes, control.VolumeGrant{Volume: id, Owner: 0, Legs: legs[id], LegsVersion: version})
			}
			p.nodes[n].grant(g)
		}
	}
	a, b := p.nodes[0], p.nodes[1]
	only := map[string]control.Set{}
	for _, id := range ids {
		only[id] = 1
	}
	both := map[string]control.Set{}
	for _, id := range ids {
		both[id] = 3
	}
	grant(both, 0, 1)
	p.allPaired()
	grant(only, 1, 0) // taken out for whatever reason; they work
	for range ids {
		var got string
		a.awaitEvent("a return", func(e control.Event) bool {
			if e.LegSynced != nil {
				got = e.LegSynced.Volume
			}
			return e.LegSynced != nil
		})
		b.awaitEvent("the same return", func(e control.Event) bool { return e.LegSynced != nil && e.LegSynced.Volume == got })
		if synced := 0; true {
			for _, e := range a.m.Standing() {
				if e.LegSynced != nil {
					synced++
				}
			}
			if synced != 1 {
				t.Fatalf("%d legs wait for the membership at once", synced)
			}
		}
		a.m.mu.Lock()
		for id, e := range a.m.volumes {
			if id != got && only[id] == 1 && e.decided {
				t.Errorf("the leg of %s comes back while that of %s has not", id, got)
			}
		}
		a.m.mu.Unlock()
		only[got] = 3
		grant(only, 0, 1)
	}
}

// Proves: protocol.md section 7 and R14. A node with a broken leg joins: the other volumes are proved, both nodes say which leg
// stays out, and its node's clients go on over the other node's leg; the leg is readmitted then.
func TestANodeJoinsWithABrokenLeg(t *testing.T) {
	p := newPair(t)
	broken := "0123456789abcdef0123456789abcde0"
	p.more = []string{broken}
	for _, h := range p.nodes {
		h.start()
	}
	a, b := p.nodes[0], p.nodes[1]
	volumes := func(legs, legsOfBroken control.Set, version uint32) []control.VolumeGrant {
		return []control.VolumeGrant{
			{Volume: testVolume, Owner: 0, Legs: legs, LegsVersion: 1},
			{Volume: broken, Owner: 1, Legs: legsOfBroken, LegsVersion: version},
		}
	}
	for _, h := range p.nodes {
		h.grant(control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3, Volumes: volumes(3, 3, 1)})
	}
	p.allPaired()
	b.crash()
	a.grant(control.Grant{Mode: control.Solo, Epoch: 2, Members: 1, Volumes: volumes(1, 1, 1)})
	a.write(0, 1, 1<<20)
	id, err := parseID(broken)
	if err != nil {
		t.Fatal(err)
	}
	m, err := meta.Open(b.drive.meta[id])
	if err == nil {
		err = m.Change(func(s *meta.Superblock) { s.State = meta.Failed })
	}
	if err != nil {
		t.Fatal(err)
	}
	b.start()
	a.grant(control.Grant{Mode: control.Solo, Epoch: 2, Session: 22, Members: 1, Volumes: volumes(1, 1, 1)})
	b.grant(control.Grant{Mode: control.Joining, Epoch: 2, Session: 22, Members: 1, Volumes: volumes(1, 1, 1)})
	if err := a.m.Copy(22); err != nil {
		t.Fatal(err)
	}
	isDone := func(e control.Event) bool { return e.CopyDone != nil && e.CopyDone.Session == 22 }
	x, y := a.awaitEvent("copy done", isDone).CopyDone, b.awaitEvent("copy done", isDone).CopyDone
	results := []volume.Result{{Volume: testVolume}, {Volume: broken}}
	if digestOf(results, nil, []string{broken}) == digestOf(results, []string{broken}, nil) || digestOf(results, nil, []string{broken}) == digestOf(results) {
		t.Fatal("the digest does not bind what was left out")
	}
	if x.Digest != y.Digest || len(x.Out[0]) != 0 || len(x.Out[1]) != 1 || x.Out[1][0] != broken || y.Out[1][0] != broken {
		t.Fatalf("%+v and %+v", x, y)
	}
	b.grant(control.Grant{Mode: control.Prepared, Epoch: 2, Prepared: 4, Session: 22, Members: 3, Volumes: volumes(3, 1, 2)})
	for _, h := range p.nodes {
		h.grant(control.Grant{Mode: control.Paired, Epoch: 4, Session: 22, Members: 3, Volumes: volumes(3, 1, 2)})
	}
	for _, h := range p.nodes {
		h.awaitStage("paired")
	}
	other := b.m.volumes[broken].vol
	if err := other.WriteAt(context.Background(), fill(4096, 5), 8192, false); err != nil {
		t.Fatal(err)
	}
	if got := other.Status().Stage; got != "remote" {
		t.Errorf("the volume is %s at its owner", got)
	}
	if err := b.m.Readmit(broken); err != nil {
		t.Fatal(err)
	}
	isSynced := func(e control.Event) bool { return e.LegSynced != nil && e.LegSynced.Volume == broken }
	a.awaitEvent("the return", isSynced)
	b.awaitEvent("the return", isSynced)
}

// A leg that was excluded never stands alone because the only one that counts has died: the copy waits, and names nothing.
func TestAStaleLegNeverStandsAlone(t *testing.T) {
	p := servedPair(t, testSize)
	a, b := p.nodes[0], p.nodes[1]
	b.grant(control.Grant{Mode: control.Frozen, Epoch: 1, Members: 3})
	a.solo(2)
	a.write(0, 9, 4096) // b's leg lacks it, and its node ran through
	a.drive.fail(crashdev.Write)
	go func() { _ = a.vol().WriteAt(context.Background(), fill(4096, 10), 4096, false) }()
	await(t, "the dead leg", func() bool { return a.stage() == "failed" })
	a.grant(control.Grant{Mode: control.Solo, Epoch: 2, Session: 22, Members: 1, Volumes: owned(0, 1)})
	b.grant(control.Grant{Mode: control.Joining, Epoch: 2, Session: 22, Members: 1, Volumes: owned(0, 1)})
	if err := a.m.Copy(22); err != nil {
		t.Fatal(err)
	}
	e := a.awaitEvent("the end of the copy", func(e control.Event) bool { return e.CopyDone != nil || e.CopyFailed != nil })
	if e.CopyDone != nil {
		t.Fatalf("a stale leg was named as the only one: %+v", e.CopyDone)
	}
}
