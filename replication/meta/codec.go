package meta

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"unicode/utf8"
)

// superMagic begins every superblock, of every format to come.
const superMagic = "DUETLEG\x00"

// Versions and features this code knows. A reader of a newer release opens every older major (docs/disk-format.md).
const (
	formatMajor = 1
	formatMinor = 0

	knownIncompatible       = 0
	knownReadOnlyCompatible = 0
)

// Offsets of a superblock that code other than the field list needs.
const (
	offCRC      = 8
	offMajor    = 12
	offSequence = 16
	offHistory  = 320
	offDamaged  = 768

	softwareBytes = 32
	reasonBytes   = 124
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcOf is the CRC32C of a unit with its own CRC field, 4 bytes at off, taken as zero.
func crcOf(unit []byte, off int) uint32 {
	crc := crc32.Update(0, castagnoli, unit[:off])
	crc = crc32.Update(crc, castagnoli, []byte{0, 0, 0, 0})
	return crc32.Update(crc, castagnoli, unit[off+4:])
}

// cursor walks the fixed fields in the order of the disk, in one list for both directions: a field that one
// direction has, the other has at the same offset.
type cursor struct {
	p     []byte
	at    int
	write bool
}

func field[T uint8 | uint16 | uint32 | uint64 | State](c *cursor, v *T) {
	var size int
	switch any(*v).(type) {
	case uint8, State:
		size = 1
	case uint16:
		size = 2
	case uint32:
		size = 4
	case uint64:
		size = 8
	}
	var b [8]byte
	if c.write {
		binary.LittleEndian.PutUint64(b[:], uint64(*v))
		copy(c.p[c.at:c.at+size], b[:])
	} else {
		copy(b[:], c.p[c.at:c.at+size])
		*v = T(binary.LittleEndian.Uint64(b[:]))
	}
	c.at += size
}

func (c *cursor) id(v *[16]byte) {
	if c.write {
		copy(c.p[c.at:], v[:])
	} else {
		copy(v[:], c.p[c.at:])
	}
	c.at += len(v)
}

func (c *cursor) generation(g *Generation) {
	field(c, &g.Epoch)
	field(c, &g.Nonce)
}

func (c *cursor) text(s *string, size int) {
	if c.write {
		copy(c.p[c.at:c.at+size], *s)
	} else {
		*s = string(bytes.TrimRight(c.p[c.at:c.at+size], "\x00"))
	}
	c.at += size
}

// cut shortens text to n bytes without splitting a character.
func cut(s string, n int) string {
	for len(s) > n {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

func (c *cursor) reserved(n int) { c.at += n }

// fields lists the superblock from offset 12 to 2824.
func (c *cursor) fields(s *Superblock, entries *uint32) {
	c.at = offMajor
	field(c, &s.FormatMajor)
	field(c, &s.FormatMinor)
	field(c, &s.Sequence)
	field(c, &s.Incompatible)
	field(c, &s.ReadOnlyCompatible)
	c.id((*[16]byte)(&s.Site))
	c.id((*[16]byte)(&s.Volume))
	c.id((*[16]byte)(&s.Leg))
	field(c, &s.Node) // 80
	field(c, &s.State)
	field(c, &s.Flags)
	field(c, &s.BlockBytes)
	field(c, &s.BlocksPerExtent)
	field(c, &s.ExtentsPerGroup)
	field(c, &s.VolumeBytes) // 96
	field(c, &s.MetaBytes)
	field(c, &s.DataBytes)
	field(c, &s.LogOffset) // 120
	field(c, &s.LogBlocks)
	field(c, &s.LogSlots)
	field(c, &s.LogFirst)
	field(c, &s.GroupsOffset) // 144
	field(c, &s.Groups)
	field(c, &s.GrantEpoch) // 160
	field(c, &s.Legs)
	field(c, &s.Owner)
	c.reserved(6)
	c.generation(&s.Current) // 176
	c.generation(&s.Base)
	c.generation(&s.SyncSource)
	field(c, &s.ResyncCursor) // 224
	field(c, &s.ResyncID)
	field(c, &s.ResyncFlags)
	c.id((*[16]byte)(&s.OtherLeg)) // 240
	c.id(&s.ProofRoot)
	field(c, &s.ProofEpoch) // 272
	field(c, &s.ProofTime)
	field(c, &s.UncleanOpens) // 288
	field(c, entries)
	field(c, &s.LegsVersion) // 296
	c.reserved(16)
	c.history(s, *entries) // 320
	c.id((*[16]byte)(&s.Boot))
	c.text(&s.Software, softwareBytes) // 592
	field(c, &s.ReadErrors)            // 624
	field(c, &s.SumErrors)
	field(c, &s.WriteErrors)
	field(c, &s.SyncErrors)
	field(c, &s.ReasonCode)            // 640
	c.text(&s.ReasonText, reasonBytes) // 644
	c.damaged(s)                       // 768, to 2824
}

func (c *cursor) damaged(s *Superblock) {
	c.at = offDamaged
	entries := uint32(len(s.Damaged))
	field(c, &entries)
	c.reserved(4)
	if !c.write {
		s.Damaged = nil
		if entries > 0 {
			s.Damaged = make([]DamagedBlock, min(entries, DamagedMax))
		}
	}
	for i := range s.Damaged {
		field(c, &s.Damaged[i].Block)
		field(c, &s.Damaged[i].Sum)
		c.reserved(4)
	}
	c.at = offDamaged + 8 + DamagedMax*16
}

func (c *cursor) history(s *Superblock, entries uint32) {
	if !c.write {
		s.History = nil
		if entries > 0 {
			s.History = make([]Generation, min(entries, HistoryMax))
		}
	}
	for i := range s.History {
		c.generation(&s.History[i])
	}
	c.at = offHistory + HistoryMax*16
}

// encode writes s as one unit. Values that have no place on disk panic: check refuses them before.
func encode(s *Superblock) []byte {
	p := make([]byte, BlockBytes)
	copy(p, superMagic)
	entries := uint32(len(s.History))
	c := cursor{p: p, write: true}
	c.fields(s, &entries)
	binary.LittleEndian.PutUint32(p[offCRC:], crcOf(p, offCRC))
	return p
}

// slotError says why a slot holds no superblock.
type slotError struct {
	kind error
	text string
}

func (e *slotError) Error() string { return e.text }
func (e *slotError) Unwrap() error { return e.kind }

// decode reads one slot. Whether this release may use what it says is decided later, on the newer slot only.
// The magic, the CRC and the places of version, sequence and features are the same in every format.
func decode(p []byte, slot int) (*Superblock, error) {
	if !bytes.Equal(p[:len(superMagic)], []byte(superMagic)) {
		if bytes.Equal(p, make([]byte, len(p))) {
			return nil, &slotError{ErrUnformatted, "empty"}
		}
		return nil, &slotError{ErrForeign, fmt.Sprintf("magic %q", p[:len(superMagic)])}
	}
	if crc := binary.LittleEndian.Uint32(p[offCRC:]); crc != crcOf(p, offCRC) {
		return nil, &slotError{ErrNoSuperblock, "checksum does not match"}
	}
	var s Superblock
	var entries uint32
	c := cursor{p: p}
	c.fields(&s, &entries)
	if int(s.Sequence&1) != slot {
		return nil, &slotError{ErrNoSuperblock, fmt.Sprintf("sequence %d belongs into the other slot", s.Sequence)}
	}
	if s.FormatMajor <= formatMajor && entries > HistoryMax {
		return nil, &slotError{ErrNoSuperblock, fmt.Sprintf("%d history entries", entries)}
	}
	if n := binary.LittleEndian.Uint32(p[offDamaged:]); s.FormatMajor <= formatMajor && n > DamagedMax {
		return nil, &slotError{ErrNoSuperblock, fmt.Sprintf("%d damaged blocks", n)}
	}
	return &s, nil
}

// usable says whether this release may open what s describes.
func usable(s *Superblock, metaBytes int64) error {
	switch {
	case s.FormatMajor != formatMajor:
		return fmt.Errorf("%w: format %d.%d, this release reads %d", ErrNewerFormat, s.FormatMajor, s.FormatMinor, formatMajor)
	case s.Incompatible&^knownIncompatible != 0:
		return fmt.Errorf("%w: incompatible bits %#x", ErrUnknownFeature, s.Incompatible&^knownIncompatible)
	}
	if err := s.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrNoSuperblock, err)
	}
	if need := SizeFor(int64(s.MetaBytes)); metaBytes < need {
		return fmt.Errorf("%w: meta has %d bytes, a volume of %d needs %d", ErrSize, metaBytes, s.MetaBytes, need)
	}
	return nil
}

// volumeBytesMax keeps every offset below 2^62; the format itself ends with extent number 2^32-2 (16 PiB).
const volumeBytesMax = (1<<32 - 2) * ExtentBytes

// check holds for every superblock that is written and every one that is used.
func (s *Superblock) check() error {
	var errs []error
	must := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	must(s.State >= New && s.State <= Ejected, "state %d", s.State)
	must(s.Node <= 1, "node %d", s.Node)
	must(s.Owner <= 1, "owner %d", s.Owner)
	must(s.Legs <= 3, "legs mask %#x", s.Legs)
	must(!s.Site.IsZero() && !s.Volume.IsZero() && !s.Leg.IsZero(), "site, volume or leg id is zero")
	must(s.BlockBytes == BlockBytes && s.BlocksPerExtent == BlocksPerExtent && s.ExtentsPerGroup == ExtentsPerGroup,
		"geometry %d × %d × %d", s.BlockBytes, s.BlocksPerExtent, s.ExtentsPerGroup)
	must(s.VolumeBytes > 0 && s.VolumeBytes%BlockBytes == 0 && s.VolumeBytes <= volumeBytesMax, "volume of %d bytes", s.VolumeBytes)
	must(s.MetaBytes >= s.VolumeBytes && s.MetaBytes <= volumeBytesMax, "meta for %d bytes, volume of %d", s.MetaBytes, s.VolumeBytes)
	must(s.LogOffset == logOffset && s.GroupsOffset == groupsOffset, "log at %#x, groups at %#x", s.LogOffset, s.GroupsOffset)
	must(s.LogBlocks > 0 && s.LogBlocks <= logBlocksMax && s.LogSlots >= logSlotsMin && s.LogSlots <= logSlotsMax && s.LogFirst > 0,
		"log of %d blocks and %d slots from %d", s.LogBlocks, s.LogSlots, s.LogFirst)
	must((s.LogSlots+contextMax-1)/contextMax <= s.LogBlocks, "a log of %d blocks cannot hold %d slots", s.LogBlocks, s.LogSlots)
	must(s.Groups == uint64(groupsFor(int64(min(s.MetaBytes, volumeBytesMax)))), "%d groups for %d bytes", s.Groups, s.MetaBytes)
	must(len(s.History) <= HistoryMax, "%d history entries", len(s.History))
	must(len(s.Damaged) <= DamagedMax, "%d damaged blocks", len(s.Damaged))
	for i, d := range s.Damaged {
		must(d.Block < s.VolumeBytes/BlockBytes && (i == 0 || d.Block > s.Damaged[i-1].Block), "damaged block %d", d.Block)
	}
	must(len(s.Software) <= softwareBytes, "software version of %d bytes", len(s.Software))
	must(len(s.ReasonText) <= reasonBytes, "reason of %d bytes", len(s.ReasonText))
	return errors.Join(errs...)
}

// fill completes a superblock for Format.
func (s *Superblock) fill() error {
	s.FormatMajor, s.FormatMinor = formatMajor, formatMinor
	s.BlockBytes, s.BlocksPerExtent, s.ExtentsPerGroup = BlockBytes, BlocksPerExtent, ExtentsPerGroup
	s.LogOffset, s.GroupsOffset = logOffset, groupsOffset
	s.LogBlocks, s.LogSlots, s.LogFirst = logBlocksDefault, cmp.Or(s.LogSlots, logSlotsDefault), 1
	s.MetaBytes = max(s.MetaBytes, s.VolumeBytes)
	s.Groups = uint64(groupsFor(int64(min(s.MetaBytes, volumeBytesMax))))
	s.Sequence = firstSequence
	if s.State == 0 {
		s.State = New
	}
	if s.Leg.IsZero() {
		if _, err := rand.Read(s.Leg[:]); err != nil {
			return fmt.Errorf("leg id: %w", err)
		}
	}
	return s.check()
}
