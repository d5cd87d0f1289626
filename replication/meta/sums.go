package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"

	"duet/replication/block"
)

// SumUnknown stands for a block whose checksum is not known: whatever the medium says counts.
const SumUnknown uint32 = 0

// SumOfZero is the sum of a block of zeroes.
const SumOfZero uint32 = zeroSum

// sumCachePages bounds the sum pages that all legs of this process keep in RAM: 64 MiB, the sums of 64 GiB. Pages that are
// not stored yet stay beyond it; they belong to hot extents, so a leg has at most as many as its log has slots.
const sumCachePages = 16384

// sumPagesCached counts them, of all legs, as block's pool of buffers is one for all.
var sumPagesCached atomic.Int64

// SumOf is the checksum of one block as the table has it: CRC32C, with 1 in place of SumUnknown.
func SumOf(p []byte) uint32 { return Stored(crc32.Checksum(p, castagnoli)) }

// Stored is a CRC32C as the table has it.
func Stored(crc uint32) uint32 {
	if crc == SumUnknown {
		return 1
	}
	return crc
}

// sums is the checksum table of a leg: one page of 1024 sums an extent, in RAM as far as it was used lately.
//
// A page that was changed since it was stored is never dropped. The sums of an extent are changed only while it is hot, or to
// say what an unknown one is, and a hot extent's sums count as unknown after a crash. So the page on disk may lag, be torn or
// be newer than the CRC that its map page has: each of them is told apart from a page that counts.
type sums struct {
	records []atomic.Uint64 // by extent: CRC of the page on disk, and flags
	pages   []atomic.Pointer[sumPage]

	mu     sync.RWMutex // shared: who changes a page; exclusive: who installs or drops one
	loaded []uint32     // extents in pages, in the order of the hand that drops them
	lost   atomic.Int64 // pages that contradicted their CRC
}

type sumPage struct {
	sums    [BlocksPerExtent]atomic.Uint32
	used    atomic.Bool   // since the hand passed
	version atomic.Uint64 // +1 after each change
	stored  atomic.Uint64 // version that is on disk
}

func (p *sumPage) changed() bool { return p.version.Load() != p.stored.Load() }

func newSums(extents int64) sums {
	return sums{records: make([]atomic.Uint64, extents), pages: make([]atomic.Pointer[sumPage], extents)}
}

func packRecord(r sumRecord) uint64 { return uint64(r.crc)<<32 | uint64(r.flags) }

func unpackRecord(u uint64) (crc, flags uint32) { return uint32(u >> 32), uint32(u) }

// setRecords takes the records of a map page. Extents beyond the volume have none.
func (s *sums) setRecords(group int64, records []sumRecord) {
	for i, r := range records {
		if e := group*ExtentsPerGroup + int64(i); e < int64(len(s.records)) {
			s.records[e].Store(packRecord(r))
		}
	}
}

// recordsOf is what a map page says of the sum pages that are on disk.
func (s *sums) recordsOf(group int64) []sumRecord {
	records := unknownRecords()
	for i := range records {
		if e := group*ExtentsPerGroup + int64(i); e < int64(len(s.records)) {
			records[i].crc, records[i].flags = unpackRecord(s.records[e].Load())
		}
	}
	return records
}

func sumPageOffset(extent int64) int64 {
	return mapPageOffset(extent/ExtentsPerGroup) + BlockBytes*(1+extent%ExtentsPerGroup)
}

// Sums fills out with the sums of blocks from from on. What cannot be read, or contradicts its CRC, is unknown.
func (m *Meta) Sums(from int64, out []uint32) {
	m.eachExtent(from, len(out), func(e, first int64, at, n int) {
		p := m.sumPage(e)
		for i := range n {
			out[at+i] = p.sums[first+int64(i)].Load()
		}
	})
}

// SetSums says what blocks from from on hold now: the CRC32C of each. Their extents are hot (between Begin and End), or the sums were unknown and
// the caller has read the blocks.
func (m *Meta) SetSums(from int64, sums []uint32) {
	m.eachExtent(from, len(sums), func(e, first int64, at, n int) {
		m.changeSums(e, setSums(first, sums[at:at+n]))
	})
}

