package meta

import (
	"math/rand/v2"
	"sync"
	"testing"
)

func TestBitmapAgainstModel(t *testing.T) {
	const blocks = 3*blocksPerGroup - 1000
	b := NewBitmap(blocks)
	model := make([]bool, blocks)
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		from := r.Int64N(blocks + 1)
		n := min(r.Int64N(400), blocks-from)
		set := r.IntN(2) == 0
		var want int64
		for i := from; i < from+n; i++ {
			if model[i] != set {
				want++
			}
			model[i] = set
		}
		var got int64
		if set {
			got = b.Set(from, n)
		} else {
			got = b.Clear(from, n)
		}
		if got != want {
			t.Fatalf("%d+%d set %v: %d changed, want %d", from, n, set, got, want)
		}
	}
	var count int64
	for i, in := range model {
		if b.Has(int64(i)) != in {
			t.Fatalf("block %d", i)
		}
		if in {
			count++
		}
	}
	if b.Count() != count {
		t.Fatalf("count %d, want %d", b.Count(), count)
	}
	var walked int64
	for at := int64(0); ; {
		start, n := b.Next(at, 77)
		if n == 0 {
			if start != blocks {
				t.Fatalf("the end is %d", start)
			}
			break
		}
		for i := start; i < start+n; i++ {
			if !model[i] {
				t.Fatalf("run %d+%d holds clean block %d", start, n, i)
			}
		}
		for i := at; i < start; i++ {
			if model[i] {
				t.Fatalf("block %d skipped", i)
			}
		}
		walked += n
		at = start + n
	}
	if walked != count {
		t.Fatalf("walked %d of %d", walked, count)
	}
}

func TestBitmapNextIn(t *testing.T) {
	const blocks = 1000
	b := NewBitmap(blocks)
	for _, run := range [][2]int64{{0, 1}, {63, 2}, {128, 64}, {300, 200}, {999, 1}} {
		b.Set(run[0], run[1])
	}
	for from := range int64(blocks + 1) {
		for end := from; end <= blocks; end++ {
			start, n := int64(end), int64(0)
			for at := from; at < end; at++ {
				if b.Has(at) && n == 0 {
					start = at
				}
				if b.Has(at) {
					n++
				} else if n > 0 {
					break
				}
			}
			if gotStart, gotN := b.NextIn(from, end); gotN != n || n > 0 && gotStart != start {
				t.Fatalf("%d..%d: %d+%d, want %d+%d", from, end, gotStart, gotN, start, n)
			}
		}
	}
}

func TestBitmapConcurrent(t *testing.T) {
	const blocks = 100_000
	b := NewBitmap(blocks)
	var wg sync.WaitGroup
	for w := range int64(4) {
		wg.Go(func() {
			for i := w; i < blocks; i += 4 {
				b.Set(i, 1)
				if i%8 < 4 {
					b.Clear(i, 1)
				}
				b.Next(i, 10)
			}
		})
	}
	wg.Wait()
	if b.Count() != blocks/2 {
		t.Fatalf("count %d", b.Count())
	}
}

func TestBitmapBounds(t *testing.T) {
	b := NewBitmap(100)
	for _, c := range [][2]int64{{-1, 1}, {0, 101}, {100, 1}, {1, -1}, {1 << 62, 1 << 62}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v did not panic", c)
				}
			}()
			b.Set(c[0], c[1])
		}()
	}
	if b.Set(100, 0) != 0 {
		t.Error("nothing at the end")
	}
}

// What the other leg has durably is in the end clean on disk, too.
func TestCoveredBlocksBecomeCleanOnDisk(t *testing.T) {
	dev := formatted(t)
	m := open(t, dev)
	m.Dirty().Set(10, 5)
	for i, want := range []int64{5, 5, 0} {
		switch i {
		case 1:
			m.Acked(10, 5)
		case 2:
			m.Covered(m.Mark())
		}
		if err := m.StoreDirty(); err != nil {
			t.Fatal(err)
		}
		if got := open(t, dev).Dirty().Count(); got != want {
			t.Fatalf("step %d: %d dirty on disk, want %d", i, got, want)
		}
	}
	if m.Dirty().Count() != 0 {
		t.Fatal("dirty in RAM")
	}
}

// Merged over their gaps when there are too many: more dirty than needed, never less.
func TestAckedRunsAreBounded(t *testing.T) {
	var a acked
	for i := range int64(ackedRunsMax + 100) {
		a.add(i*2, 1)
	}
	if len(a.runs) > ackedRunsMax {
		t.Fatalf("%d runs", len(a.runs))
	}
	words := make([]uint64, (2*ackedRunsMax+200)/64+1)
	a.addTo(words, 0)
	for i := range int64(ackedRunsMax + 100) {
		if b := i * 2; words[b/64]>>(b%64)&1 == 0 {
			t.Fatalf("block %d forgotten", b)
		}
	}
}

func FuzzMapPage(f *testing.F) {
	s := full()
	p := page{sequence: 1, epoch: s.GrantEpoch}
	buf := make([]byte, BlockBytes)
	p.encode(buf, s.Leg, 2, make([]uint64, wordsPerGroup), unknownRecords())
	f.Add(buf, true)
	f.Add([]byte(pageMagic), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, in []byte, mend bool) {
		page := make([]byte, BlockBytes)
		copy(page, in)
		if mend {
			copy(page, pageMagic)
			copy(page[16:24], s.Leg[:8])
			page[24], page[25], page[26], page[27] = 2, 0, 0, 0
			sum := crcOf(page, offPageCRC)
			page[4], page[5], page[6], page[7] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		}
		got, dirty, records, err := decodePage(page, s.Leg, 2)
		if err != nil {
			if mend {
				t.Fatalf("a page with magic, CRC, leg and group: %v", err)
			}
			return
		}
		out := make([]byte, BlockBytes)
		got.encode(out, s.Leg, 2, dirty, records)
		for i := offExtents; i < BlockBytes; i++ {
			if out[i] != page[i] {
				t.Fatalf("byte %d", i)
			}
		}
	})
}
