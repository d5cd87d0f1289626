package meta

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"duet/replication/block"
	"duet/replication/block/crashdev"
)

// logRig is a leg with a log of the smallest size over two devices in memory.
type logRig struct {
	t          testing.TB
	meta, data *crashdev.Device
	m          *Meta
}

const logExtents = 150 // more than twice the slots

func newLogRig(t testing.TB, change func(*Superblock)) *logRig {
	t.Helper()
	size := int64(logExtents) * ExtentBytes
	r := &logRig{t: t, meta: crashdev.New(SizeFor(size)), data: crashdev.New(size)}
	if err := Format(r.meta, Superblock{Site: id(1), Volume: id(2), VolumeBytes: uint64(size), LogSlots: logSlotsMin}); err != nil {
		t.Fatal(err)
	}
	r.open()
	if err := r.m.Change(func(s *Superblock) {
		s.Flags |= FlagOpen
		if change != nil {
			change(s)
		}
	}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *logRig) open() {
	r.t.Helper()
	r.m = open(r.t, r.meta)
	if err := r.m.StartLog(r.data, nil); err != nil {
		r.t.Fatal(err)
	}
}

// write writes one block of an extent, as the engine does.
func (r *logRig) write(e int64) error {
	if err := r.m.Begin(e, e); err != nil {
		return err
	}
	defer r.m.End(e, e)
	buf := block.Get(BlockBytes)
	defer block.Put(buf)
	return r.data.WriteAt(buf, e*ExtentBytes, block.Cached)
}

func (r *logRig) hot() []int64 {
	r.t.Helper()
	hot, known := r.m.Hot()
	if !known {
		r.t.Fatal("the log is lost")
	}
	return hot
}

// reopened is the leg after a power cut of the meta device, with whatever the choice lets arrive.
func (r *logRig) reopened(pick func(crashdev.Pending) bool) *Meta {
	r.t.Helper()
	m := open(r.t, r.meta.CutPick(pick))
	if err := m.StartLog(crashdev.New(r.data.Size()), nil); err != nil {
		r.t.Fatal(err)
	}
	return m
}

func nothing(crashdev.Pending) bool { return false }

// metaWrites counts writes of the meta device from here on.
func (r *logRig) metaWrites() *int {
	n := new(int)
	var mu sync.Mutex
	r.meta.Hook(func(op crashdev.Op) error {
		if op.Kind == crashdev.Write {
			mu.Lock()
			*n++
			mu.Unlock()
		}
		return nil
	})
	return n
}

func TestAHotExtentCostsNoWrite(t *testing.T) {
	r := newLogRig(t, nil)
	n := r.metaWrites()
	for range 100 {
		for _, e := range []int64{3, 149, 3} {
			if err := r.write(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	if *n != 2 {
		t.Errorf("%d writes of meta for two extents", *n)
	}
	m := r.reopened(nothing)
	if hot, known := m.Hot(); !known || !slices.Equal(hot, []int64{3, 149}) {
		t.Errorf("hot %v, %v", hot, known)
	}
}

func TestACleanCloseLeavesNothingHot(t *testing.T) {
	r := newLogRig(t, nil)
	for e := range int64(40) {
		if err := r.write(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.m.CloseLog(); err != nil {
		t.Fatal(err)
	}
	if err := r.write(1); !errors.Is(err, ErrClosed) {
		t.Errorf("after the close: %v", err)
	}
	r.open()
	if r.m.Unclean() || len(r.hot()) != 0 {
		t.Errorf("unclean %v, hot %v", r.m.Unclean(), r.hot())
	}
	// The next use goes on behind it, and the blocks of before count no more.
	if err := r.m.Change(func(s *Superblock) { s.Flags |= FlagOpen }); err != nil {
		t.Fatal(err)
	}
	if err := r.write(77); err != nil {
		t.Fatal(err)
	}
	if hot, known := r.reopened(nothing).Hot(); !known || !slices.Equal(hot, []int64{77}) {
		t.Errorf("hot %v, %v", hot, known)
	}
}

// What was hot at a crash stays hot over further crashes, whatever is written meanwhile, until it is reconciled.
func TestSuspicionOutlivesCrashes(t *testing.T) {
	r := newLogRig(t, nil)
	for e := range int64(10) {
		if err := r.write(e); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		r.meta = r.meta.CutPick(nothing)
		r.open()
		if hot := r.hot(); len(hot) != 10 {
			t.Fatalf("hot %v", hot)
		}
		for e := int64(20); e < logExtents; e++ { // more than the log has room for
			if err := r.write(e); err != nil {
				t.Fatal(err)
			}
		}
		if hot, _ := r.reopened(nothing).Hot(); !hasAll(hot, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9) {
			t.Fatalf("hot %v", hot)
		}
		// A new life begins with all that was hot in the last one.
		for e := range int64(10) {
			if r.m.log.pinned[uint32(e)] == false {
				t.Fatalf("extent %d is not pinned", e)
			}
		}
		if err := r.m.Reconciled(); err != nil {
			t.Fatal(err)
		}
		cooled(t, r.m)
		for e := range int64(10) {
			if err := r.write(e); err != nil {
				t.Fatal(err)
			}
		}
		cooledBut(t, r, 10)
	}
}

func hasAll(set []int64, want ...int64) bool {
	return !slices.ContainsFunc(want, func(e int64) bool { return !slices.Contains(set, e) })
}

// cooled evicts until nothing is hot.
func cooled(t testing.TB, m *Meta) {
	t.Helper()
	waitFor(t, "a cold log", func() bool {
		m.Cool()
		m.log.mu.Lock()
		defer m.log.mu.Unlock()
		return len(m.log.slotOf) == 0
	})
}

// cooledBut lets everything go but extents 0 to n, by writing to them.
func cooledBut(t testing.TB, r *logRig, n int64) {
	t.Helper()
	waitFor(t, "a cold log", func() bool {
		for e := range n {
			if err := r.write(e); err != nil {
				t.Fatal(err)
			}
		}
		r.m.Cool()
		r.m.log.mu.Lock()
		defer r.m.log.mu.Unlock()
		return int64(len(r.m.log.slotOf)) == n
	})
}

func waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

// Classic bug 11: many cold extents at once on a small log neither deadlock nor stop.
func TestBug11LogStarvation(t *testing.T) {
	r := newLogRig(t, nil)
	var wg sync.WaitGroup
	for w := range uint64(16) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(w, 11))
			for range 600 {
				first := random.Int64N(logExtents - 3)
				last := first + random.Int64N(4)
				if err := r.m.Begin(first, last); err != nil {
					t.Error(err)
					return
				}
				r.m.End(first, last)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the log is stuck")
	}
	if err := r.m.Begin(0, logSlotsMin/(2*roomShare)); !errors.Is(err, ErrSpan) {
		t.Errorf("a request of a quarter of the log: %v", err)
	}
}

// Classic bug 1: when a metadata write fails, no write that waits for it is submitted, whichever write it is.
func TestBug1NoDataWithoutADurableLogEntry(t *testing.T) {
	for k := 1; ; k += 3 {
		r := newLogRig(t, nil)
		boom := errors.New("boom")
		r.meta.FailNth(k, crashdev.Write, boom)
		failed := false
		for i := range int64(3 * logExtents) {
			e := i * 7 % logExtents
			err := r.m.Begin(e, e)
			if err != nil {
				failed = true
				if !errors.Is(err, boom) {
					t.Fatalf("k %d: %v", k, err)
				}
				if err := r.m.Begin(e, e); err == nil {
					t.Fatalf("k %d: the log goes on after it failed", k)
				}
				break
			}
			if (i+int64(k))%40 == 0 {
				if hot, known := r.reopened(nothing).Hot(); !known || !slices.Contains(hot, e) {
					t.Fatalf("k %d: extent %d may be written, the log says %v", k, e, hot)
				}
			}
			r.m.End(e, e)
		}
		if !failed {
			if k < 10 {
				t.Fatalf("only %d writes of meta", k)
			}
			return
		}
	}
}

// truth follows which extents hold data that no completed sync covers.
type truth struct {
	mu      sync.Mutex
	written map[int64]int // extent: number of the last write submitted
	n       int
	covered int // every write up to here is durable
	flight  map[int64]int
}

// must is those, with the number of their last write.
func (u *truth) must() map[int64]int {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := map[int64]int{}
	for e, n := range u.written {
		if n > u.covered || u.flight[e] > 0 {
			out[e] = n
		}
	}
	return out
}

// watched is the data device, telling the truth.
type watched struct {
	*crashdev.Device
	u *truth
}

func (w watched) WriteAt(p []byte, off int64, d block.Durability) error {
	e := off / ExtentBytes
	w.u.mu.Lock()
	w.u.n++
	w.u.written[e] = w.u.n
	w.u.flight[e]++
	w.u.mu.Unlock()
	err := w.Device.WriteAt(p, off, d)
	w.u.mu.Lock()
	w.u.flight[e]--
	w.u.mu.Unlock()
	return err
}

func (w watched) Sync() error {
	w.u.mu.Lock()
	begun := w.u.n
	for e, k := range w.u.flight { // a write under way is not covered
		if k > 0 {
			begun = min(begun, w.u.written[e]-1)
		}
	}
	w.u.mu.Unlock()
	err := w.Device.Sync()
	if err == nil {
		w.u.mu.Lock()
		w.u.covered = max(w.u.covered, begun)
		w.u.mu.Unlock()
	}
	return err
}

// Proves: replication.md sections 5 and 6: after a power cut at any step of any write of meta, torn or whole, the log names
// every extent whose data may not be durable, also in a history of its own, where the dirty map has its blocks.
func TestCrashHotCoversWhatMayDiffer(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { crashLife(t, seed) })
	}
}

func crashLife(t *testing.T, seed uint64) {
	alone := seed%2 == 1
	r := newLogRig(t, func(s *Superblock) {
		if alone {
			s.Current, s.Base = Generation{2, 2}, Generation{1, 1}
		}
	})
	u := &truth{written: map[int64]int{}, flight: map[int64]int{}}
	r.m.log.data = watched{r.data, u}
	random := rand.New(rand.NewPCG(seed, 3))
	cuts := 0
	var choosing sync.Mutex
	chance := rand.New(rand.NewPCG(seed, 4))
	r.meta.Hook(func(op crashdev.Op) error {
		choosing.Lock()
		defer choosing.Unlock()
		if op.Kind != crashdev.Write || chance.IntN(4) > 0 {
			return nil
		}
		cuts++
		before := u.must()
		cut := r.meta.Cut(chance.Uint64())
		after := u.must()
		m, err := Open(cut)
		if err != nil {
			t.Errorf("after a cut: %v", err)
			return nil
		}
		if err := m.StartLog(crashdev.New(r.data.Size()), nil); err != nil {
			t.Error(err)
		}
		hot, known := m.Hot()
		for e, n := range before {
			if after[e] != n {
				continue // covered, or written once more, while the cut was made
			}
			if known && !slices.Contains(hot, e) {
				t.Errorf("extent %d may differ, hot are %v", e, hot)
			}
			if alone && !m.Dirty().Has(e*BlocksPerExtent) {
				t.Errorf("block of extent %d is not dirty in a history of its own", e)
			}
		}
		return nil
	})
	for range 400 {
		e := random.Int64N(logExtents)
		if random.IntN(2) == 0 {
			e %= 20
		}
		if err := r.m.Begin(e, e); err != nil {
			t.Fatal(err)
		}
		if alone {
			r.m.Dirty().Set(e*BlocksPerExtent, 1)
		}
		buf := block.Get(BlockBytes)
		if err := r.m.log.data.WriteAt(buf, e*ExtentBytes, block.Cached); err != nil {
			t.Fatal(err)
		}
		block.Put(buf)
		r.m.End(e, e)
		switch random.IntN(40) {
		case 0:
			r.m.Cool()
		case 1:
			if err := r.m.log.data.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	waitFor(t, "the end of evictions", func() bool {
		r.m.log.mu.Lock()
		defer r.m.log.mu.Unlock()
		return !r.m.log.evicting && !r.m.log.writing
	})
	if cuts < 20 {
		t.Errorf("only %d cuts", cuts)
	}
}

// Classic bug 2: a damaged block of the ring, wherever it is, costs no suspicion: what is hot is still named, or the log says
// that it is lost. The newest block is the exception that the handshake unites both logs for.
func TestBug2DamagedRing(t *testing.T) {
	r := newLogRig(t, nil)
	for i := range int64(3 * logExtents) {
		if err := r.write(i * 11 % logExtents); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the end of evictions", func() bool {
		r.m.log.mu.Lock()
		defer r.m.log.mu.Unlock()
		return !r.m.log.evicting && !r.m.log.writing
	})
	want, _ := r.reopened(nothing).Hot()
	newest := r.m.log.sequence
	blank := block.Alloc(BlockBytes)
	stale := block.Alloc(BlockBytes)
	if err := r.meta.ReadAt(stale, logOffset+BlockBytes); err != nil {
		t.Fatal(err)
	}
	lost := 0
	for place := int64(0); place < logBlocksDefault; place += 5 {
		if uint64(place) == newest%logBlocksDefault {
			continue
		}
		for _, with := range [][]byte{blank, stale} {
			dev := r.meta.CutPick(nothing)
			if err := dev.WriteAt(with, logOffset+place*BlockBytes, block.Durable); err != nil {
				t.Fatal(err)
			}
			m := open(t, dev)
			if err := m.StartLog(r.data, nil); err != nil {
				t.Fatal(err)
			}
			hot, known := m.Hot()
			if !known {
				lost++
			} else if !hasAll(hot, want...) {
				t.Fatalf("place %d: hot %v, want %v", place, hot, want)
			}
		}
	}
	t.Logf("%d hot, sequence %d, lost %d times", len(want), newest, lost)
}

// A table larger than one context: a replay of any part of the ring that is whole says exactly what the writer meant, and one
// that is not says so.
func TestReplayOfALargeTable(t *testing.T) {
	const slots, n = 3000, 40
	random := rand.New(rand.NewPCG(1, 2))
	table := slices.Repeat([]uint32{noExtent}, slots)
	var blocks []*logBlock
	var cursor uint32
	for s := uint64(1); s <= n; s++ {
		b := &logBlock{sequence: s, slots: slots, first: cursor}
		for range random.IntN(updatesMax) {
			u := slotUpdate{random.Uint32N(slots), random.Uint32N(9999)}
			b.updates = append(b.updates, u)
			table[u.slot] = u.extent
		}
		for i := range uint32(contextMax) {
			b.context = append(b.context, table[(cursor+i)%slots])
		}
		cursor = (cursor + contextMax) % slots
		blocks = append(blocks, b)
	}
	for gone := range n {
		ring := slices.Clone(blocks)
		ring[gone] = nil
		got := replayLog(ring, 1, slots)
		run := n - 1 - gone // blocks behind the hole
		switch {
		case gone == n-1: // the newest: as if it had never been written
			if !got.whole || got.sequence != n-1 {
				t.Errorf("newest gone: %v, %d", got.whole, got.sequence)
			}
		case got.whole != (run >= 4):
			t.Errorf("%d blocks behind the hole: whole is %v", run, got.whole)
		case got.whole && !slices.Equal(got.slots, table):
			t.Errorf("%d blocks behind the hole: another table", run)
		}
	}
}

// A log that is lost begins anew, and the leg goes on saying so over further crashes until it is reconciled.
func TestALostLogIsRemembered(t *testing.T) {
	r := newLogRig(t, nil)
	for e := range int64(5) {
		if err := r.write(e); err != nil {
			t.Fatal(err)
		}
	}
	r.meta = r.meta.CutPick(nothing)
	// The newest block names an extent that is not there: nothing of this log can be believed.
	b := logBlock{sequence: r.m.log.sequence + 1, slots: logSlotsMin, updates: []slotUpdate{{0, logExtents + 5}}}
	buf := block.Alloc(BlockBytes)
	b.encode(buf, r.m.Super().Leg)
	if err := r.meta.WriteAt(buf, logOffset+int64(b.sequence%logBlocksDefault)*BlockBytes, block.Durable); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.open()
		if _, known := r.m.Hot(); known {
			t.Fatal("the loss is forgotten")
		}
		if err := r.write(3); err != nil {
			t.Fatal(err)
		}
		r.meta = r.meta.CutPick(nothing)
	}
	r.open()
	if err := r.m.Reconciled(); err != nil {
		t.Fatal(err)
	}
	r.meta = r.meta.CutPick(nothing)
	r.open()
	if hot, known := r.m.Hot(); !known || !slices.Equal(hot, []int64{3}) {
		t.Errorf("hot %v, %v", hot, known)
	}
}

func FuzzLogBlock(f *testing.F) {
	b := logBlock{sequence: 9, slots: 64, updates: []slotUpdate{{3, 77}, {4, noExtent}}, first: 60, context: []uint32{1, 2, noExtent}}
	buf := make([]byte, BlockBytes)
	b.encode(buf, id(7))
	f.Add(buf)
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) != BlockBytes {
			return
		}
		b, err := decodeLogBlock(in, id(7), 9, 256, 64)
		if err != nil {
			return
		}
		out := make([]byte, BlockBytes)
		b.encode(out, id(7))
		back, err := decodeLogBlock(out, id(7), 9, 256, 64)
		if err != nil || back.sequence != b.sequence || !slices.Equal(back.updates, b.updates) || !slices.Equal(back.context, b.context) {
			t.Fatalf("%+v became %+v, %v", b, back, err)
		}
		replayLog([]*logBlock{&b}, 1, 64)
	})
}

