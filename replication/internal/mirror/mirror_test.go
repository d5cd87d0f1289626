package mirror

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"duet/replication/control"
	"duet/replication/volume"
)

func TestFoundWriteSoloRejoin(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	a, b := p.nodes[0], p.nodes[1]
	a.awaitStage("paired")
	b.awaitStage("paired")
	a.write(0, 1, 8192)
	a.write(1<<20, 2, 1<<20)
	a.flush()
	p.sameLegs()

	b.crash()
	a.solo(2)
	a.write(4096, 3, 4096)
	a.flush()
	b.start()
	p.rejoin(0, 2, 22)
	a.write(0, 4, 4096)
	p.sameLegs()
	if got := a.read(4096, 4096)[0]; got != 3 {
		t.Fatalf("read %d", got)
	}
}

// load writes random overlapping ranges on some connections until stopped; every acknowledged byte is in model.
type load struct {
	h     *host
	mu    sync.Mutex
	stop  chan struct{}
	wg    sync.WaitGroup
	acked atomic.Int64
}

func (h *host) load(connections int) *load {
	l := &load{h: h, stop: make(chan struct{})}
	for c := range connections {
		l.wg.Add(1)
		go l.connection(c)
	}
	return l
}

func (l *load) connection(c int) {
	defer l.wg.Done()
	r := rand.New(rand.NewPCG(uint64(c), 7))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	v := l.h.vol()
	go func() {
		select {
		case <-l.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		off := r.Int64N(testSize/4096-16) * 4096
		p := fill(int(1+r.Int64N(16))*4096, byte(r.IntN(256)))
		var err error
		switch r.IntN(20) {
		case 0:
			err = v.Flush(ctx)
		case 1:
			err = v.Zero(ctx, off, int64(len(p)), false)
		case 2:
			err = v.ReadAt(ctx, p, off)
		default:
			err = v.WriteAt(ctx, p, off, r.IntN(8) == 0)
		}
		switch {
		case err == nil:
			l.acked.Add(1)
		case errors.Is(err, volume.ErrClosed):
			v = l.next(ctx, v)
		case ctx.Err() == nil:
			l.h.t.Errorf("request: %v", err)
			return
		}
	}
}

// next waits for the volume of the next daemon, as an NBD client reconnects.
func (l *load) next(ctx context.Context, old guest) guest {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		l.mu.Lock()
		m := l.h.m
		l.mu.Unlock()
		m.mu.Lock()
		e := m.volumes[testVolume]
		m.mu.Unlock()
		if e != nil && e.vol != old.Volume {
			return guest{e.vol}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return old
}

// progress waits until more requests were acknowledged.
func (l *load) progress(n int64) {
	l.h.t.Helper()
	want := l.acked.Load() + n
	await(l.h.t, "requests acknowledged", func() bool { return l.acked.Load() >= want })
}

func (l *load) end() {
	close(l.stop)
	l.wg.Wait()
}

func TestOverlappingWritesLeaveEqualLegs(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	l := p.nodes[0].load(8)
	l.progress(3000)
	l.end()
	p.settled()
}

// settled compares the legs when nothing is in flight; no copy may have needed its proof.
func (p *pair) settled() {
	p.t.Helper()
	p.quiet()
	p.sameLegs()
	if n := p.differences.Load(); n != 0 {
		p.t.Errorf("%d proofs failed: the copies before them missed something", n)
	}
}

// quiet waits until nothing is in flight on the owner: a client that left leaves writes that still end.
func (p *pair) quiet() {
	p.t.Helper()
	await(p.t, "nothing in flight", func() bool {
		for _, h := range p.nodes {
			if l, ok := h.vol().Record(); ok && l.InFlightBlocks != 0 {
				return false
			}
		}
		return true
	})
}

func TestKillPeerUnderLoadReconcilesInsideTheSession(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	a, b := p.nodes[0], p.nodes[1]
	l := a.load(8)
	for range 3 {
		l.progress(300)
		b.crash()
		b.start()
		b.grant(control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3})
		l.progress(300)
	}
	l.end()
	p.settled()
}

func TestKillOwnerUnderLoadReconcilesInsideTheSession(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	a := p.nodes[0]
	l := a.load(8)
	for range 3 {
		l.progress(300)
		a.crash()
		l.mu.Lock()
		a.start()
		l.mu.Unlock()
		a.grant(control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3})
		l.progress(300)
	}
	l.end()
	p.settled()
}

func TestLaneLostUnderLoad(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	l := p.nodes[0].load(8)
	for range 5 {
		l.progress(200)
		p.nodes[0].m.link.Lane().Close(errors.New("cut by the test"))
	}
	l.progress(200)
	l.end()
	p.settled()
	if d := p.nodes[0].vol().Status().Copy.DigestBytes; d != 0 {
		t.Errorf("%d bytes were digested although both daemons ran through", d)
	}
}

func TestResyncUnderLoad(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	a, b := p.nodes[0], p.nodes[1]
	l := a.load(4)
	epoch, session := uint64(2), uint64(20)
	for round := range 4 {
		l.progress(100)
		if round%2 == 0 {
			b.powerCut(uint64(round))
		}
		a.grant(control.Grant{Mode: control.Frozen, Epoch: epoch - 1, Members: 3})
		a.solo(epoch)
		l.progress(200)
		if round%2 == 0 {
			b.start()
		}
		p.rejoin(0, epoch, session)
		l.progress(100)
		epoch, session = epoch+3, session+1
	}
	l.end()
	p.settled()
}

