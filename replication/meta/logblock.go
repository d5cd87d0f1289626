package meta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// The activity log is a ring of blocks. Each says how slots of a table changed, and repeats a part of the table, so that
// any ⌈slots/contextMax⌉ consecutive blocks hold all of it. The table names the extents whose data, sums or bits may not be
// durable: those in which this leg may differ from the other one after a crash (replication.md section 4).
const (
	logMagic   = "DAL1"
	offLogCRC  = 4
	updatesMax = 64  // slots changed by one block
	contextMax = 880 // slots repeated by one block
	offUpdates = 64
	offContext = offUpdates + updatesMax*8

	logBlocksDefault = 256
	logBlocksMax     = 1536
	logSlotsMin      = 64
	logSlotsMax      = 8192
	// logSlotsDefault is 1 GiB of hot extents: what a crash makes both legs compare before the volume is served again.
	logSlotsDefault = 256

	// noExtent marks a free slot.
	noExtent = 0xFFFFFFFF
)

// slotUpdate is one change of the table.
type slotUpdate struct{ slot, extent uint32 }

// logBlock is one block of the ring.
type logBlock struct {
	sequence uint64
	slots    uint32 // N
	flags    uint32
	updates  []slotUpdate
	first    uint32   // context: slot of its first entry
	context  []uint32 // the table after the updates, from first on, wrapping
}

func (b *logBlock) encode(out []byte, leg ID) {
	clear(out)
	le := binary.LittleEndian
	copy(out, logMagic)
	le.PutUint64(out[8:], b.sequence)
	copy(out[16:24], leg[:8])
	le.PutUint32(out[24:], b.slots)
	le.PutUint16(out[28:], uint16(len(b.updates)))
	le.PutUint16(out[30:], uint16(len(b.context)))
	le.PutUint32(out[32:], b.first)
	le.PutUint32(out[36:], b.flags)
	for i, u := range b.updates {
		le.PutUint32(out[offUpdates+8*i:], u.slot)
		le.PutUint32(out[offUpdates+8*i+4:], u.extent)
	}
	for i, e := range b.context {
		le.PutUint32(out[offContext+4*i:], e)
	}
	le.PutUint32(out[offLogCRC:], crcOf(out, offLogCRC))
}

var errBadLogBlock = errors.New("bad block of the activity log")

// decodeLogBlock reads a block at its place in the ring. Blocks of another leg, of another place, and damaged ones are told
// apart from good ones, not from each other.
func decodeLogBlock(in []byte, leg ID, place, blocks, slots uint32) (b logBlock, err error) {
	le := binary.LittleEndian
	if string(in[:4]) != logMagic || le.Uint32(in[offLogCRC:]) != crcOf(in, offLogCRC) || !bytes.Equal(in[16:24], leg[:8]) {
		return b, fmt.Errorf("%w: magic, checksum or leg", errBadLogBlock)
	}
	b = logBlock{
		sequence: le.Uint64(in[8:]), slots: le.Uint32(in[24:]), first: le.Uint32(in[32:]), flags: le.Uint32(in[36:]),
	}
	updates, context := int(le.Uint16(in[28:])), int(le.Uint16(in[30:]))
	switch {
	case b.sequence%uint64(blocks) != uint64(place):
		return b, fmt.Errorf("%w: sequence %d at place %d", errBadLogBlock, b.sequence, place)
	case b.slots != slots || updates > updatesMax || context > contextMax || context > int(slots) || b.first >= slots:
		return b, fmt.Errorf("%w: %d slots, %d updates, %d of context from %d", errBadLogBlock, b.slots, updates, context, b.first)
	}
	for i := range updates {
		u := slotUpdate{le.Uint32(in[offUpdates+8*i:]), le.Uint32(in[offUpdates+8*i+4:])}
		if u.slot >= slots {
			return b, fmt.Errorf("%w: slot %d", errBadLogBlock, u.slot)
		}
		b.updates = append(b.updates, u)
	}
	for i := range context {
		b.context = append(b.context, le.Uint32(in[offContext+4*i:]))
	}
	return b, nil
}

// logTable is what the ring says after a replay.
type logTable struct {
	first    uint64   // of the oldest block that counts
	sequence uint64   // of the newest block
	slots    []uint32 // extent of each slot, or noExtent
	whole    bool     // false: the log is lost, every extent may differ
}

// hot lists the extents of the table.
func (t *logTable) hot() []int64 {
	var extents []int64
	for _, e := range t.slots {
		if e != noExtent {
			extents = append(extents, int64(e))
		}
	}
	slices.Sort(extents)
	return extents
}

// crowded: so much is hot that no room is left to work; such a log is given up as a lost one is.
func (t *logTable) crowded() bool {
	return len(t.slots)-len(t.hot()) < len(t.slots)/(2*roomShare)
}

// replayLog reads the ring: the longest run of consecutive sequences that ends at the highest one, oldest first. It must
// begin at the first valid sequence or hold the whole table in its contexts. An invalid block beyond the end is normal:
// what it would have released was never submitted.
func replayLog(blocks []*logBlock, first uint64, slots uint32) logTable {
	t := logTable{slots: make([]uint32, slots)}
	bySequence := map[uint64]*logBlock{}
	for _, b := range blocks {
		if b != nil && b.sequence >= first {
			bySequence[b.sequence] = b
			t.sequence = max(t.sequence, b.sequence)
		}
	}
	if len(bySequence) == 0 { // nothing was ever made hot since the last clean close
		for i := range t.slots {
			t.slots[i] = noExtent
		}
		t.first, t.sequence, t.whole = first, first-1, true
		return t
	}
	begin := t.sequence
	for begin > first && bySequence[begin-1] != nil {
		begin--
	}
	t.first = begin
	known := make([]bool, slots)
	left := int(slots)
	set := func(slot, extent uint32) {
		t.slots[slot] = extent
		if !known[slot] {
			known[slot] = true
			left--
		}
	}
	if begin == first {
		for i := range t.slots {
			set(uint32(i), noExtent)
		}
	}
	for s := begin; s <= t.sequence; s++ {
		b := bySequence[s]
		for _, u := range b.updates {
			set(u.slot, u.extent)
		}
		for i, e := range b.context {
			set((b.first+uint32(i))%slots, e)
		}
	}
	t.whole = left == 0
	return t
}
