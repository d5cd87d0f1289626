package meta

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"duet/replication/block"
)

// activity is the log at work: a table of hot extents, of which the ring on disk always holds a superset.
//
// The fast way is one atomic add: an extent that is hot stays hot while writes to it are under way, because the same word
// counts them. Everything else goes through one lock and one writer of the ring at a time; who finds the ring idle writes
// it for all who wait (group commit), so a burst of cold extents costs one durable block for some dozens of them.
//
// An extent leaves in this order (rule O2): no write to it is under way and none can begin (leaving); the data is synced, a
// sync begun after the last of them ended; its map page is durable; a block of the ring frees its slot. What was found hot
// when the leg was opened is pinned: it leaves only after the engine said what became of it (Reconciled).
type activity struct {
	meta    *Meta
	data    block.Device
	blocks  uint64          // of the ring
	words   []atomic.Uint32 // by extent
	touched []atomic.Bool   // since the hand of eviction passed: it gets a second chance

	mu       sync.Mutex
	turned   *sync.Cond // the ring was written, an eviction ended, or the log did
	table    []uint32   // by slot: extent, as the ring says or is about to say
	slotOf   map[uint32]uint32
	free     []uint32
	pinned   map[uint32]bool
	clock    []uint32       // hot extents that are not pinned, in the order of the hand
	wanted   []uint32       // cold extents that somebody waits for
	waiting  map[uint32]int // and how many wait: it does not leave before they have begun
	freed    []uint32       // slots that the next block may free
	sequence uint64         // of the last block written
	cursor   uint32         // where the next context begins
	writing  bool
	evicting bool
	err      error // the log ended: nothing is submitted any more
	failed   func(error)
}

// The word of an extent: the writes under way, and whether it is hot.
const (
	wordHot     uint32 = 1 << 31
	wordLeaving uint32 = 1 << 30 // being evicted: nobody may begin
	wordCount          = wordLeaving - 1
)

const (
	// freeShare is the part of the slots that is kept free, one in so many: a cold write waits for one block, not for an
	// eviction (O9).
	freeShare = 20
	// roomShare of the slots, one in so many, is left for the life after a crash, in which what is hot now is pinned.
	roomShare = 4
	// evictAgain is when an eviction is tried again that found every extent written to or pinned.
	evictAgain = time.Millisecond
)

// ErrSpan: a request of more extents than one request may have in the activity log (O10).
var ErrSpan = errors.New("a request of too many extents for the activity log")

// StartLog begins to keep the log of an open leg: data is the object whose syncs let extents leave it. Until then nothing
// may be written to data. What Hot named stays in the table until Reconciled. A log that was lost begins anew, and the leg
// says durably that every extent may differ; so does one that was found so full, by one crash in the repair after another, that
// there is no room to work. failed is told once when the log dies in the background: the leg has failed (O3).
func (m *Meta) StartLog(data block.Device, failed func(error)) error {
	s := m.super.Load()
	slots := int(s.LogSlots)
	if m.found.crowded() {
		m.found.whole = false
	}
	if !m.readOnly && !m.found.whole {
		err := m.Change(func(s *Superblock) {
			s.LogFirst = m.found.sequence + 1
			s.Flags |= FlagLogLost
		})
		if err != nil {
			return err
		}
	}
	if m.super.Load().Flags&FlagLogLost != 0 {
		m.forgetSums()
	}
	extents := Extents(int64(s.VolumeBytes))
	a := &activity{
		meta: m, data: data, blocks: uint64(s.LogBlocks), words: make([]atomic.Uint32, extents), touched: make([]atomic.Bool, extents),
		table: make([]uint32, slots), slotOf: map[uint32]uint32{}, pinned: map[uint32]bool{}, waiting: map[uint32]int{},
		sequence: m.found.sequence, failed: failed,
	}
	a.turned = sync.NewCond(&a.mu)
	for i := range a.table {
		e := uint32(noExtent)
		if m.found.whole {
			e = m.found.slots[i]
		}
		a.table[i] = e
		if e == noExtent {
			a.free = append(a.free, uint32(i))
			continue
		}
		a.slotOf[e], a.pinned[e] = uint32(i), true
		a.words[e].Store(wordHot)
	}
	m.log = a
	return nil
}

