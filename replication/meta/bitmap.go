package meta

import (
	"fmt"
	"math/bits"
	"sync/atomic"
)

// blocksPerGroup is what one map page covers.
const blocksPerGroup = BlocksPerExtent * ExtentsPerGroup

// Bitmap is a set of 4 KiB blocks, safe for concurrent use without a lock: the data path sets bits while the
// resync walks them. A run of blocks changes word by word, so another goroutine may see a part of it; the
// overlap lock of the engine keeps apart those to whom that matters. Ranges outside the capacity panic.
type Bitmap struct {
	blocks  int64
	words   []uint64
	count   atomic.Int64
	changed []atomic.Bool // per map page: something changed since it was taken for storing
}

// NewBitmap makes an empty set for that many blocks.
func NewBitmap(blocks int64) *Bitmap {
	return &Bitmap{
		blocks:  blocks,
		words:   make([]uint64, (blocks+63)/64),
		changed: make([]atomic.Bool, (blocks+blocksPerGroup-1)/blocksPerGroup),
	}
}

// Blocks is the capacity.
func (b *Bitmap) Blocks() int64 { return b.blocks }

// Count is the number of blocks in the set.
func (b *Bitmap) Count() int64 { return b.count.Load() }

// Has says whether a block is in the set.
func (b *Bitmap) Has(block int64) bool {
	b.bounds(block, 1)
	return atomic.LoadUint64(&b.words[block/64])>>(block%64)&1 == 1
}

// Set adds n blocks from block from and returns how many were new.
func (b *Bitmap) Set(from, n int64) int64 {
	added := b.each(from, n, func(word *uint64, mask uint64) int {
		return bits.OnesCount64(mask &^ atomic.OrUint64(word, mask))
	})
	b.count.Add(added)
	return added
}

// Clear removes n blocks and returns how many were there.
func (b *Bitmap) Clear(from, n int64) int64 {
	removed := b.each(from, n, func(word *uint64, mask uint64) int {
		return bits.OnesCount64(mask & atomic.AndUint64(word, ^mask))
	})
	b.count.Add(-removed)
	return removed
}

// Take empties the set and tells its runs. It looks only at map pages of blocks that were set or cleared since the last Take, so
// that what it costs follows from what is in the set, not from the capacity; for sets of which no map page is stored.
func (b *Bitmap) Take(run func(from, n int64)) {
	for g := range b.changed {
		if !b.changed[g].Swap(false) {
			continue
		}
		end := min(int64(g+1)*blocksPerGroup, b.blocks)
		for at := int64(g) * blocksPerGroup; at < end; {
			from, n := b.NextIn(at, end)
			if n == 0 {
				break
			}
			run(from, n)
			b.Clear(from, n)
			at = from + n
		}
	}
}

// Next is the first run of blocks in the set at or after from, cut at limit blocks; n = 0: there is none.
func (b *Bitmap) Next(from, limit int64) (start, n int64) {
	start = b.scan(max(from, 0), b.blocks, false)
	if start >= b.blocks || limit <= 0 {
		return b.blocks, 0
	}
	return start, min(b.scan(start, b.blocks, true)-start, limit)
}

// NextIn is the first run of blocks in the set within [from, end), cut at end; n = 0: there is none. It looks at nothing
// from end on, however large the map.
func (b *Bitmap) NextIn(from, end int64) (start, n int64) {
	b.bounds(from, max(end-from, 0))
	start = b.scan(from, end, false)
	return start, max(b.scan(start, end, true)-start, 0)
}

// scan is the first block at or after from that is in the set, or, inverted, that is not; end if none is before it.
func (b *Bitmap) scan(from, end int64, inverted bool) int64 {
	for from < end {
		word := atomic.LoadUint64(&b.words[from/64])
		if inverted {
			word = ^word
		}
		if word >>= from % 64; word != 0 {
			return min(from+int64(bits.TrailingZeros64(word)), end)
		}
		from += 64 - from%64
	}
	return end
}

// each applies f to the words of a run and marks the map pages where it changed something.
func (b *Bitmap) each(from, n int64, f func(word *uint64, mask uint64) int) int64 {
	b.bounds(from, n)
	var total int64
	for n > 0 {
		in := from % 64
		piece := min(64-in, n)
		mask := ^uint64(0) >> (64 - piece) << in
		if k := f(&b.words[from/64], mask); k > 0 {
			total += int64(k)
			b.changed[from/blocksPerGroup].Store(true)
		}
		from, n = from+piece, n-piece
	}
	return total
}

func (b *Bitmap) bounds(from, n int64) {
	if from < 0 || n < 0 || from > b.blocks || n > b.blocks-from {
		panic(fmt.Sprintf("meta.Bitmap: blocks %d+%d of %d", from, n, b.blocks))
	}
}

// copyOut copies the words of n blocks from a multiple of 64; what lies beyond the capacity is zero.
func (b *Bitmap) copyOut(from int64, out []uint64) {
	for i := range out {
		out[i] = 0
		if w := from/64 + int64(i); w < int64(len(b.words)) {
			out[i] = atomic.LoadUint64(&b.words[w])
		}
	}
}

// addWords adds the bits of whole words from a multiple of 64; those beyond the capacity are nobody's.
func (b *Bitmap) addWords(from int64, words []uint64) {
	for _, w := range words {
		if rest := b.blocks - from; rest <= 0 {
			return
		} else if rest < 64 {
			w &= 1<<rest - 1
		}
		b.count.Add(int64(bits.OnesCount64(w &^ atomic.OrUint64(&b.words[from/64], w))))
		from += 64
	}
}
