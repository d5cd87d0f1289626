package peerlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A frame on the wire, little-endian: a length, a fixed head, a body. TLS below it guards every byte, so there is no
// checksum; the head is the same for all kinds, so one decoder is all that faces the network after the handshake.
//
//	0   4  length of what follows: head + body
//	4   1  kind
//	5   8  session
//	13  8  incarnation of the sender's stream (kindData), of the sender (all others)
//	21  8  sequence (kindData), nonce of the dialer (kindOffer, kindAccept)
//	29  8  stamp: the sender's loss clock (kindPing), repeated (kindPong); nonce of the acceptor (kindAccept)
//	37  8  incarnation whose messages are acknowledged
//	45  8  highest sequence of it that was consumed
//	53  -  body
const (
	lengthBytes = 4
	headBytes   = 49

	// MaxBody bounds a message; the site document of a full site is about 30 KiB (32 VMs, 32 volumes).
	MaxBody = 256 << 10

	// maxGreeting bounds the first frame, which is read before the other side has proved to speak this protocol.
	maxGreeting = 1 << 10
)

type kind uint8

const (
	kindGreeting kind = iota + 1 // first frame of both sides; body: greeting
	kindOffer                    // dialer: I hold no session
	kindAccept                   // acceptor: this session has begun here
	kindData                     // reliable, in order
	kindLoose                    // at most once a path, unordered: beats
	kindPing
	kindPong
	kindDrop // this session is not held here any more
	kindLast = kindDrop
)

type frame struct {
	kind    kind
	session uint64
	inc     uint64
	seq     uint64
	stamp   uint64
	ackInc  uint64
	ack     uint64
	body    []byte
}

var errFrame = errors.New("malformed frame")

func (f frame) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(headBytes+len(f.body))) //nolint:gosec // bodies are bounded by MaxBody
	b = append(b, byte(f.kind))
	for _, v := range [...]uint64{f.session, f.inc, f.seq, f.stamp, f.ackInc, f.ack} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return append(b, f.body...)
}

// readFrame reads one frame whose body is at most maxBody; it never allocates more than that for a claimed length.
func readFrame(r io.Reader, maxBody int) (frame, error) {
	var head [lengthBytes + headBytes]byte
	if _, err := io.ReadFull(r, head[:lengthBytes]); err != nil {
		return frame{}, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n < headBytes || n > uint32(headBytes+maxBody) { //nolint:gosec // constants
		return frame{}, fmt.Errorf("%w: length %d", errFrame, n)
	}
	if _, err := io.ReadFull(r, head[lengthBytes:]); err != nil {
		return frame{}, err
	}
	f := frame{kind: kind(head[lengthBytes])}
	if f.kind == 0 || f.kind > kindLast {
		return frame{}, fmt.Errorf("%w: kind %d", errFrame, f.kind)
	}
	rest := head[lengthBytes+1:]
	for _, v := range [...]*uint64{&f.session, &f.inc, &f.seq, &f.stamp, &f.ackInc, &f.ack} {
		*v = binary.LittleEndian.Uint64(rest)
		rest = rest[8:]
	}
	if body := int(n) - headBytes; body > 0 {
		f.body = make([]byte, body)
		if _, err := io.ReadFull(r, f.body); err != nil {
			return frame{}, err
		}
	}
	return f, nil
}

// protocolVersion is spoken here. A node that does not speak it is refused; N with N-1 begins with version 2.
const protocolVersion = 1

// greeting is the body of the first frame: who speaks, from which chassis, of which site.
type greeting struct {
	version uint16
	node    uint8
	site    [16]byte // zero: a fresh node
	serial  string   // of the chassis
}

const (
	greetingMagic = "DUETPEER"
	maxSerial     = 64
)

func (g greeting) append(b []byte) []byte { //nolint:unparam // the form of frame.append
	b = append(b, greetingMagic...)
	b = binary.LittleEndian.AppendUint16(b, g.version)
	b = append(b, g.node)
	b = append(b, g.site[:]...)
	serial := g.serial[:min(len(g.serial), maxSerial)]
	b = append(b, byte(len(serial)))
	return append(b, serial...)
}

func parseGreeting(b []byte) (greeting, error) {
	const fixed = len(greetingMagic) + 2 + 1 + 16 + 1
	if len(b) < fixed || string(b[:len(greetingMagic)]) != greetingMagic {
		return greeting{}, fmt.Errorf("%w: not a greeting", errFrame)
	}
	b = b[len(greetingMagic):]
	g := greeting{version: binary.LittleEndian.Uint16(b), node: b[2]}
	copy(g.site[:], b[3:19])
	n := int(b[19])
	if g.node > 1 || n > maxSerial || len(b) != 20+n {
		return greeting{}, fmt.Errorf("%w: greeting", errFrame)
	}
	g.serial = string(b[20:])
	return g, nil
}