// TrySums is Sums that does not read: false when a sum is not in RAM.
func (m *Meta) TrySums(from int64, out []uint32) (there bool) {
	there = true
	m.eachExtent(from, len(out), func(e, first int64, at, n int) {
		p := m.sums.pages[e].Load()
		if p == nil {
			there = false
			return
		}
		if !p.used.Load() {
			p.used.Store(true)
		}
		for i := range n {
			out[at+i] = p.sums[first+int64(i)].Load()
		}
	})
	return there
}

// TrySetSums is SetSums that does not read: false when some of it is still to be said.
func (m *Meta) TrySetSums(from int64, sums []uint32) (said bool) {
	said = true
	m.eachExtent(from, len(sums), func(e, first int64, at, n int) {
		said = m.tryChangeSums(e, setSums(first, sums[at:at+n])) && said
	})
	return said
}

// setSums is a change of a page.
func setSums(first int64, sums []uint32) func(*sumPage) bool {
	return func(p *sumPage) bool {
		for i, sum := range sums {
			p.sums[first+int64(i)].Store(Stored(sum))
		}
		return true
	}
}

// Learn fills in sums that are unknown and leaves the others. known are of what the caller has read, with SumUnknown where that
// says nothing; learned says that one was filled in.
func (m *Meta) Learn(from int64, known []uint32) (learned bool) {
	m.eachExtent(from, len(known), func(e, first int64, at, n int) {
		m.changeSums(e, func(p *sumPage) bool {
			news := false
			for i := range n {
				if known[at+i] != SumUnknown && p.sums[first+int64(i)].CompareAndSwap(SumUnknown, known[at+i]) {
					news = true
				}
			}
			learned = learned || news
			return news
		})
	})
	return learned
}

// LostSums is how many sum pages could not be read or contradicted their CRC since the leg was opened.
func (m *Meta) LostSums() int64 { return m.sums.lost.Load() }

// eachExtent cuts a range of blocks at the extents: extent, its first block within it, place in the range, count.
func (m *Meta) eachExtent(from int64, blocks int, f func(e, first int64, at, n int)) {
	m.dirty.bounds(from, int64(blocks))
	for at := 0; at < blocks; {
		block := from + int64(at)
		first := block % BlocksPerExtent
		n := min(blocks-at, int(BlocksPerExtent-first))
		f(block/BlocksPerExtent, first, at, n)
		at += n
	}
}

// changeSums changes a page that nobody drops meanwhile.
func (m *Meta) changeSums(e int64, change func(*sumPage) bool) {
	if !m.tryChangeSums(e, change) {
		m.loadSums(e, func(p *sumPage) { p.apply(change) })
	}
}

// tryChangeSums is changeSums of a page that is in RAM.
func (m *Meta) tryChangeSums(e int64, change func(*sumPage) bool) bool {
	m.sums.mu.RLock()
	defer m.sums.mu.RUnlock()
	p := m.sums.pages[e].Load()
	if p == nil {
		return false
	}
	p.apply(change)
	return true
}

// apply changes a page that nobody drops meanwhile. The version goes up last: who stores the page reads it first.
func (p *sumPage) apply(change func(*sumPage) bool) {
	if change(p) {
		p.version.Add(1)
	}
}

// sumPage is the page of an extent, read if need be.
func (m *Meta) sumPage(e int64) *sumPage {
	if p := m.sums.pages[e].Load(); p != nil {
		if !p.used.Load() {
			p.used.Store(true)
		}
		return p
	}
	return m.loadSums(e, func(*sumPage) {})
}

// loadSums puts the page of an extent into its place, unless somebody was quicker, and uses it before it may be dropped.
func (m *Meta) loadSums(e int64, use func(*sumPage)) *sumPage {
	for {
		record := m.sums.records[e].Load()
		p := m.readSums(e, record)
		if p = m.sums.install(e, record, p, use); p != nil {
			return p
		}
	}
}

// readSums reads a page and judges it by the CRC that its map page has.
func (m *Meta) readSums(e int64, record uint64) *sumPage {
	p := &sumPage{}
	crc, flags := unpackRecord(record)
	if flags&sumsUnknown != 0 {
		return p
	}
	buf := block.Get(BlockBytes)
	defer block.Put(buf)
	if readSumPage(m.dev, buf, e, crc) != nil {
		m.sums.lost.Add(1)
		return p
	}
	for i := range p.sums {
		p.sums[i].Store(binary.LittleEndian.Uint32(buf[4*i:]))
	}
	return p
}

// errBadSums: a sum page is not the one that its map page names.
var errBadSums = errors.New("the sum page contradicts its checksum")