func TestTakeoverAfterPowerCutHasWhatWasFlushed(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	a, b := p.nodes[0], p.nodes[1]
	a.awaitStage("paired")
	a.write(0, 7, 1<<20)
	a.flush()
	a.write(2<<20, 8, 4096) // acknowledged, not flushed: the survivor ran through
	a.powerCut(5)
	b.grant(control.Grant{Mode: control.Frozen, Epoch: 1, Members: 3, Volumes: owned(0, 3)})
	b.grant(control.Grant{Mode: control.Solo, Epoch: 2, Members: 2, Volumes: owned(1, 2)})
	if got := b.read(0, 4096)[0]; got != 7 {
		t.Fatalf("flushed block reads %d", got)
	}
	if got := b.read(2<<20, 4096)[0]; got != 8 {
		t.Fatalf("acknowledged block reads %d", got)
	}
	b.write(4096, 9, 4096)
	a.start()
	p.rejoin(1, 2, 22)
	p.sameLegs()
}

// resolve is a common return (protocol.md R13): both legs count, a coordinates, owner may be either.
func (p *pair) resolve(owner control.Node, epoch, session uint64) {
	p.t.Helper()
	for _, h := range p.nodes {
		h.grant(control.Grant{Mode: control.Resolving, Epoch: epoch, Session: session, Members: 3, Volumes: owned(owner, 3)})
	}
	a, b := p.nodes[0], p.nodes[1]
	if err := a.m.Copy(session); err != nil {
		p.t.Fatal(err)
	}
	if x, y := a.awaitCopyDone(session), b.awaitCopyDone(session); x != y {
		p.t.Fatalf("digests differ: %x and %x", x, y)
	}
	b.grant(control.Grant{Mode: control.Prepared, Epoch: epoch, Prepared: epoch + 2, Session: session, Members: 3, Volumes: owned(owner, 3)})
	for _, h := range p.nodes {
		h.grant(control.Grant{Mode: control.Paired, Epoch: epoch + 2, Session: session, Members: 3, Volumes: owned(owner, 3)})
	}
	a.awaitStage("paired")
	b.awaitStage("paired")
}

func TestResolvingAfterACommonPowerCut(t *testing.T) {
	for seed := range uint64(6) {
		p := startPair(t)
		p.serve(1, 11)
		owner := control.Node(seed % 2)
		p.nodes[0].awaitStage("paired")
		for _, h := range p.nodes {
			h.grant(control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3, Volumes: owned(owner, 3)})
		}
		o := p.nodes[owner]
		o.write(0, 5, 1<<20)
		o.flush()
		l := o.load(4)
		l.progress(200)
		l.end()
		for i, h := range p.nodes {
			if seed < 4 || i == 0 {
				h.powerCut(10*seed + uint64(i))
			} else {
				h.crash()
				h.seq = 0
			}
		}
		for _, h := range p.nodes {
			h.start()
		}
		p.resolve(owner, 1, 30+seed)
		o.write(4096, 6, 4096)
		p.sameLegs()
	}
}

func TestResolvingAfterALostSessionUnderLoad(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	a := p.nodes[0]
	l := a.load(6)
	for round := range uint64(4) {
		l.progress(200)
		epoch := 1 + 2*round
		for _, h := range p.nodes {
			h.grant(control.Grant{Mode: control.Frozen, Epoch: epoch, Members: 3})
		}
		p.resolve(0, epoch, 40+round)
		l.progress(200)
	}
	l.end()
	p.settled()
}

func TestFoundByResolving(t *testing.T) {
	p := startPair(t)
	p.resolve(1, 1, 11)
	p.nodes[1].write(8192, 3, 4096)
	p.sameLegs()
	for _, h := range p.nodes {
		if s := h.vol().Status(); s.LegState != "uptodate" || s.ProvenEpoch == 0 {
			t.Errorf("%+v", s)
		}
	}
}

// The counters of a copy are about that copy: what it began with, and nothing of the copies before.
func TestCountersOfACopyAreItsOwn(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	a, b := p.nodes[0], p.nodes[1]
	for _, h := range p.nodes {
		h.awaitStage("paired")
	}
	a.write(5<<20, 1, 4096) // in the second extent, which may differ when b's daemon is killed: no sync covered it
	b.crash()
	a.solo(2)
	a.write(0, 1, 1<<20)
	b.start()
	p.rejoin(0, 2, 22)
	const second = testSize - 4<<20
	for _, h := range p.nodes {
		c := h.vol().Status().Copy
		if c.Running || c.RemainingBytes != 0 || c.ResyncBytes != 1<<20+4096 || c.DigestBytes < testSize {
			t.Errorf("node %c, by hot: %+v", 'a'+h.node, c)
		}
	}
	if c := a.vol().Status().Copy; c.DirtyBytes != 1<<20+4096+second {
		t.Errorf("source, by hot: %+v", c)
	}
	if c := b.vol().Status().Copy; c.DirtyBytes != second {
		t.Errorf("target, by hot: %+v", c)
	}
	b.grant(control.Grant{Mode: control.Frozen, Epoch: 4, Members: 3})
	a.solo(5)
	a.write(8192, 3, 5*4096)
	p.rejoin(0, 5, 33)
	if c := a.vol().Status().Copy; c.DirtyBytes != 5*4096 || c.ResyncBytes != 5*4096 || c.DigestBytes >= testSize {
		t.Errorf("source, by map: %+v", c)
	}
	if c := b.vol().Status().Copy; c.DirtyBytes != 0 || c.ResyncBytes != 5*4096 || c.DigestBytes >= testSize {
		t.Errorf("target, by map: %+v", c)
	}
}
