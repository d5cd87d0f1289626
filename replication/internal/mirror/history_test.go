package mirror

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"duet/replication/block"
	"duet/replication/control"
	"duet/replication/volume"
)

var (
	historySeed  = flag.Uint64("history.seed", 0, "one seed of TestRandomHistories; 0: the standard ones")
	historySteps = flag.Int("history.steps", 8, "faults in one history")
)

// A history is a life of the pair: clients write numbered versions, faults come in random order, and after each
// one every block is read and must hold a version that the promises allow.

const (
	historyBlocks  = 384 // over both extents
	historyClients = 4
	firstBlock     = 1024 - historyBlocks/2
)

// cell is what is known of one block. One client writes a block, one request at a time.
type cell struct {
	issued  uint64 // newest version ever sent
	acked   uint64 // newest acknowledged
	flushed uint64 // newest acknowledged before a flush that was acknowledged
}

type history struct {
	t     *testing.T
	p     *pair
	r     *rand.Rand
	owner control.Node

	mu    sync.Mutex
	cells [historyBlocks]cell

	epoch, session uint64
	guests         *guests
}

// guests are the clients on the owner; they die with its node.
type guests struct {
	h     *history
	host  *host
	stop  context.CancelFunc
	ctx   context.Context
	wg    sync.WaitGroup
	acked atomic.Int64
}

func (h *history) startGuests() {
	ctx, cancel := context.WithCancel(context.Background())
	g := &guests{h: h, host: h.p.nodes[h.owner], ctx: ctx, stop: cancel}
	h.guests = g
	for c := range historyClients {
		g.wg.Add(1)
		r := rand.New(rand.NewPCG(h.r.Uint64(), uint64(c)))
		go func() { defer g.wg.Done(); g.client(c, r) }()
	}
}

func (h *history) stopGuests() {
	h.guests.stop()
	h.guests.wg.Wait()
}

// work waits until the guests got some answers.
func (h *history) work(n int64) {
	h.t.Helper()
	want := h.guests.acked.Load() + n
	await(h.t, "the guests' requests are answered", func() bool { return h.guests.acked.Load() >= want })
}

func stamp(p []byte, version uint64, blockNumber int64) {
	for at := 0; at < len(p); at += 16 {
		binary.LittleEndian.PutUint64(p[at:], version)
		binary.LittleEndian.PutUint64(p[at+8:], uint64(blockNumber))
	}
}

// version reads a stamped block: all its pieces must agree, or it is torn or foreign.
func version(p []byte, blockNumber int64) (uint64, error) {
	first := binary.LittleEndian.Uint64(p)
	want := make([]byte, len(p))
	if first != 0 {
		stamp(want, first, blockNumber)
	}
	if !bytes.Equal(want, p) {
		return 0, fmt.Errorf("block %d is torn or foreign: version %d, %x", blockNumber, first, p[:32])
	}
	return first, nil
}

func (g *guests) client(c int, r *rand.Rand) {
	const own = historyBlocks / historyClients
	for g.ctx.Err() == nil {
		first := int64(c*own) + r.Int64N(own)
		n := 1 + r.Int64N(min(8, int64((c+1)*own)-first))
		switch r.IntN(12) {
		case 0:
			g.flush(c, own)
		case 1:
			g.read(first, n)
		default:
			g.write(first, n, r.IntN(6) == 0)
		}
	}
}

// repeat is a guest's disk: it sends a request again when the daemon went away.
func (g *guests) repeat(f func(guest) error) bool {
	for {
		v := g.host.current()
		err := f(v)
		switch {
		case err == nil:
			g.acked.Add(1)
			return true
		case g.ctx.Err() != nil:
			return false
		case !errors.Is(err, volume.ErrClosed):
			g.h.t.Errorf("a guest saw an error: %v", err)
			return false
		}
		tick := time.NewTicker(time.Millisecond)
		for g.host.current() == v && g.ctx.Err() == nil {
			<-tick.C
		}
		tick.Stop()
	}
}

// current is the volume of the daemon that runs now.
func (h *host) current() guest {
	h.p.mu.Lock()
	m := h.m
	h.p.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	return guest{m.volumes[testVolume].vol}
}

func (g *guests) write(first, n int64, fua bool) {
	h := g.h
	p := block.Alloc(int(n) * 4096)
	h.mu.Lock()
	versions := make([]uint64, n)
	for i := range n {
		cell := &h.cells[first+i]
		cell.issued++
		versions[i] = cell.issued
		stamp(p[i*4096:(i+1)*4096], cell.issued, first+i)
	}
	h.mu.Unlock()
	off := (firstBlock + first) * 4096
	if !g.repeat(func(v guest) error { return v.WriteAt(g.ctx, p, off, fua) }) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range n {
		cell := &h.cells[first+i]
		cell.acked = versions[i]
		if fua {
			cell.flushed = versions[i]
		}
	}
}