// room is how many extents may become hot now. Pins of an earlier life, or of requests that were given up, do not count against
// those who work: a quarter of the slots is theirs in any case. The caller holds mu.
func (a *activity) room() int {
	n := len(a.table)
	limit := max(n-n/roomShare, min(n, len(a.pinned)+n/roomShare))
	return min(len(a.free), limit-len(a.slotOf))
}

// Hot is what the log named when the leg was opened: the extents in which this leg may differ from the other one, beyond the
// dirty map. known is false when the log was lost: then every extent may.
func (m *Meta) Hot() (extents []int64, known bool) {
	if m.log == nil {
		return nil, false
	}
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	for e := range m.log.pinned {
		extents = append(extents, int64(e))
	}
	slices.Sort(extents)
	return extents, m.super.Load().Flags&FlagLogLost == 0
}

// Reconciled says that what Hot named needs to be remembered no more: both legs are equal there, or the dirty map has it,
// durably.
func (m *Meta) Reconciled() error {
	if m.super.Load().Flags&FlagLogLost != 0 {
		if err := m.StoreDirty(); err != nil { // which sums are unknown, too
			return err
		}
		if err := m.Change(func(s *Superblock) { s.Flags &^= FlagLogLost }); err != nil {
			return err
		}
	}
	a := m.log
	a.mu.Lock()
	defer a.mu.Unlock()
	for e := range a.pinned {
		if !slices.Contains(a.clock, e) { // one that was pinned while it was hot is there
			a.clock = append(a.clock, e)
		}
	}
	clear(a.pinned)
	a.turned.Broadcast()
	return nil
}

// CloseLog is the end of a clean use: nothing is under way and nothing can begin. Data is synced, the map is durable, and
// the superblock says so last (O4). Afterwards the log is empty.
func (m *Meta) CloseLog() error {
	a := m.log
	a.mu.Lock()
	for a.writing || a.evicting {
		a.turned.Wait()
	}
	if a.err == nil {
		a.err = ErrClosed
	} else if err := a.err; !errors.Is(err, ErrClosed) {
		a.mu.Unlock()
		return err
	}
	pinned, sequence, running := len(a.pinned), a.sequence, 0
	for e := range a.slotOf {
		if a.words[e].And(wordCount)&wordCount != 0 {
			running++
		}
	}
	a.mu.Unlock()
	if pinned > 0 || running > 0 {
		return fmt.Errorf("%d extents are not reconciled, %d are being written", pinned, running)
	}
	if err := a.data.Sync(); err != nil {
		return err
	}
	if err := m.StoreSums(m.changedSums()...); err != nil {
		return err
	}
	if err := m.StoreDirty(); err != nil {
		return err
	}
	if err := m.dev.Sync(); err != nil {
		return err
	}
	return m.Change(func(s *Superblock) {
		s.Flags &^= FlagOpen
		s.LogFirst = sequence + 1
	})
}

// ErrClosed: the log is closed; nothing is written any more.
var ErrClosed = errors.New("the activity log is closed")

// Begin says that blocks of these extents are about to be written; it returns when a durable block of the log has them hot
// (O1). End must follow each Begin without an error. Hot extents cost no write. Nobody waits for one extent while it keeps
// another (O10).
func (m *Meta) Begin(first, last int64) error {
	a := m.log
	if last-first >= int64(len(a.table))/(2*roomShare) {
		return ErrSpan
	}
	for {
		e := a.beginHot(first, last)
		if e > last {
			return nil
		}
		if err := a.heat(uint32(e)); err != nil {
			return err
		}
		if first == last {
			return nil
		}
		m.End(e, e) // it was written to lately now; all are begun together
	}
}