// readSumPage reads the page that has this CRC.
func readSumPage(src block.Source, buf []byte, e int64, crc uint32) error {
	if err := src.ReadAt(buf, sumPageOffset(e)); err != nil {
		return err
	}
	if crc32.Checksum(buf, castagnoli) != crc {
		return errBadSums
	}
	return nil
}

// install returns nil when the page on disk is another one than was read: it was stored, and dropped again, meanwhile.
func (s *sums) install(e int64, record uint64, p *sumPage, use func(*sumPage)) *sumPage {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := s.pages[e].Load()
	switch {
	case there != nil:
		p = there
	case s.records[e].Load() != record:
		return nil
	default:
		if sumPagesCached.Add(1) > sumCachePages {
			s.drop(2)
		}
		s.pages[e].Store(p)
		s.loaded = append(s.loaded, uint32(e))
	}
	p.used.Store(true)
	use(p)
	return p
}

// drop gives up to n pages up that are stored and were not used lately. The caller holds mu.
func (s *sums) drop(n int) {
	for range 2 * len(s.loaded) {
		if n == 0 {
			return
		}
		e := s.loaded[0]
		s.loaded = s.loaded[1:]
		if p := s.pages[e].Load(); p.changed() || p.used.Swap(false) {
			s.loaded = append(s.loaded, e)
			continue
		}
		s.pages[e].Store(nil)
		sumPagesCached.Add(-1)
		n--
	}
}

// forget gives the memory of a closed leg back.
func (s *sums) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.loaded {
		s.pages[e].Store(nil)
	}
	sumPagesCached.Add(-int64(len(s.loaded)))
	s.loaded = nil
}

// unknown says that no sum of an extent counts, whatever is on disk.
func (s *sums) unknown(e int64) {
	p := &sumPage{}
	p.version.Store(1)
	s.install(e, s.records[e].Load(), p, func(*sumPage) {})
}

// forgetSums makes every sum unknown: any extent may hold what no sum was stored for. The map pages say so when they are
// stored next, all of them.
func (m *Meta) forgetSums() {
	for g := range m.pages {
		m.sums.setRecords(int64(g), unknownRecords())
		m.dirty.changed[g].Store(true)
	}
}

// StoreSums writes the sum pages of extents that changed, and their map pages, without making them durable: until a sync of the
// meta object a power cut may leave any mixture, which is told apart by the CRC.
func (m *Meta) StoreSums(extents ...int64) error {
	m.storing.Lock()
	defer m.storing.Unlock()
	return m.storeSums(extents)
}

func (m *Meta) storeSums(extents []int64) error {
	switch {
	case m.readOnly:
		return ErrReadOnly
	case len(extents) == 0:
		return nil
	}
	buf := block.Get(BlockBytes)
	defer block.Put(buf)
	for _, e := range extents {
		if err := m.storeSumPage(buf, e); err != nil {
			return err
		}
	}
	s := m.super.Load()
	for _, group := range m.groupsOf(extents) {
		if err := m.storePage(buf, s, group, block.Cached); err != nil {
			return fmt.Errorf("map page %d of leg %s: %w", group, s.Leg, err)
		}
	}
	return nil
}

// storeSumPage writes one page that changed. Its record, which is of the page on disk, is set before the page may be dropped.
func (m *Meta) storeSumPage(buf []byte, e int64) error {
	p := m.sums.pages[e].Load()
	if p == nil || !p.changed() {
		return nil
	}
	version := p.version.Load()
	for i := range p.sums {
		binary.LittleEndian.PutUint32(buf[4*i:], p.sums[i].Load())
	}
	if err := m.dev.WriteAt(buf, sumPageOffset(e), block.Cached); err != nil {
		return fmt.Errorf("sum page %d: %w", e, err)
	}
	_, flags := unpackRecord(m.sums.records[e].Load())
	m.sums.records[e].Store(packRecord(sumRecord{crc: crc32.Checksum(buf, castagnoli), flags: flags &^ sumsUnknown}))
	p.stored.Store(version)
	return nil
}

// changedSums are the extents whose sums are not stored.
func (m *Meta) changedSums() []int64 {
	m.sums.mu.RLock()
	defer m.sums.mu.RUnlock()
	var extents []int64
	for _, e := range m.sums.loaded {
		if m.sums.pages[e].Load().changed() {
			extents = append(extents, int64(e))
		}
	}
	return extents
}
