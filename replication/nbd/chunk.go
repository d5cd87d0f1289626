package nbd

import "encoding/binary"

// chunkHead is the length of a chunk's header: magic, flags, type, cookie, length of the rest.
const chunkHead = 20

// head is all of a reply but the data of a read. A client that negotiated structured replies gets them where the
// protocol demands them, for reads and block status, and where they say more: an error comes with its reason. Other successes are
// simple replies for everybody.
func (r *request) head(structured bool) []byte {
	switch {
	case structured && r.err != eOK:
		return r.errorChunk()
	case r.command == cmdBlockStatus && r.err == eOK:
		return r.body
	case structured && r.command == cmdRead && r.n == 0:
		return r.chunk(chunkNone, 0)
	case structured && r.command == cmdRead:
		// One chunk, whatever the length: all of it was read before the first byte goes out, so that a read that fails
		// in its last block sends nothing else. That is also what DF asks for.
		p := r.chunk(chunkData, 8+r.n)
		return binary.BigEndian.AppendUint64(p, r.off)
	}
	be := binary.BigEndian
	p := be.AppendUint32(r.header[:0], magicSimple)
	p = be.AppendUint32(p, uint32(r.err))
	return be.AppendUint64(p, r.cookie)
}

// chunk is the header of a reply's only chunk.
func (r *request) chunk(kind uint16, rest uint32) []byte {
	return appendChunk(r.header[:0], chunkDone, kind, r.cookie, rest)
}

func appendChunk(p []byte, flags, kind uint16, cookie uint64, rest uint32) []byte {
	be := binary.BigEndian
	p = be.AppendUint32(p, magicChunk)
	p = be.AppendUint16(p, flags)
	p = be.AppendUint16(p, kind)
	p = be.AppendUint64(p, cookie)
	return be.AppendUint32(p, rest)
}

// errorChunk says what went wrong, why, and of a read that failed where.
func (r *request) errorChunk() []byte {
	kind, rest := uint16(chunkError), 6+len(r.why)
	if r.failedAt {
		kind, rest = chunkErrorAt, rest+8
	}
	be := binary.BigEndian
	p := r.chunk(kind, uint32(rest))
	p = be.AppendUint32(p, uint32(r.err))
	p = be.AppendUint16(p, uint16(len(r.why)))
	p = append(p, r.why...)
	if r.failedAt {
		p = be.AppendUint64(p, r.at)
	}
	return p
}
