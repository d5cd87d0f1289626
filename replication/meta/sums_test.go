package meta

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"duet/replication/block"
	"duet/replication/block/crashdev"
)

// fill writes blocks with content of their own and says so in the table, as the engine does.
func (r *logRig) fill(from, n int64, salt byte) {
	r.t.Helper()
	first, last := from/BlocksPerExtent, (from+n-1)/BlocksPerExtent
	if err := r.m.Begin(first, last); err != nil {
		r.t.Fatal(err)
	}
	defer r.m.End(first, last)
	buf := block.Get(int(n * BlockBytes))
	defer block.Put(buf)
	sums := make([]uint32, n)
	for b := range n {
		p := buf[b*BlockBytes:][:BlockBytes]
		for i := range p {
			p[i] = byte(from+b) ^ salt
		}
		sums[b] = SumOf(p)
	}
	if err := r.m.log.data.WriteAt(buf, from*BlockBytes, block.Cached); err != nil {
		r.t.Fatal(err)
	}
	r.m.SetSums(from, sums)
}

// wrong lists blocks whose sum is known and is not that of the data; known is how many are known.
func wrong(t testing.TB, m *Meta, data *crashdev.Device, extents ...int64) (bad []int64, known int) {
	t.Helper()
	buf := block.Get(BlockBytes)
	defer block.Put(buf)
	for _, e := range extents {
		from := e * BlocksPerExtent
		sums := make([]uint32, min(BlocksPerExtent, m.Dirty().Blocks()-from))
		m.Sums(from, sums)
		for i, sum := range sums {
			if sum == SumUnknown {
				continue
			}
			known++
			if err := data.ReadAt(buf, (from+int64(i))*BlockBytes); err != nil {
				t.Fatal(err)
			}
			if SumOf(buf) != sum {
				bad = append(bad, from+int64(i))
			}
		}
	}
	return bad, known
}

// A leg that was formatted over zeroes knows all its blocks; another one knows none.
func TestSumsOfANewLeg(t *testing.T) {
	const size = ExtentBytes + 3*BlockBytes
	for _, flags := range []uint16{0, FlagZeroed} {
		dev, data := crashdev.New(SizeFor(size)), crashdev.New(size)
		if err := Format(dev, Superblock{Site: id(1), Volume: id(2), VolumeBytes: size, Flags: flags}); err != nil {
			t.Fatal(err)
		}
		want := 0
		if flags == FlagZeroed {
			want = size / BlockBytes
		}
		if bad, known := wrong(t, open(t, dev), data, 0, 1); len(bad) > 0 || known != want {
			t.Errorf("flags %d: %d known, want %d; wrong are %v", flags, known, want, bad)
		}
	}
}

func TestSumsOutliveACleanClose(t *testing.T) {
	r := newLogRig(t, nil)
	r.fill(5, 3, 1)
	r.fill(BlocksPerExtent-1, 2, 1) // over the end of an extent
	r.fill(5, 1, 2)
	if err := r.m.CloseLog(); err != nil {
		t.Fatal(err)
	}
	m := open(t, r.meta.CutPick(nothing))
	if bad, known := wrong(t, m, r.data, 0, 1); len(bad) > 0 || known != 5 {
		t.Errorf("%d known; wrong are %v", known, bad)
	}
	if m.LostSums() != 0 {
		t.Errorf("%d pages lost", m.LostSums())
	}
}

// What is learned of cold extents is there after a power cut once meta was synced, and never instead of what was known.
func TestLearn(t *testing.T) {
	r := newLogRig(t, nil)
	r.fill(1, 1, 7)
	if !r.m.Learn(0, []uint32{11, 12, 13}) || r.m.Learn(0, []uint32{21, 22, 23}) {
		t.Error("learned is not told apart")
	}
	got := make([]uint32, 4)
	r.m.Sums(0, got)
	if got[0] != 11 || got[1] == 12 || got[2] != 13 || got[3] != SumUnknown {
		t.Errorf("%v", got)
	}
	r.m.Learn(9*BlocksPerExtent, []uint32{31})
	if err := r.m.StoreSums(9); err != nil {
		t.Fatal(err)
	}
	if err := r.meta.Sync(); err != nil {
		t.Fatal(err)
	}
	m := open(t, r.meta.CutPick(nothing))
	if m.Sums(9*BlocksPerExtent, got[:1]); got[0] != 31 {
		t.Errorf("%d was learned", got[0])
	}
}

