// Package tlsrecord keeps an established TLS 1.3 connection in 120 bytes.
//
// A witness holds two connections for each of thousands of sites, and each says 64 bytes in half a minute. crypto/tls
// keeps 20 KiB and a goroutine for every one of them (measured: 608 MiB for 20,000), which no small machine has. So
// crypto/tls does the handshake, with all that can go wrong in one, and is let go; what stays is a key, an initial
// vector and a sequence number for each direction (RFC 8446 section 5), and the cipher is made anew for each record.
// Sessions are plain values that an event loop keeps for connections on which nothing happens.
//
// It promises that the other side cannot tell: what Seal makes any TLS 1.3 client opens, and Open accepts only the next
// record, whole and authentic. A record that is replayed, dropped, changed or reordered does not open, and a session
// that failed once is dead. It refuses what an idle connection of two known programs never needs: renegotiated keys
// (KeyUpdate), empty records, records longer than RecordMax. Whoever sends one finds the connection closed and dials.
package tlsrecord

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"
)

// Sizes. RecordMax holds sixteen requests of a witness; the protocol sends one in a record.
const (
	HeaderSize   = 5
	PlaintextMax = 1024
	overhead     = 1 + 16 // the inner content type, the tag: the same in all suites
	RecordMax    = HeaderSize + PlaintextMax + overhead
)

// Errors of a session.
var (
	ErrRecord    = errors.New("not the next record of this connection")
	ErrOversized = errors.New("record is larger than any of this protocol")
	ErrClosed    = errors.New("the other side has said goodbye")
)

const (
	typeAlert       = 21
	typeApplication = 23
	alertClose      = 0 // close_notify
)

// recordsMax under one key: RFC 8446 section 5.5 allows AES-GCM 2^24.5 full-size records. One each 30 s needs 16 years.
const recordsMax = 1 << 24

// half is one direction.
type half struct {
	key [32]byte
	iv  [12]byte
	seq uint64
}

// Session is both directions of a connection after its handshake. It holds no pointer.
type Session struct {
	suite   uint16
	dead    bool
	in, out half
}

func newSession(suite uint16, client, server []byte) (*Session, error) {
	s := &Session{suite: suite}
	if err := errors.Join(s.in.derive(suite, client), s.out.derive(suite, server)); err != nil {
		return nil, err
	}
	return s, nil
}

// derive is RFC 8446 section 7.3.
func (h *half) derive(suite uint16, secret []byte) error {
	digest := sha256.New
	var keySize int
	switch suite {
	case tls.TLS_AES_128_GCM_SHA256:
		keySize = 16
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		keySize = 32
	case tls.TLS_AES_256_GCM_SHA384:
		digest, keySize = sha512.New384, 32
	default:
		return fmt.Errorf("cipher suite %04x is not one of TLS 1.3 that crypto/tls has", suite)
	}
	if len(secret) != digest().Size() {
		return fmt.Errorf("a traffic secret has %d bytes", len(secret))
	}
	return errors.Join(expand(digest, secret, "key", h.key[:keySize]), expand(digest, secret, "iv", h.iv[:]))
}

// expand is HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
func expand(digest func() hash.Hash, secret []byte, label string, into []byte) error {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(len(into)))
	info = append(append(info, byte(len(label))), label...)
	info = append(info, 0)
	out, err := hkdf.Expand(digest, secret, string(info), len(into))
	copy(into, out)
	return err
}

func (s *Session) aead(h *half) (cipher.AEAD, error) {
	key := h.key[:]
	switch s.suite {
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		return chacha20poly1305.New(key)
	case tls.TLS_AES_128_GCM_SHA256:
		key = key[:16]
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// nonce is the iv xor the sequence number (RFC 8446 section 5.3), which no two records share.
func (h *half) nonce() (nonce [12]byte) {
	nonce = h.iv
	for i := range 8 {
		nonce[4+i] ^= byte(h.seq >> (56 - 8*i))
	}
	h.seq++
	return nonce
}

// Length is the size of the record, header included, that header begins.
func Length(header []byte) (int, error) {
	if header[0] != typeApplication || header[1] != 3 || header[2] != 3 {
		return 0, fmt.Errorf("it begins with %x: %w", header[:HeaderSize], ErrRecord)
	}
	size := HeaderSize + int(binary.BigEndian.Uint16(header[3:]))
	if size > RecordMax {
		return 0, fmt.Errorf("%d bytes: %w", size, ErrOversized)
	}
	return size, nil
}

// Open decrypts one whole record in place and returns its content. After an error the session is dead.
func (s *Session) Open(record []byte) ([]byte, error) {
	content, err := s.open(record)
	s.dead = s.dead || err != nil
	return content, err
}

func (s *Session) open(record []byte) ([]byte, error) {
	if s.dead || s.in.seq >= recordsMax || len(record) <= HeaderSize+overhead {
		return nil, ErrRecord
	}
	if size, err := Length(record); err != nil || size != len(record) {
		return nil, errors.Join(ErrRecord, err)
	}
	aead, err := s.aead(&s.in)
	if err != nil {
		return nil, err
	}
	nonce := s.in.nonce()
	inner, err := aead.Open(record[HeaderSize:HeaderSize], nonce[:], record[HeaderSize:], record[:HeaderSize])
	if err != nil {
		return nil, ErrRecord
	}
	for len(inner) > 0 && inner[len(inner)-1] == 0 { // padding (section 5.4)
		inner = inner[:len(inner)-1]
	}
	if len(inner) < 2 {
		return nil, fmt.Errorf("an empty one: %w", ErrRecord)
	}
	content, kind := inner[:len(inner)-1], inner[len(inner)-1]
	switch {
	case kind == typeApplication:
		return content, nil
	case kind == typeAlert && len(content) == 2 && content[1] == alertClose:
		return nil, ErrClosed
	case kind == typeAlert && len(content) == 2:
		return nil, fmt.Errorf("alert %d of the other side: %w", content[1], ErrRecord)
	default:
		return nil, fmt.Errorf("one of type %d: %w", kind, ErrRecord)
	}
}

// Seal appends one record with content to dst.
func (s *Session) Seal(dst, content []byte) ([]byte, error) {
	return s.seal(dst, content, typeApplication)
}

func (s *Session) seal(dst, content []byte, kind byte) ([]byte, error) {
	if s.dead || s.out.seq >= recordsMax || len(content) == 0 || len(content) > PlaintextMax {
		return dst, ErrRecord
	}
	aead, err := s.aead(&s.out)
	if err != nil {
		return dst, err
	}
	header := [HeaderSize]byte{typeApplication, 3, 3}
	binary.BigEndian.PutUint16(header[3:], uint16(len(content)+overhead))
	inner := append(append(make([]byte, 0, len(content)+overhead), content...), kind)
	nonce := s.out.nonce()
	return append(dst, aead.Seal(append(make([]byte, 0, RecordMax), header[:]...), nonce[:], inner, header[:])...), nil
}
