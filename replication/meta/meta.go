package meta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
	"sync/atomic"

	"duet/replication/block"
)

// Reasons for which a leg is refused; test with errors.Is.
var (
	ErrUnformatted    = errors.New("no superblock was ever written")
	ErrForeign        = errors.New("not a leg of duet")
	ErrNoSuperblock   = errors.New("no valid superblock") // the leg has failed; it is rebuilt from the other
	ErrNewerFormat    = errors.New("format of another release")
	ErrUnknownFeature = errors.New("feature of another release")
	ErrSize           = errors.New("meta object too small")
	ErrFormatted      = errors.New("already holds a superblock") // Format
	ErrReadOnly       = errors.New("leg is read-only: feature of another release")
)

// Meta is the open meta object of a leg. All methods may be called at the same time.
type Meta struct {
	dev      block.Device
	unclean  bool
	readOnly bool
	badPages []BadPage

	changing sync.Mutex
	super    atomic.Pointer[Superblock] // as durable; never modified in place

	dirty   *Bitmap
	storing sync.Mutex
	pages   []page // by group; under storing

	acks acked
	sums sums

	found logTable // what the ring said at Open
	log   *activity
}

// Format writes an empty meta for s.VolumeBytes: all zero, map pages that say "nothing dirty", sum pages that say "all zero" of
// a leg with FlagZeroed and nothing of another one, and, last, the superblock. Layout, features, sequence, a leg id and the state New are filled in where they are
// zero. The ids, node and VolumeBytes are the caller's. A device that holds a superblock is refused.
func Format(dev block.Device, s Superblock) error {
	if err := s.fill(); err != nil {
		return fmt.Errorf("superblock: %w", err)
	}
	if need := SizeFor(int64(s.MetaBytes)); dev.Size() < need {
		return fmt.Errorf("%w: %d bytes, needs %d", ErrSize, dev.Size(), need)
	}
	if newest, _ := readSlots(dev); newest != nil { //nolint:errcheck // what cannot be read is not formatted
		return ErrFormatted
	}
	if err := dev.Zero(0, groupsOffset, block.Cached); err != nil {
		return err
	}
	for g := range int64(s.Groups) {
		if err := formatGroup(dev, &s, g); err != nil {
			return err
		}
	}
	if err := dev.Sync(); err != nil {
		return err
	}
	return writeSlot(dev, &s)
}

// formatGroup writes a map page and its sum pages.
func formatGroup(dev block.Device, s *Superblock, group int64) error {
	buf := block.Get(groupBytes)
	defer block.Put(buf)
	clear(buf)
	records := unknownRecords()
	for i := range records {
		e := group*ExtentsPerGroup + int64(i)
		blocks := min(BlocksPerExtent, int64(s.VolumeBytes/BlockBytes)-e*BlocksPerExtent)
		if s.Flags&FlagZeroed == 0 || blocks <= 0 {
			continue
		}
		page := buf[(1+i)*BlockBytes:][:BlockBytes]
		for b := range blocks {
			binary.LittleEndian.PutUint32(page[4*b:], zeroSum)
		}
		records[i] = sumRecord{crc: crc32.Checksum(page, castagnoli)}
	}
	p := page{sequence: 1, epoch: s.GrantEpoch}
	p.encode(buf[:BlockBytes], s.Leg, group, make([]uint64, wordsPerGroup), records)
	return dev.WriteAt(buf, mapPageOffset(group), block.Cached)
}

// Erase makes both superblocks unreadable, durably: what was there is no leg any more.
func Erase(dev block.Device) error {
	for slot := range int64(2) {
		if err := dev.Zero(slot*slotDistance, BlockBytes, block.Durable); err != nil {
			return fmt.Errorf("superblock: %w", err)
		}
	}
	return nil
}

// Open reads the superblock and the map pages. The device belongs to Meta only when there is no error.
func Open(dev block.Device) (*Meta, error) {
	// A daemon that was killed inside Change may have left a superblock that can be read but is not durable. It is made
	// so before anybody acts on it.
	if err := dev.Sync(); err != nil {
		return nil, fmt.Errorf("sync before reading: %w", err)
	}
	s, err := readSlots(dev)
	if err != nil {
		return nil, err
	}
	if err := usable(s, dev.Size()); err != nil {
		return nil, err
	}
	m := newMeta(dev, s)
	m.loadPages(s)
	m.loadLog(s)
	return m, nil
}

