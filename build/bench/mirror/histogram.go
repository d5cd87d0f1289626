package main

import (
	"maps"
	"slices"
	"time"
)

// histogram counts operations by latency; its bins are fio's, 1.6 % wide.
type histogram struct {
	bins map[time.Duration]uint64
	max  time.Duration
}

func (h *histogram) add(other histogram) {
	if h.bins == nil {
		h.bins = map[time.Duration]uint64{}
	}
	for at, n := range other.bins {
		h.bins[at] += n
	}
	h.max = max(h.max, other.max)
}

func (h histogram) total() uint64 {
	var sum uint64
	for _, n := range h.bins {
		sum += n
	}
	return sum
}

// percentile is the latency that permille of 1000 operations do not exceed, as far as bins can tell; 0 of none.
func (h histogram) percentile(permille uint64) time.Duration {
	need := (h.total()*permille + 999) / 1000
	var seen uint64
	for _, at := range slices.Sorted(maps.Keys(h.bins)) {
		if seen += h.bins[at]; seen >= need {
			return min(at, h.max) // a bin's name is its middle
		}
	}
	return 0
}

func (h histogram) between(from, to time.Duration) uint64 {
	var sum uint64
	for at, n := range h.bins {
		if at >= from && at < to {
			sum += n
		}
	}
	return sum
}

// plateau is what a histogram says of delayed acknowledgements: Linux sends one after 40 ms when nothing else carries
// it, and two of them in a row make 88 ms. A protocol that lets its peer wait for one has a heap of operations there, as
// QEMU's NBD client over TCP does at depth 32.
type plateau struct {
	p50    time.Duration
	total  uint64
	inside uint64 // 38 to 46 ms and 83 to 93 ms
	heap   uint64 // 38 to 60 ms: timers are late on a busy machine, and the rest of the operation comes after
	before uint64 // as wide, below it
}

// Beyond this median a heap at 40 ms may be the load itself.
const plateauP50 = 5 * time.Millisecond

func (h histogram) plateau() plateau {
	const ms = time.Millisecond
	return plateau{
		p50: h.percentile(500), total: h.total(),
		inside: h.between(38*ms, 46*ms) + h.between(83*ms, 93*ms),
		heap:   h.between(38*ms, 60*ms), before: h.between(16*ms, 38*ms),
	}
}

// seen is the assertion of the table: one operation in 10,000 is the most. Where every second operation waits so long,
// the median is not below the limit any more, and the assertion would be silent about the worst case: that is one too.
func (p plateau) seen() bool {
	if p.p50 < plateauP50 {
		return p.inside*10_000 > p.total
	}
	return p.heap*2 > p.total
}

// heaped asks the same without what a busy machine does, and is the gate. A busy machine delays operations by any time:
// its tail becomes thinner to the right. Delayed acknowledgements leave a valley and then a heap. One stall delays all
// operations that are under way at once, so a heap is more than a few of those.
func (p plateau) heaped(depth int) bool {
	if p.p50 >= plateauP50 {
		return p.heap*2 > p.total
	}
	return p.heap*10_000 > p.total && p.heap > 2*p.before && p.heap >= max(heapMin, heapStalls*uint64(depth))
}

const (
	heapMin    = 10
	heapStalls = 4
)
