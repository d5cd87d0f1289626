package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Type is what a frame asks or tells. The numbers are on the wire.
type Type uint8

// The types of frames. Hello opens an incarnation; the others need one.
const (
	Hello       Type = 1
	Leg         Type = 2  // a leg's record, JSON
	Decide      Type = 3  // the dialing node's decision for a volume, JSON
	CopyAsked   Type = 4  // the coordinator's duetd ordered a copy, JSON
	Map         Type = 5  // dirty bits of the target, offset = first byte they stand for
	Ping        Type = 6  //
	Progress    Type = 7  // a source's volumes are proved, JSON
	Finish      Type = 8  // make the result of the copy durable, JSON
	Done        Type = 9  // both sides are durable, JSON
	Hot         Type = 11 // extents that the target's activity log names, u32 each; before its Map
	Returned    Type = 10 // the coordinator has reported the return of a leg and holds, JSON
	Write       Type = 16 //
	Zero        Type = 17 //
	Flush       Type = 18 //
	Acks        Type = 19 // n × {request, status}
	Resync      Type = 20 // a block run of the copy
	Digest      Type = 21 // 16 bytes of SHA-256 per block; answered by DigestReply
	DigestReply Type = 22 // one bit per block: 1 = differs
	Barrier     Type = 23 // prove what was received up to here; answered by BarrierReply
	BarrierDone Type = 24 // root of the target
	Leaves      Type = 25 // leaf digests of the source; answered by LeavesReply
	LeavesReply Type = 26 // one bit per extent: 1 = differs
	ProxyWrite  Type = 32 // of a client at the node that does not coordinate the volume
	ProxyZero   Type = 33 //
	ProxyFlush  Type = 34 //
	ProxyRead   Type = 35 // answered by Reply
	Reply       Type = 36 // the answer to a request, with data: request, status, payload
	LegRead     Type = 40 // what the other leg holds, whoever coordinates the volume; answered by Reply
	Compare     Type = 42 // 16 bytes of SHA-256 per block; answered by Reply with one bit per block: 1 = differs
	Stat        Type = 43 // how quick the sender's leg is: offset = p50 in microseconds, length = age of its oldest request in ticks
	ResyncBad   Type = 41 // of a copy: one block that is damaged at the source; status = its sum
)

// Flags of a frame.
const (
	FUA     uint8 = 1 << 0
	Last    uint8 = 1 << 3
	Vouched uint8 = 1 << 4 // of a LegRead: give the block only if its sum is known
)

// Limits of the format.
const (
	HeaderBytes  = 64
	MaxPayload   = 1 << 20
	SumBlock     = 4096
	maxSums      = MaxPayload / SumBlock
	frameVersion = 1
)

var (
	magic      = [4]byte{'D', 'U', 'L', '1'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// ErrFrame is every violation of the format: the connection is closed, nothing is repaired inside it.
var ErrFrame = errors.New("broken frame")

// Frame is one message of a lane: 64 bytes of header, one sum for each 4 KiB of payload, the payload. Its own
// CRC covers header and sums; the sums guard the payload, so the receiver checks it before it writes.
type Frame struct {
	Type        Type
	Flags       uint8
	Session     uint32 // low half
	Epoch       uint32 // low half
	Sequence    uint64 // +1 each, per direction and incarnation
	Volume      uint32 // handle that the sender gave in its Leg frame
	Request     uint32 // answered by Acks if not 0
	Offset      uint64
	Length      uint32 // of the range
	Status      uint32
	Incarnation uint32 // low half
	Payload     []byte
	Sums        []uint32 // of each SumBlock of the payload, see sumOf; nil when sending: they are computed

	one [1]uint32 // of a payload of one block, the most frequent one

	sent func() // the payload is not used any more; nil: nobody asked
}

// appendHeader encodes header and sums.
func (f *Frame) appendHeader(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, HeaderBytes)...)
	h := dst[start:]
	copy(h, magic[:])
	h[4], h[5] = byte(f.Type), f.Flags
	le := binary.LittleEndian
	le.PutUint16(h[6:], frameVersion)
	le.PutUint32(h[8:], f.Session)
	le.PutUint32(h[12:], f.Epoch)
	le.PutUint64(h[16:], f.Sequence)
	le.PutUint32(h[24:], f.Volume)
	le.PutUint32(h[28:], f.Request)
	le.PutUint64(h[32:], f.Offset)
	le.PutUint32(h[40:], f.Length)
	le.PutUint32(h[44:], uint32(len(f.Payload)))
	le.PutUint32(h[48:], uint32(sumsOf(len(f.Payload))))
	le.PutUint32(h[52:], f.Status)
	le.PutUint32(h[56:], f.Incarnation)
	for _, sum := range f.Sums {
		dst = le.AppendUint32(dst, sum)
	}
	for rest := f.Payload; f.Sums == nil && len(rest) > 0; {
		n := min(len(rest), SumBlock)
		dst = le.AppendUint32(dst, sumOf(rest[:n]))
		rest = rest[n:]
	}
	le.PutUint32(dst[start+60:], headerCRC(dst[start:]))
	return dst
}