// flush makes the client's own acknowledged blocks durable.
func (g *guests) flush(c, own int) {
	h := g.h
	h.mu.Lock()
	before := make([]uint64, own)
	for i := range before {
		before[i] = h.cells[c*own+i].acked
	}
	h.mu.Unlock()
	if !g.repeat(func(v guest) error { return v.Flush(g.ctx) }) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, v := range before {
		cell := &h.cells[c*own+i]
		cell.flushed = max(cell.flushed, v)
	}
}

func (g *guests) read(first, n int64) {
	h := g.h
	p := block.Alloc(int(n) * 4096)
	off := (firstBlock + first) * 4096
	if !g.repeat(func(v guest) error { return v.ReadAt(g.ctx, p, off) }) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range n {
		got, err := version(p[i*4096:(i+1)*4096], first+i)
		cell := h.cells[first+i]
		if err != nil || got < cell.acked || got > cell.issued {
			h.t.Errorf("block %d reads version %d, acknowledged %d: %v", first+i, got, cell.acked, err)
		}
	}
}

// verify reads everything on the owner while no guest runs. Without a leg that kept its power only what was flushed
// must be there. What was read once must stay (P3), so it becomes the new truth.
func (h *history) verify(powerKept bool) {
	h.t.Helper()
	p := h.p.nodes[h.owner].read(firstBlock*4096, historyBlocks*4096)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.cells {
		cell := &h.cells[i]
		floor := cell.acked
		if !powerKept {
			floor = cell.flushed
		}
		got, err := version(p[i*4096:(i+1)*4096], int64(i))
		if err != nil || got < floor || got > cell.issued {
			h.t.Fatalf("block %d holds version %d, must be %d..%d: %v", i, got, floor, cell.issued, err)
		}
		cell.acked, cell.issued = got, max(got, cell.issued)
		cell.flushed = min(cell.flushed, got)
	}
}

func (h *history) own() *host   { return h.p.nodes[h.owner] }
func (h *history) other() *host { return h.p.nodes[h.owner^1] }

func (h *history) regrant(n *host) {
	n.grant(control.Grant{Mode: control.Paired, Epoch: h.epoch, Session: h.session, Members: 3, Volumes: owned(h.owner, 3)})
}

func (h *history) freeze(n *host) {
	n.grant(control.Grant{Mode: control.Frozen, Epoch: h.epoch, Members: 3, Volumes: owned(h.owner, 3)})
}

// alone makes the owner solo.
func (h *history) alone() {
	h.freeze(h.own())
	h.epoch++
	h.own().solo(h.epoch)
}

// join brings the other node up to date; interrupted is called once while the copy runs.
func (h *history) join(interrupted func()) {
	h.session++
	o, j := h.own(), h.other()
	only := control.Set(1 << h.owner)
	if interrupted != nil {
		o.grant(control.Grant{Mode: control.Solo, Epoch: h.epoch, Session: h.session, Members: only, Volumes: owned(h.owner, only)})
		j.grant(control.Grant{Mode: control.Joining, Epoch: h.epoch, Session: h.session, Members: only, Volumes: owned(h.owner, only)})
		if err := o.m.Copy(h.session); err != nil {
			h.t.Fatal(err)
		}
		await(h.t, "the copy began", func() bool { return j.vol().Status().LegState == "inconsistent" })
		interrupted()
		o.solo(h.epoch)
		h.work(20)
		h.session++
	}
	h.p.rejoin(h.owner, h.epoch, h.session)
	h.epoch += 2
}

