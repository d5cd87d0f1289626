package meta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"duet/replication/block"
)

const (
	pageMagic     = "DMP1"
	offPageCRC    = 4
	offExtents    = 64
	extentRecord  = 144
	extentDirty   = BlocksPerExtent / 8
	wordsPerGroup = blocksPerGroup / 64

	// sumsUnknown is the flag of an extent's record: no sum of its sum page counts.
	sumsUnknown = 1
)

// zeroSum is the CRC32C of 4096 zero bytes: of a zero block, and of a sum page that knows nothing.
const zeroSum = 0x98F94189

// page is a map page in RAM, without the dirty bits, which live in the Bitmap, and the records, which live in sums.
type page struct {
	sequence uint64
	epoch    uint64
	leaves   [ExtentsPerGroup]uint64 // first 8 bytes of the leaf digest, 0 = none; kept as read
}

// sumRecord is what a map page says about an extent's sum page.
type sumRecord struct {
	crc   uint32
	flags uint32 // low 8 bits flags, high 24 the last scrub pass
}

// unknownSums is the record of an extent of which no sum is known; its page need not be read.
var unknownSums = sumRecord{crc: zeroSum, flags: sumsUnknown}

func unknownRecords() []sumRecord {
	return slices.Repeat([]sumRecord{unknownSums}, ExtentsPerGroup)
}

// encode writes the page of a group with these dirty bits.
func (p *page) encode(out []byte, leg ID, group int64, dirty []uint64, records []sumRecord) {
	clear(out)
	le := binary.LittleEndian
	copy(out, pageMagic)
	le.PutUint64(out[8:], p.sequence)
	copy(out[16:24], leg[:8])
	le.PutUint32(out[24:], uint32(group))
	le.PutUint64(out[32:], p.epoch)
	for i, r := range records {
		record := out[offExtents+i*extentRecord:][:extentRecord]
		for w := range extentDirty / 8 {
			le.PutUint64(record[w*8:], dirty[i*extentDirty/8+w])
		}
		le.PutUint32(record[128:], r.crc)
		le.PutUint32(record[132:], r.flags)
		le.PutUint64(record[136:], p.leaves[i])
	}
	le.PutUint32(out[offPageCRC:], crcOf(out, offPageCRC))
}

var errBadPage = errors.New("bad map page")

// decodePage reads the page of a group; bad ones are told apart from good, not from each other.
func decodePage(in []byte, leg ID, group int64) (p page, dirty []uint64, records []sumRecord, err error) {
	le := binary.LittleEndian
	switch {
	case string(in[:4]) != pageMagic:
		return p, nil, nil, fmt.Errorf("%w: magic %q", errBadPage, in[:4])
	case le.Uint32(in[offPageCRC:]) != crcOf(in, offPageCRC):
		return p, nil, nil, fmt.Errorf("%w: checksum", errBadPage)
	case !bytes.Equal(in[16:24], leg[:8]) || int64(le.Uint32(in[24:])) != group:
		return p, nil, nil, fmt.Errorf("%w: of leg %x group %d", errBadPage, in[16:24], le.Uint32(in[24:]))
	}
	p.sequence, p.epoch = le.Uint64(in[8:]), le.Uint64(in[32:])
	dirty = make([]uint64, wordsPerGroup)
	records = make([]sumRecord, ExtentsPerGroup)
	for i := range records {
		record := in[offExtents+i*extentRecord:][:extentRecord]
		for w := range extentDirty / 8 {
			dirty[i*extentDirty/8+w] = le.Uint64(record[w*8:])
		}
		records[i] = sumRecord{le.Uint32(record[128:]), le.Uint32(record[132:])}
		p.leaves[i] = le.Uint64(record[136:])
	}
	return p, dirty, records, nil
}

// BadPage is a map page that cannot be read or trusted.
type BadPage struct {
	Group int64
	Err   error
}

// loadPages fills the dirty map. A page that cannot be read or trusted makes all its blocks dirty.
func (m *Meta) loadPages(s *Superblock) {
	buf := block.Get(BlockBytes)
	defer block.Put(buf)
	for g := range m.pages {
		group := int64(g)
		err := m.dev.ReadAt(buf, mapPageOffset(group))
		var dirty []uint64
		var records []sumRecord
		if err == nil {
			m.pages[g], dirty, records, err = decodePage(buf, s.Leg, group)
		}
		from := group * blocksPerGroup
		if err != nil {
			m.badPages = append(m.badPages, BadPage{group, err})
			m.pages[g] = page{sequence: 1, epoch: s.GrantEpoch}
			m.sums.setRecords(group, unknownRecords())
			m.dirty.Set(from, min(blocksPerGroup, m.dirty.Blocks()-from))
			continue // marked as changed, so the next StoreDirty mends the page
		}
		m.sums.setRecords(group, records)
		m.dirty.addWords(from, dirty)
		m.dirty.changed[g].Store(false)
	}
}

// StoreDirty makes the map pages of these extents durable as they are in RAM now; without extents, every page
// that changed since it was last stored. A bit set in RAM before the call is on disk after it.
func (m *Meta) StoreDirty(extents ...int64) error {
	m.storing.Lock()
	defer m.storing.Unlock()
	if m.readOnly {
		return ErrReadOnly
	}
	buf := block.Get(BlockBytes)
	defer block.Put(buf)
	s := m.super.Load()
	for _, group := range m.groupsOf(extents) {
		if err := m.storePage(buf, s, group, block.Durable); err != nil {
			return fmt.Errorf("map page %d of leg %s: %w", group, s.Leg, err)
		}
	}
	return nil
}

// groupsOf is the ascending list of map pages to write.
func (m *Meta) groupsOf(extents []int64) []int64 {
	var groups []int64
	for _, e := range extents {
		if e < 0 || e/ExtentsPerGroup >= int64(len(m.pages)) {
			panic(fmt.Sprintf("meta.StoreDirty: extent %d of a volume of %d blocks", e, m.dirty.Blocks()))
		}
		groups = append(groups, e/ExtentsPerGroup)
	}
	if len(extents) == 0 {
		for g := range m.pages {
			if m.dirty.changed[g].Load() {
				groups = append(groups, int64(g))
			}
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

// storePage writes one page. The mark "changed" goes first: a bit that changes during the copy sets it again. After a write that is
// not durable it stays: StoreDirty still has to make the bits so.
func (m *Meta) storePage(buf []byte, s *Superblock, group int64, d block.Durability) error {
	if d == block.Durable {
		m.dirty.changed[group].Store(false)
	}
	words := make([]uint64, wordsPerGroup)
	m.dirty.copyOut(group*blocksPerGroup, words)
	m.acks.addTo(words, group*blocksPerGroup)
	p := m.pages[group]
	p.sequence++
	p.epoch = s.GrantEpoch
	p.encode(buf, s.Leg, group, words, m.sums.recordsOf(group))
	if err := m.dev.WriteAt(buf, mapPageOffset(group), d); err != nil {
		return err
	}
	m.pages[group] = p
	return nil
}
