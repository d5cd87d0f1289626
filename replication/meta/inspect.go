package meta

import (
	"encoding/binary"
	"errors"
	"slices"

	"duet/replication/block"
)

// Inspection is what a leg says about itself, found without writing: neither a sync nor a byte goes to the medium. It is read by
// the same code that opens a leg, so it tells what a daemon would find. What an unclean end left in a cache of the kernel
// may be told although it is not durable.
type Inspection struct {
	Slots [2]Slot // A and B
	// Super is the one that counts. It is nil when this release cannot use it, and there when only meta is too small.
	Super *Superblock

	Ring     Ring
	Played   uint64 // blocks of the ring that count: none of a leg that was closed cleanly
	Hot      []int64
	LogLost  string // why every extent may differ; empty: Hot names all
	BadPages []BadPage
	Dirty    *Bitmap // as it counts once the leg is opened: invalid pages, and what is hot in a history of its own, too
	Stored   int64   // dirty blocks that valid map pages name

	src  *ahead
	meta *Meta
}

// Slot is one place of the superblock. What this release cannot read further has these fields all the same.
type Slot struct {
	Err                              error // why it holds no superblock; ErrUnformatted: it is empty
	Counts                           bool
	Sequence                         uint64
	FormatMajor, FormatMinor         uint16
	Incompatible, ReadOnlyCompatible uint32
}

// SumState is what counts of an extent's sum page.
type SumState uint8

// The states of a sum page. Only of the first one do sums count.
const (
	SumsKnown      SumState = iota + 1
	SumsUnknown             // its map page says so, or is invalid
	SumsSuspended           // the activity log names the extent, or is lost: a crash came between
	SumsContradict          // it is not the page that its map page names
	SumsUnreadable
)

// Inspect reads the superblock, the ring and all map pages. With an error the Inspection tells what was found until then.
func Inspect(src block.Source) (*Inspection, error) {
	i := &Inspection{src: &ahead{Source: src}}
	slots, bad := bothSlots(src)
	s, err := newestOf(slots, bad)
	for n, slot := range slots {
		i.Slots[n].Err = bad[n]
		if slot != nil {
			i.Slots[n] = Slot{nil, slot == s, slot.Sequence, slot.FormatMajor, slot.FormatMinor, slot.Incompatible, slot.ReadOnlyCompatible}
		}
	}
	if err != nil {
		return i, err
	}
	if err = usable(s, src.Size()); err == nil || errors.Is(err, ErrSize) {
		i.Super = s
	}
	if err != nil {
		return i, err
	}
	m := newMeta(unwritable{src}, s)
	m.loadPages(s)
	i.meta, i.Dirty, i.BadPages = m, m.dirty, m.badPages
	i.Stored = m.dirty.Count()
	for _, p := range m.badPages {
		from := p.Group * blocksPerGroup
		i.Stored -= min(blocksPerGroup, m.dirty.Blocks()-from)
	}
	m.loadLog(s)
	m.sums.forget()
	i.judgeLog(s)
	return i, nil
}

func (i *Inspection) judgeLog(s *Superblock) {
	_, i.Ring = readRing(i.src, s)
	found := &i.meta.found
	i.Played, i.Hot = found.sequence+1-found.first, found.hot()
	switch {
	case s.Flags&FlagLogLost != 0:
		i.LogLost = "it was lost at an earlier opening, and the legs were not reconciled since"
	case !found.whole:
		i.LogLost = "its blocks do not hold the whole table, or name extents beyond the volume"
	case found.crowded():
		i.LogLost = "it has no room left to work"
	}
	if i.LogLost != "" {
		i.Hot = nil
	}
}

// Sums fills out with the sums of an extent. All are SumUnknown unless the state is SumsKnown.
func (i *Inspection) Sums(extent int64, out *[BlocksPerExtent]uint32) (SumState, error) {
	clear(out[:])
	crc, flags := unpackRecord(i.meta.sums.records[extent].Load())
	_, hot := slices.BinarySearch(i.Hot, extent)
	switch {
	case hot || i.LogLost != "":
		return SumsSuspended, nil
	case flags&sumsUnknown != 0:
		return SumsUnknown, nil
	}
	buf := block.Get(BlockBytes)
	defer block.Put(buf)
	err := readSumPage(i.src, buf, extent, crc)
	switch {
	case errors.Is(err, errBadSums):
		return SumsContradict, err
	case err != nil:
		return SumsUnreadable, err
	}
	for b := range out {
		out[b] = binary.LittleEndian.Uint32(buf[4*b:])
	}
	return SumsKnown, nil
}

// ahead reads whole groups: who looks at the sum pages one after another needs each of them.
type ahead struct {
	block.Source
	group []byte // what lies at off
	off   int64
}

func (a *ahead) ReadAt(p []byte, off int64) error {
	if off < groupsOffset {
		return a.Source.ReadAt(p, off)
	}
	begin := off - (off-groupsOffset)%groupBytes
	if a.group == nil || a.off != begin {
		if a.group == nil {
			a.group = block.Alloc(groupBytes)
		}
		a.off = begin
		if a.Source.ReadAt(a.group, begin) != nil {
			a.off = 0                      // of no group
			return a.Source.ReadAt(p, off) // a bad block takes nothing with it
		}
	}
	copy(p, a.group[off-begin:])
	return nil
}

// unwritable is a Source as a Device: what opens a leg can read by it and nothing else.
type unwritable struct{ block.Source }

func (unwritable) WriteAt([]byte, int64, block.Durability) error { return ErrReadOnly }
func (unwritable) Zero(int64, int64, block.Durability) error     { return ErrReadOnly }
func (unwritable) Sync() error                                   { return ErrReadOnly }
func (unwritable) Close() error                                  { return nil }