func newMeta(dev block.Device, s *Superblock) *Meta {
	m := &Meta{
		dev:      dev,
		unclean:  s.Flags&FlagOpen != 0,
		readOnly: s.ReadOnlyCompatible&^knownReadOnlyCompatible != 0,
		dirty:    NewBitmap(int64(s.VolumeBytes / BlockBytes)),
		pages:    make([]page, groupsFor(int64(s.VolumeBytes))),
		sums:     newSums(Extents(int64(s.VolumeBytes))),
	}
	m.super.Store(s)
	return m
}

// loadLog reads the ring of a leg that was not closed cleanly. In a history of its own, where the dirty map must name all that
// the other leg may lack, every block of a hot extent becomes dirty.
func (m *Meta) loadLog(s *Superblock) {
	m.found = logTable{first: s.LogFirst, sequence: s.LogFirst - 1, slots: slices.Repeat([]uint32{noExtent}, int(s.LogSlots)), whole: true}
	if !m.unclean {
		return
	}
	ring, _ := readRing(m.dev, s)
	m.found = replayLog(ring, s.LogFirst, s.LogSlots)
	extents := Extents(int64(s.VolumeBytes))
	for i, e := range m.found.slots {
		if e != noExtent && int64(e) >= extents {
			m.found.slots[i] = noExtent
			m.found.whole = false // a valid block with an extent that is not there: trust nothing
		}
	}
	for _, e := range m.found.slots {
		if e != noExtent {
			m.sums.unknown(int64(e))
		}
	}
	if s.Base.IsZero() {
		return
	}
	mark := func(e int64) {
		m.dirty.Set(e*BlocksPerExtent, min(BlocksPerExtent, m.dirty.Blocks()-e*BlocksPerExtent))
	}
	if !m.found.whole {
		for e := range extents {
			mark(e)
		}
		return
	}
	for _, e := range m.found.slots {
		if e != noExtent {
			mark(int64(e))
		}
	}
}

// Ring is what the blocks of the activity log are, whatever they say. Those of an earlier life are valid, too.
type Ring struct {
	Valid, Empty, Invalid, Unreadable int
	First, Last                       uint64 // sequences of the valid ones: the lowest and the highest
}

// readRing reads the ring; a block that is not valid is nil.
func readRing(src block.Source, s *Superblock) (ring []*logBlock, r Ring) {
	buf := block.Get(BlockBytes)
	defer block.Put(buf)
	ring = make([]*logBlock, s.LogBlocks)
	for i := range ring {
		if src.ReadAt(buf, logOffset+int64(i)*BlockBytes) != nil {
			r.Unreadable++ // as good as damaged
			continue
		}
		b, err := decodeLogBlock(buf, s.Leg, uint32(i), s.LogBlocks, s.LogSlots)
		switch {
		case err == nil:
			ring[i] = &b
			r.Valid++
			if r.Valid == 1 {
				r.First = b.sequence
			}
			r.First, r.Last = min(r.First, b.sequence), max(r.Last, b.sequence)
		case bytes.Equal(buf, make([]byte, len(buf))):
			r.Empty++
		default:
			r.Invalid++
		}
	}
	return ring, r
}

// Super is a copy of the superblock as it is durable.
func (m *Meta) Super() Superblock { return m.super.Load().clone() }

// Unclean says that the leg was found with FlagOpen set: it may differ where Hot says.
func (m *Meta) Unclean() bool { return m.unclean }

// BadPages is how many map pages could not be trusted at Open; their extents are all dirty.
func (m *Meta) BadPages() int { return len(m.badPages) }

// ReadOnly says that an unknown read-only-compatible feature forbids writing.
func (m *Meta) ReadOnly() bool { return m.readOnly }

// Dirty is the map in RAM: blocks that the other leg does not certainly hold.
func (m *Meta) Dirty() *Bitmap { return m.dirty }

// Close closes the device. It does not clear FlagOpen: a clean close is the engine's decision (O4).
func (m *Meta) Close() error {
	m.sums.forget()
	return m.dev.Close()
}

