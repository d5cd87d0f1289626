package nbd

import (
	"sync"

	"duet/replication/block"
)

// request is one command of a client and, later, its reply.
type request struct {
	flags, command uint16
	cookie         uint64
	off            uint64
	n              uint32
	err            errno
	why            string // of a refusal, for people
	failedAt       bool   // a read failed, in the piece that begins at
	at             uint64

	// The whole blocks that the range covers (of a trim: contains), and for reads and writes the pieces of at most
	// PieceBytesMax that carry data. Zeroes and trims have up to 4 GiB and no pieces: a list of them would be memory
	// that no budget counts.
	from, to int64
	pieces   []piece
	charge   int64
	charged  *budget // set once taken
	span     span
	term     uint64 // of the guard, when the read began
	header   [chunkHead + 8]byte
	body     []byte // of a block status: all of its reply
}

// piece is one range of the volume with its data.
type piece struct {
	off int64
	n   int64
	buf []byte
}

// requests are used again, with their lists: the data path allocates nothing.
var requests sync.Pool

func newRequest() *request {
	if r, ok := requests.Get().(*request); ok {
		return r
	}
	return new(request)
}

// release gives buffers and budget back; r is not to be used any more.
func (r *request) release() {
	for i := range r.pieces {
		if r.pieces[i].buf != nil {
			block.Put(r.pieces[i].buf)
		}
	}
	if r.charged != nil {
		r.charged.give(r.charge)
	}
	clear(r.pieces)
	*r = request{pieces: r.pieces[:0], body: r.body[:0]}
	requests.Put(r)
}

// offer is what the handshake left a client to ask for.
type offer struct {
	size       uint64
	structured bool
	contexts   []metaContext // selected for BLOCK_STATUS
}

// check is the protocol's judgement of a request, before anything is done for it, with a reason for people.
func (r *request) check(o offer) (errno, string) {
	allowed := uint16(cmdFlagFUA) // legal on every command once offered (proto.md), meaningful on three
	past := eINVAL
	limit := uint32(1<<32 - 1)
	switch r.command {
	case cmdRead:
		limit = RequestBytesMax
		if o.structured {
			allowed |= cmdFlagDF // a read is always answered in one chunk
		}
	case cmdWrite:
		limit, past = RequestBytesMax, eNOSPC
	case cmdWriteZeroes:
		allowed |= cmdFlagNoHole | cmdFlagFastZero
		past = eNOSPC
	case cmdTrim, cmdCache:
	case cmdBlockStatus:
		allowed |= cmdFlagReqOne
		switch {
		case len(o.contexts) == 0:
			return eINVAL, "no metadata context is selected"
		case r.n == 0:
			return eINVAL, "the status of no bytes"
		}
	case cmdFlush:
		if r.off != 0 || r.n != 0 {
			return eINVAL, "a flush has no range"
		}
	default:
		return eINVAL, "unknown command"
	}
	switch {
	case r.flags&^allowed != 0:
		return eINVAL, "a flag that this command does not have"
	case r.n > limit:
		return eINVAL, "longer than 32 MiB"
	case r.off > o.size || uint64(r.n) > o.size-r.off:
		return past, "beyond the end"
	case r.flags&cmdFlagFastZero != 0:
		return eNOTSUP, "zeroes are written here, no faster than data"
	}
	return eOK, ""
}

// plan lays the pieces over the range of a good request.
func (r *request) plan() {
	const unit = block.Unit
	r.from = int64(r.off) &^ (unit - 1)
	r.to = (int64(r.off) + int64(r.n) + unit - 1) &^ (unit - 1)
	if r.n == 0 {
		r.to = r.from
	}
	if r.command == cmdTrim { // only whole blocks
		r.from = (int64(r.off) + unit - 1) &^ (unit - 1)
		r.to = max((int64(r.off)+int64(r.n))&^(unit-1), r.from)
	}
	if r.command == cmdBlockStatus {
		r.charge = statusBytesMax
	}
	if r.command != cmdRead && r.command != cmdWrite {
		return
	}
	for at := r.from; at < r.to; at += PieceBytesMax {
		r.pieces = append(r.pieces, piece{off: at, n: min(PieceBytesMax, r.to-at)})
	}
	r.charge = min(r.to-r.from, bytesMax) // the cover of a ragged 32 MiB is a little more; it must fit
}

// allocate gives every piece its buffer.
func (r *request) allocate() {
	for i := range r.pieces {
		if r.pieces[i].buf == nil {
			r.pieces[i].buf = block.Get(int(r.pieces[i].n))
		}
	}
}

// wanted is the part of piece i that the client asked for or sent.
func (r *request) wanted(i int) []byte {
	p := &r.pieces[i]
	from := max(int64(r.off)-p.off, 0)
	to := min(int64(r.off)+int64(r.n)-p.off, p.n)
	return p.buf[from:to]
}

// ragged says that the range does not consist of whole blocks.
func (r *request) ragged() bool { return (r.off|uint64(r.n))%block.Unit != 0 }

// tells says that a reply without an error says something about the volume's content, which may be stale one day.
func (r *request) tells() bool { return r.command == cmdRead || r.command == cmdBlockStatus }

func (r *request) fua() bool { return r.flags&cmdFlagFUA != 0 }