// What is pinned after a crash leaves room to work, over as many crashes as it takes; when it cannot, the log says that it is
// lost, and goes on.
func TestPinsLeaveRoom(t *testing.T) {
	r := newLogRig(t, nil)
	held := int64(logSlotsMin - logSlotsMin/roomShare)
	for e := range held { // as many as may be hot, with writes under way
		if err := r.m.Begin(e, e); err != nil {
			t.Fatal(err)
		}
	}
	for life := range 4 {
		r.meta = r.meta.CutPick(nothing)
		r.open()
		hot, known := r.m.Hot()
		t.Logf("life %d: %d hot, known %v", life, len(hot), known)
		if life == 0 && (!known || int64(len(hot)) != held) {
			t.Errorf("%d of %d are hot, known %v", len(hot), held, known)
		}
		done := make(chan error, 1)
		go func() {
			for e := held; e < logExtents; e++ {
				if err := r.write(e); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("a cold extent gets no slot")
		}
	}
}

// Slots that are free again but not yet so on the ring are no reason to call a close unclean.
func TestCloseWithFreedSlots(t *testing.T) {
	r := newLogRig(t, nil)
	for e := range int64(20) {
		if err := r.write(e); err != nil {
			t.Fatal(err)
		}
	}
	r.m.log.mu.Lock()
	leaving := r.m.log.choose(true)
	r.m.log.mu.Unlock()
	if len(leaving) == 0 {
		t.Fatal("nobody leaves")
	}
	r.m.log.mu.Lock()
	for _, e := range leaving {
		r.m.log.freed = append(r.m.log.freed, r.m.log.slotOf[e])
		r.m.log.words[e].And(wordCount)
	}
	r.m.log.mu.Unlock()
	if err := r.m.CloseLog(); err != nil {
		t.Fatal(err)
	}
}

// A log that dies in the background says so, also when nobody waits for it (O3).
func TestADyingLogTellsTheLeg(t *testing.T) {
	r := newLogRig(t, nil)
	told := make(chan error, 1)
	r.m.log.failed = func(err error) { told <- err }
	if err := r.write(1); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	r.meta.FailNth(1, crashdev.Write, boom)
	waitFor(t, "the failure", func() bool {
		r.m.Cool()
		select {
		case err := <-told:
			return errors.Is(err, boom)
		default:
			return false
		}
	})
}