// TryBegin is Begin of extents that are hot; false: some are not, and nothing has begun.
func (m *Meta) TryBegin(first, last int64) bool { return m.log.beginHot(first, last) > last }

// beginHot begins on all of these extents, or on none, and then says which one is not hot.
func (a *activity) beginHot(first, last int64) int64 {
	for e := first; e <= last; e++ {
		if !a.begin(uint32(e)) {
			a.meta.End(first, e-1)
			return e
		}
	}
	return last + 1
}

// Pin keeps these extents, which a Begin holds, in the log until Reconciled: both legs may differ there for good.
func (m *Meta) Pin(first, last int64) {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	for e := first; e <= last; e++ {
		m.log.pinned[uint32(e)] = true
	}
}

// End says that the writes of a Begin have completed.
func (m *Meta) End(first, last int64) {
	for e := first; e <= last; e++ {
		m.log.end(uint32(e))
	}
}

// Cool lets the extents go that were not written since the last call: what a crash makes both legs compare is then what was
// written lately. It may take a sync of the data.
func (m *Meta) Cool() {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	m.log.beginEviction(false)
}

func (a *activity) begin(e uint32) bool {
	if w := a.words[e].Add(1); w&(wordHot|wordLeaving) != wordHot {
		a.end(e)
		return false
	}
	if !a.touched[e].Load() {
		a.touched[e].Store(true)
	}
	return true
}

func (a *activity) end(e uint32) {
	if w := a.words[e].Add(^uint32(0)); w&wordCount == wordCount {
		panic(fmt.Sprintf("meta.End of extent %d without Begin", e))
	}
}

// heat waits until an extent is hot, with one write of the ring for all who wait, and begins on it.
func (a *activity) heat(e uint32) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting[e]++
	defer func() {
		if a.waiting[e]--; a.waiting[e] == 0 {
			delete(a.waiting, e)
		}
	}()
	for {
		w := a.words[e].Load()
		switch {
		case a.err != nil:
			return a.err
		case w&wordHot != 0 && w&wordLeaving == 0:
			a.words[e].Add(1) // evictions choose under this lock
			a.touched[e].Store(true)
			return nil
		case w&wordHot == 0 && !a.waits(e):
			a.wanted = append(a.wanted, e)
		}
		switch {
		case a.writing:
		case len(a.freed) > 0, len(a.wanted) > 0 && a.room() > 0:
			a.write()
			continue
		default:
			a.beginEviction(true)
		}
		a.turned.Wait()
	}
}

func (a *activity) waits(e uint32) bool {
	for _, w := range a.wanted {
		if w == e {
			return true
		}
	}
	return false
}

// write puts one block on the ring: frees what may be freed, activates who waits. The caller holds mu, which is given up
// during the write.
func (a *activity) write() {
	if a.meta.super.Load().Flags&FlagOpen == 0 {
		panic("a block of the activity log before the open flag (O4)")
	}
	b := logBlock{sequence: a.sequence + 1, slots: uint32(len(a.table)), first: a.cursor}
	n := min(len(a.freed), updatesMax/2)
	gone := a.freed[:n:n]
	a.freed = a.freed[n:]
	for _, slot := range gone {
		b.updates = append(b.updates, slotUpdate{slot, noExtent})
	}
	var hot []uint32
	for len(a.wanted) > 0 && a.room() > 0 && len(b.updates) < updatesMax {
		e := a.wanted[0]
		a.wanted = a.wanted[1:]
		if _, double := a.slotOf[e]; double {
			continue
		}
		slot := a.free[len(a.free)-1]
		a.free = a.free[:len(a.free)-1]
		a.slotOf[e] = slot
		b.updates = append(b.updates, slotUpdate{slot, e})
		hot = append(hot, e)
	}
	for _, u := range b.updates {
		if u.extent == noExtent {
			delete(a.slotOf, a.table[u.slot])
		}
		a.table[u.slot] = u.extent
	}
	for i := range min(contextMax, len(a.table)) {
		b.context = append(b.context, a.table[(a.cursor+uint32(i))%uint32(len(a.table))])
	}
	a.cursor = (a.cursor + uint32(len(b.context))) % uint32(len(a.table))
	a.writing = true
	a.mu.Unlock()
	err := a.put(&b)
	a.mu.Lock()
	a.writing = false
	a.sequence = b.sequence
	if err != nil {
		a.die(err)
	} else {
		for _, e := range hot {
			a.words[e].Or(wordHot)
			a.clock = append(a.clock, e)
		}
		a.free = append(a.free, gone...)
		if a.room() < len(a.table)/freeShare+1 {
			a.beginEviction(true)
		}
	}
	a.turned.Broadcast()
}