// sumOf is the CRC32C of a part of a payload, with 1 in place of 0: what the sums of a leg's table are (package meta), which a
// sender takes as they are.
func sumOf(p []byte) uint32 { return max(crc32.Checksum(p, castagnoli), 1) }

func sumsOf(payload int) int { return (payload + SumBlock - 1) / SumBlock }

// headerCRC covers bytes 0..59 and the sums.
func headerCRC(b []byte) uint32 {
	c := crc32.Update(0, castagnoli, b[:60])
	return crc32.Update(c, castagnoli, b[HeaderBytes:])
}

// reader decodes frames from one connection.
type reader struct {
	r   io.Reader
	get func(n int) []byte // memory for a payload
	put func([]byte)
	buf [HeaderBytes + 4*maxSums]byte
}

// next reads one frame. Its payload, if any, came from get and belongs to the caller. limit bounds the payload
// before the connection is authenticated as an incarnation.
func (r *reader) next(limit int) (*Frame, error) {
	h := r.buf[:HeaderBytes]
	if _, err := io.ReadFull(r.r, h); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if [4]byte(h[:4]) != magic || le.Uint16(h[6:]) != frameVersion {
		return nil, fmt.Errorf("%w: magic or version", ErrFrame)
	}
	payload, sums := le.Uint32(h[44:]), le.Uint32(h[48:])
	if payload > uint32(limit) || payload > MaxPayload || int(sums) != sumsOf(int(payload)) {
		return nil, fmt.Errorf("%w: payload of %d bytes with %d sums", ErrFrame, payload, sums)
	}
	all := r.buf[:HeaderBytes+4*int(sums)]
	if _, err := io.ReadFull(r.r, all[HeaderBytes:]); err != nil {
		return nil, unexpected(err)
	}
	if le.Uint32(h[60:]) != headerCRC(all) {
		return nil, fmt.Errorf("%w: header checksum", ErrFrame)
	}
	f := &Frame{
		Type: Type(h[4]), Flags: h[5],
		Session: le.Uint32(h[8:]), Epoch: le.Uint32(h[12:]), Sequence: le.Uint64(h[16:]),
		Volume: le.Uint32(h[24:]), Request: le.Uint32(h[28:]),
		Offset: le.Uint64(h[32:]), Length: le.Uint32(h[40:]),
		Status: le.Uint32(h[52:]), Incarnation: le.Uint32(h[56:]),
	}
	if payload == 0 {
		return f, nil
	}
	f.Payload = r.get(int(payload))
	if f.Sums = f.one[:]; sums > 1 {
		f.Sums = make([]uint32, sums)
	}
	for i := range f.Sums {
		f.Sums[i] = le.Uint32(all[HeaderBytes+4*i:])
	}
	if err := r.body(f.Payload, f.Sums); err != nil {
		r.put(f.Payload)
		return nil, err
	}
	return f, nil
}

func (r *reader) body(p []byte, sums []uint32) error {
	if _, err := io.ReadFull(r.r, p); err != nil {
		return unexpected(err)
	}
	for i := 0; len(p) > 0; i++ {
		n := min(len(p), SumBlock)
		if sumOf(p[:n]) != sums[i] {
			return fmt.Errorf("%w: payload checksum", ErrFrame)
		}
		p = p[n:]
	}
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