// A page that rotted, or that its map page is not about, knows nothing.
func TestADamagedSumPageIsUnknown(t *testing.T) {
	r := newLogRig(t, nil)
	r.fill(3, 1, 1)
	r.fill(BlocksPerExtent+3, 1, 1)
	if err := r.m.CloseLog(); err != nil {
		t.Fatal(err)
	}
	buf := block.Alloc(BlockBytes)
	for at := range int64(BlockBytes) {
		if at%97 != 0 && at != 12 {
			continue
		}
		d := r.meta.Cut(1)
		if err := d.ReadAt(buf, sumPageOffset(0)); err != nil {
			t.Fatal(err)
		}
		buf[at] ^= 4
		if err := d.WriteAt(buf, sumPageOffset(0), block.Durable); err != nil {
			t.Fatal(err)
		}
		m := open(t, d)
		if _, known := wrong(t, m, r.data, 0, 1); known != 1 || m.LostSums() != 1 {
			t.Fatalf("byte %d: %d known, %d pages lost", at, known, m.LostSums())
		}
	}
}

// A log that was lost says nothing about where sums may be stale, so none is known, over further crashes too, until what
// they are said to be was written.
func TestALostLogForgetsTheSums(t *testing.T) {
	r := newLogRig(t, nil)
	r.fill(3, 1, 1)
	cooled(t, r.m)
	cut := r.meta.CutPick(func(crashdev.Pending) bool { return true })
	if _, known := wrong(t, open(t, cut), r.data, 0); known != 1 {
		t.Fatalf("%d known before", known)
	}
	for at := range int64(logBlocksDefault) { // a ring of another leg
		if err := cut.WriteAt(block.Alloc(BlockBytes), logOffset+at*BlockBytes, block.Durable); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(t, cut).Change(func(s *Superblock) { s.LogFirst = 1 << 40 }); err != nil {
		t.Fatal(err)
	}
	_ = cut.Zero(logOffset, BlockBytes, block.Durable)
	lost := func() *Meta {
		m := open(t, cut)
		m.found.whole = false // as replay says when the ring does not begin where it must
		if err := m.StartLog(r.data, nil); err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := lost()
	if _, known := wrong(t, m, r.data, 0); known != 0 {
		t.Fatalf("%d known of a lost log", known)
	}
	again := open(t, cut.CutPick(nothing))
	if err := again.StartLog(r.data, nil); err != nil {
		t.Fatal(err)
	}
	if _, known := wrong(t, again, r.data, 0); known != 0 {
		t.Fatalf("%d known after one more crash", known)
	}
	if err := m.Reconciled(); err != nil {
		t.Fatal(err)
	}
	after := open(t, cut.CutPick(nothing))
	if _, known := wrong(t, after, r.data, 0); known != 0 || after.Super().Flags&FlagLogLost != 0 {
		t.Fatalf("%d known when the flag is gone", known)
	}
}

// Proves: disk-format.md section 5, O2: whatever a power cut of both devices leaves, a sum that is known is that of the block on
// the medium. Reads load pages, and pages are dropped, meanwhile.
func TestCrashKnownSumsAreTrue(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { sumLife(t, seed) })
	}
}