// faults are the steps of a history. Each ends paired with guests running.
var faults = []struct {
	name string
	do   func(h *history)
}{
	{"lane lost", func(h *history) {
		if l := h.own().m.link.Lane(); l != nil {
			l.Close(errors.New("cut by the test"))
		}
	}},
	{"peer's daemon killed", func(h *history) {
		h.other().crash()
		h.other().start()
		h.regrant(h.other())
	}},
	{"owner's daemon killed", func(h *history) {
		h.own().crash()
		h.own().start()
		h.regrant(h.own())
	}},
	{"both daemons killed", func(h *history) {
		h.own().crash()
		h.other().crash()
		h.own().start()
		h.other().start()
		h.regrant(h.other())
		h.regrant(h.own())
	}},
	{"peer's power", func(h *history) {
		h.other().powerCut(h.r.Uint64() >> 8)
		h.alone()
		h.work(50)
		h.other().start()
		h.join(nil)
	}},
	{"owner's power", func(h *history) {
		h.own().crashing(func() { h.stopGuests() })
		h.own().drive.cut(h.r.Uint64())
		h.own().reboot(h.r.Uint64() >> 8)
		h.freeze(h.other())
		h.owner ^= 1
		h.epoch++
		h.own().solo(h.epoch)
		h.verify(true)
		h.startGuests()
		h.work(50)
		h.other().start()
		h.join(nil)
	}},
	{"cable out, owner goes on", func(h *history) {
		h.freeze(h.other())
		h.alone()
		h.work(50)
		h.join(nil)
	}},
	{"cable out, the other goes on", func(h *history) {
		h.freeze(h.own())
		h.stopGuests()
		h.freeze(h.other())
		h.owner ^= 1
		h.epoch++
		h.own().solo(h.epoch)
		h.verify(true)
		h.startGuests()
		h.work(50)
		h.join(nil)
	}},
	{"session lost and found", func(h *history) {
		h.freeze(h.own())
		h.freeze(h.other())
		h.session++
		h.p.resolve(h.owner, h.epoch, h.session)
		h.epoch += 2
	}},
	{"power of both", func(h *history) {
		h.own().crashing(func() { h.stopGuests() })
		h.other().crash()
		for _, n := range h.p.nodes {
			n.drive.cutWhole(h.r.Uint64())
			n.reboot(h.r.Uint64() >> 8)
			n.start()
		}
		h.session++
		h.p.resolve(h.owner, h.epoch, h.session)
		h.epoch += 2
		h.verify(false)
		h.startGuests()
	}},
	{"solo daemon killed", func(h *history) {
		h.other().powerCut(h.r.Uint64() >> 8)
		h.alone()
		h.work(30)
		h.own().crash()
		h.own().start()
		h.own().solo(h.epoch)
		h.work(30)
		h.other().start()
		h.join(nil)
	}},
	{"planned stop while solo", func(h *history) {
		h.freeze(h.other())
		h.alone()
		h.work(30)
		h.own().m.Close()
		h.own().start()
		h.own().solo(h.epoch)
		h.work(30)
		h.join(nil)
	}},
	{"target's power during the copy", func(h *history) {
		h.other().powerCut(h.r.Uint64() >> 8)
		h.alone()
		h.work(100)
		h.other().start()
		h.join(func() {
			h.other().powerCut(h.r.Uint64() >> 8)
			h.other().start()
		})
	}},
	{"moved", func(h *history) { h.move() }},
	{"owner's daemon killed during a drain", func(h *history) {
		if _, err := h.own().m.Drain([]string{testVolume}); err != nil {
			h.t.Fatal(err)
		}
		h.own().crash()
		h.own().start()
		h.regrant(h.own())
	}},
	{"source's daemon killed during the copy", func(h *history) {
		h.freeze(h.other())
		h.alone()
		h.work(100)
		h.join(func() {
			h.own().crash()
			h.own().start()
		})
	}},
}

// crashing is crash; before the devices are gone, nothing; after it the guests are stopped too, as they die with
// their node.
func (h *host) crashing(guests func()) {
	h.crash()
	guests()
}

func (h *host) reboot(seed uint64) {
	h.boot = fmt.Sprintf("%032x", seed)
	h.seq = 0
}

// Proves: P1-P4 of replication.md under random faults; TestBug06, 08, 10 of its section 16 in part.
func TestRandomHistories(t *testing.T) {
	seeds := []uint64{1, 2}
	if *historySeed != 0 {
		seeds = []uint64{*historySeed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { live(t, seed) })
	}
}

func live(t *testing.T, seed uint64) {
	p := startPair(t)
	h := &history{t: t, p: p, r: rand.New(rand.NewPCG(seed, 42)), epoch: 1, session: 11}
	p.serve(1, 11)
	h.startGuests()
	for step := range *historySteps {
		h.work(60)
		f := faults[h.r.IntN(len(faults))]
		t.Logf("step %d: %s (owner %c)", step, f.name, 'a'+h.owner)
		f.do(h)
		h.work(20)
		if t.Failed() {
			break
		}
	}
	h.stopGuests()
	p.quiet()
	h.verify(true)
	p.sameLegs()
	if n := p.differences.Load(); n != 0 {
		t.Errorf("%d proofs failed: the copies before them missed something", n)
	}
	if t.Failed() {
		t.Logf("repeat: go test ./replication/internal/mirror -run TestRandomHistories -history.seed %d", seed)
	}
}