// Change applies f to a copy of the superblock and makes it durable in the other slot (O8). Changes are
// serialised. Texts and history that are too long are cut; a change of a fixed field (ids of site, volume and
// leg, format, layout, sequence) panics, and one that makes the superblock invalid is refused. After any error
// Super is what it was; after an error of the device that device is dead.
func (m *Meta) Change(f func(*Superblock)) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	if m.readOnly {
		return ErrReadOnly
	}
	old := m.super.Load()
	next := old.clone()
	f(&next)
	next.trim()
	if a, b := next.fixed(), old.fixed(); a != b {
		panic(fmt.Sprintf("meta.Change of a fixed field: %+v, was %+v", a, b))
	}
	next.Sequence++
	if err := next.check(); err != nil {
		return fmt.Errorf("superblock: %w", err)
	}
	if err := writeSlot(m.dev, &next); err != nil {
		return fmt.Errorf("superblock %d of leg %s: %w", next.Sequence, next.Leg, err)
	}
	m.super.Store(&next)
	return nil
}

// writeSlot makes s durable in the slot of its sequence.
func writeSlot(dev block.Device, s *Superblock) error {
	buf := block.Get(BlockBytes)
	defer block.Put(buf)
	copy(buf, encode(s))
	return dev.WriteAt(buf, slotOffset(s.Sequence), block.Durable)
}

// readSlots returns the valid superblock with the higher sequence, or why there is none.
func readSlots(src block.Source) (*Superblock, error) { return newestOf(bothSlots(src)) }

// bothSlots reads slots A and B, or says why one holds no superblock.
func bothSlots(src block.Source) (slots [2]*Superblock, bad [2]error) {
	buf := block.Get(BlockBytes)
	defer block.Put(buf)
	for slot := range 2 {
		if err := src.ReadAt(buf, int64(slot)*slotDistance); err != nil {
			bad[slot] = &slotError{ErrNoSuperblock, err.Error()}
			continue
		}
		slots[slot], bad[slot] = decode(buf, slot)
	}
	return slots, bad
}

func newestOf(slots [2]*Superblock, bad [2]error) (*Superblock, error) {
	a, b := slots[0], slots[1]
	switch {
	case a != nil && (b == nil || a.Sequence > b.Sequence):
		return a, nil
	case b != nil:
		return b, nil
	}
	// A slot that was ours and is damaged says more than an empty or foreign one.
	for _, kind := range []error{ErrNoSuperblock, ErrForeign} {
		if errors.Is(bad[0], kind) || errors.Is(bad[1], kind) {
			return nil, fmt.Errorf("%w: slot A: %s; slot B: %s", kind, bad[0].Error(), bad[1].Error())
		}
	}
	return nil, ErrUnformatted
}

// fixedFields are those that never change after Format (growing a leg has its own way, not in this release).
type fixedFields struct {
	major, minor             uint16
	sequence                 uint64
	incompatible, readOnly   uint32
	site, volume, leg        ID
	node                     uint8
	block, extent, group     uint32
	volumeBytes, metaBytes   uint64
	logOffset                uint64
	logBlocks, logSlots      uint32
	groupsOffset, groupCount uint64
}

func (s *Superblock) fixed() fixedFields {
	return fixedFields{
		s.FormatMajor, s.FormatMinor, s.Sequence, s.Incompatible, s.ReadOnlyCompatible,
		s.Site, s.Volume, s.Leg, s.Node, s.BlockBytes, s.BlocksPerExtent, s.ExtentsPerGroup,
		s.VolumeBytes, s.MetaBytes, s.LogOffset, s.LogBlocks, s.LogSlots, s.GroupsOffset, s.Groups,
	}
}

func (s *Superblock) clone() Superblock {
	c := *s
	c.History = slices.Clone(s.History)
	c.Damaged = slices.Clone(s.Damaged)
	return c
}

// trim cuts what is for people, and the oldest history, to the room they have.
func (s *Superblock) trim() {
	s.History = s.History[:min(len(s.History), HistoryMax)]
	s.Software = cut(s.Software, softwareBytes)
	s.ReasonText = cut(s.ReasonText, reasonBytes)
}

// Push begins a new history (O5): base becomes what was current, current becomes g, and the old current goes to
// the front of History.
func (s *Superblock) Push(g Generation) {
	if s.Base.IsZero() {
		s.Base = s.Current
	}
	if !s.Current.IsZero() {
		s.History = append([]Generation{s.Current}, s.History...)
	}
	s.Current = g
	s.trim()
}