func sumLife(t *testing.T, seed uint64) {
	r := newLogRig(t, nil)
	random, chance := rand.New(rand.NewPCG(seed, 5)), rand.New(rand.NewPCG(seed, 6))
	var ops atomic.Uint64
	var cutting sync.Mutex
	cuts, checked := 0, 0
	const extents = 100 // more than the slots
	all := make([]int64, extents)
	for e := range all {
		all[e] = int64(e)
	}
	check := func(crashdev.Op) error {
		ops.Add(1)
		cutting.Lock()
		defer cutting.Unlock()
		if chance.IntN(12) > 0 {
			return nil
		}
		at := ops.Load()
		data, meta := r.data.Cut(chance.Uint64()), r.meta.Cut(chance.Uint64())
		if ops.Load() != at {
			return nil // not of one moment
		}
		m, err := Open(meta)
		if err != nil {
			t.Errorf("after a cut: %v", err)
			return nil
		}
		bad, known := wrong(t, m, data, all...)
		if len(bad) > 0 {
			t.Errorf("cut %d: wrong sums of blocks %v", cuts, bad)
		}
		cuts++
		checked += known
		return nil
	}
	r.meta.Hook(check)
	r.data.Hook(check)
	for i := range 600 {
		e := random.Int64N(extents)
		if random.IntN(2) == 0 {
			e %= 10
		}
		from := e*BlocksPerExtent + random.Int64N(8)
		r.fill(from, 1+random.Int64N(3), byte(i))
		switch random.IntN(10) {
		case 0:
			r.m.Cool()
		case 1:
			r.m.sums.mu.Lock()
			r.m.sums.drop(20)
			r.m.sums.mu.Unlock()
		case 2:
			if bad, _ := wrong(t, r.m, r.data, e); len(bad) > 0 {
				t.Fatalf("write %d: wrong sums of blocks %v while it runs", i, bad)
			}
		}
	}
	waitFor(t, "the end of evictions", func() bool {
		r.m.log.mu.Lock()
		defer r.m.log.mu.Unlock()
		return !r.m.log.evicting && !r.m.log.writing
	})
	if bad, _ := wrong(t, r.m, r.data, all...); len(bad) > 0 {
		t.Errorf("wrong sums of blocks %v", bad)
	}
	if cuts < 10 || checked < 100 {
		t.Errorf("only %d cuts with %d known sums", cuts, checked)
	}
}

// A page that was stored and dropped while somebody read it is read again.
func TestAPageStoredWhileItIsRead(t *testing.T) {
	r := newLogRig(t, nil)
	const e = 3
	r.m.Learn(e*BlocksPerExtent, []uint32{7})
	store := func() {
		if err := r.m.StoreSums(e); err != nil {
			t.Fatal(err)
		}
		r.m.sums.mu.Lock()
		r.m.sums.drop(1)
		r.m.sums.mu.Unlock()
	}
	store()
	reads := 0
	r.meta.Hook(func(op crashdev.Op) error {
		if op.Kind == crashdev.Read && op.Off == sumPageOffset(e) {
			if reads++; reads == 1 {
				r.m.SetSums(e*BlocksPerExtent, []uint32{8}) // reads it, too
				store()
			}
		}
		return nil
	})
	got := make([]uint32, 1)
	for range 2 {
		if r.m.Sums(e*BlocksPerExtent, got); got[0] != 8 {
			t.Fatalf("sum %d, want 8", got[0])
		}
	}
}

// A page that was written for its sums, and is not durable, does not count as stored for its dirty bits.
func TestStoringSumsHidesNoDirtyBits(t *testing.T) {
	r := newLogRig(t, nil)
	r.m.Learn(3*BlocksPerExtent, []uint32{7})
	r.m.Dirty().Set(3*BlocksPerExtent+5, 1)
	if err := r.m.StoreSums(3); err != nil {
		t.Fatal(err)
	}
	if err := r.m.StoreDirty(); err != nil {
		t.Fatal(err)
	}
	if m := open(t, r.meta.CutPick(nothing)); !m.Dirty().Has(3*BlocksPerExtent + 5) {
		t.Error("a dirty bit was told to be durable and is not")
	}
}