// die ends the log; the leg learns of it also when nobody waits. The caller holds mu.
func (a *activity) die(err error) {
	if a.err != nil {
		return
	}
	a.err = fmt.Errorf("activity log: %w", err)
	if a.failed != nil {
		go a.failed(a.err)
	}
}

func (a *activity) put(b *logBlock) error {
	buf := block.Get(BlockBytes)
	defer block.Put(buf)
	b.encode(buf, a.meta.super.Load().Leg)
	return a.meta.dev.WriteAt(buf, logOffset+int64(b.sequence%a.blocks)*BlockBytes, block.Durable)
}

// beginEviction starts one unless one runs. need: slots are short, so extents go that were written lately too, if none is
// under way. The caller holds mu.
func (a *activity) beginEviction(need bool) {
	if a.evicting || a.err != nil {
		return
	}
	a.evicting = true
	leaving := a.choose(need)
	switch {
	case len(leaving) > 0:
		go a.evict(leaving)
	case need:
		time.AfterFunc(evictAgain, a.endEviction)
	default:
		a.evicting = false
	}
}

func (a *activity) endEviction() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.evicting = false
	a.turned.Broadcast()
}

// choose moves the hand over the hot extents: who was written since it passed stays, unless slots are short and nobody else is
// left. They are closed to writes from here. The caller holds mu.
func (a *activity) choose(need bool) []uint32 {
	var leaving []uint32
	rounds := 1
	if need {
		rounds = 2 // in the second nobody is spared
	}
	for range rounds {
		for range len(a.clock) {
			if len(leaving) == updatesMax/2 {
				return leaving
			}
			e := a.clock[0]
			a.clock = a.clock[1:]
			if a.pinned[e] || a.waiting[e] > 0 || a.touched[e].Swap(false) || !a.words[e].CompareAndSwap(wordHot, wordHot|wordLeaving) {
				a.clock = append(a.clock, e)
				continue
			}
			leaving = append(leaving, e)
		}
		if len(leaving) > 0 {
			break
		}
	}
	return leaving
}

// evict lets them go, as many as one block frees.
func (a *activity) evict(leaving []uint32) {
	err := a.settle(leaving)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.evicting = false
	if err != nil {
		a.die(err)
	}
	for _, e := range leaving {
		if err == nil {
			a.freed = append(a.freed, a.slotOf[e])
		}
		// Cold from here, although the ring frees the slot later: until then it says more than is true, and the extent is not
		// made hot again before, because it may not have two slots.
		a.words[e].And(wordCount)
	}
	for len(a.freed) > 0 && !a.writing && a.err == nil {
		a.write()
	}
	a.turned.Broadcast()
}

// settle makes everything durable that a crash would need to know of these extents.
func (a *activity) settle(leaving []uint32) error {
	if len(leaving) == 0 {
		return nil
	}
	if err := a.data.Sync(); err != nil {
		return err
	}
	extents := make([]int64, len(leaving))
	for i, e := range leaving {
		extents[i] = int64(e)
	}
	if err := a.meta.StoreSums(extents...); err != nil {
		return err
	}
	return a.meta.dev.Sync()
}
