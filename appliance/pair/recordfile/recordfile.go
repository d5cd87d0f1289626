// Package recordfile keeps a node's membership record over power cuts: one file, two slots of 4 KiB, each with its
// own checksum and a growing sequence (protocol.md section 3).
//
// It promises that after a crash at any point of a write the file opens with the record before it or the record
// after it, never with a mix and never with nothing. A write goes to the slot that does not hold the newest record,
// and has reached the medium when Write returns (O_DSYNC; one slot is one aligned 4 KiB write).
//
// It refuses to guess. No file means a fresh node. A file whose slots are both bad means damage: ErrDamaged, and the
// node must not start, because what it forgot may be that it was excluded. That is why the file is created whole,
// with two valid empty slots, before anything is recorded: the very first write may be torn too, and must then still
// read as fresh.
//
// An error of a write or a sync is final: the store is dead, every later Write says so, and the node halts. A second
// attempt could report success for data that the kernel has already dropped.
package recordfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"duet/appliance/internal/durable"
)

// Layout of a slot, little-endian. The checksum covers everything behind it, so a torn sector anywhere in the slot
// shows; the sequence is inside it, so a slot can never win by a torn sequence.
//
//	0   8  magic "DUETREC1" (the digit is the version; another one is refused as damage)
//	8   4  crc32c of bytes 12..4095
//	12  4  length of the payload
//	16  8  sequence
//	24  -  payload, then zeroes
const (
	SlotBytes  = 4096
	headBytes  = 24
	MaxPayload = SlotBytes - headBytes
	slotCount  = 2
	magic      = "DUETREC1"
)

// ErrDamaged: the file exists and neither slot is valid.
var ErrDamaged = errors.New("both slots of the membership record are damaged")

// errDead answers every Write after the first failed one.
var errDead = errors.New("an earlier write of the membership record failed")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// File is an open record file. One goroutine owns it.
type File struct {
	f       *os.File
	newest  int    // slot of the newest record
	seq     uint64 // its sequence
	payload []byte // its content
	dead    error
}

// Open reads the record; it creates the file with two empty slots where there is none.
//
// Everything is synced before it is read: a process that was killed inside Write may have left a record that can be read
// and is not durable. Believed and acted on, it would be gone after the next power cut.
func Open(path string) (*File, error) { return open(path, (*os.File).Sync) }

// open has the sync as a parameter so that a test sees the order.
func open(path string, sync func(*os.File) error) (*File, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		empty := append(encodeSlot(0, nil), encodeSlot(0, nil)...)
		if err := durable.WriteFile(path, empty, 0o600); err != nil {
			return nil, fmt.Errorf("new record file: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DSYNC, 0)
	if err != nil {
		return nil, fmt.Errorf("record file: %w", err)
	}
	if err := errors.Join(sync(f), durable.SyncDir(filepath.Dir(path))); err != nil {
		return nil, errors.Join(fmt.Errorf("record file %s: sync before reading: %w", path, err), f.Close())
	}
	r := &File{f: f, newest: -1}
	if err := r.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("record file %s: %w", path, err), f.Close())
	}
	return r, nil
}

// load takes the newest valid slot. Equal sequences occur only in a new file, where both are empty.
func (r *File) load() error {
	buf := make([]byte, SlotBytes)
	for slot := range slotCount {
		n, err := r.f.ReadAt(buf, int64(slot)*SlotBytes)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read slot %d: %w", slot, err)
		}
		seq, payload, ok := decodeSlot(buf[:n])
		if ok && (r.newest < 0 || seq > r.seq) {
			r.newest, r.seq, r.payload = slot, seq, append([]byte(nil), payload...)
		}
	}
	if r.newest < 0 {
		return ErrDamaged
	}
	return nil
}

// Record is the newest record; sequence 0 with an empty payload means that nothing was ever recorded.
func (r *File) Record() (seq uint64, payload []byte) { return r.seq, r.payload }

// Write makes a record durable. Its sequence must be higher than the last one's.
func (r *File) Write(seq uint64, payload []byte) error {
	switch {
	case r.dead != nil:
		return r.dead
	case seq <= r.seq:
		return fmt.Errorf("record sequence %d is not above %d", seq, r.seq)
	case len(payload) > MaxPayload:
		return fmt.Errorf("record of %d bytes does not fit %d", len(payload), MaxPayload)
	}
	older := 1 - r.newest
	if _, err := r.f.WriteAt(encodeSlot(seq, payload), int64(older)*SlotBytes); err != nil {
		r.dead = fmt.Errorf("%w: %w", errDead, err)
		return fmt.Errorf("record slot %d: %w", older, err)
	}
	r.newest, r.seq, r.payload = older, seq, append([]byte(nil), payload...)
	return nil
}

// Close releases the file.
func (r *File) Close() error { return r.f.Close() }

func encodeSlot(seq uint64, payload []byte) []byte {
	b := make([]byte, SlotBytes)
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(payload))) //nolint:gosec // bounded by MaxPayload
	binary.LittleEndian.PutUint64(b[16:], seq)
	copy(b[headBytes:], payload)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return b
}

func decodeSlot(b []byte) (seq uint64, payload []byte, ok bool) {
	if len(b) != SlotBytes || string(b[:8]) != magic {
		return 0, nil, false
	}
	if binary.LittleEndian.Uint32(b[8:]) != crc32.Checksum(b[12:], castagnoli) {
		return 0, nil, false
	}
	n := binary.LittleEndian.Uint32(b[12:])
	if n > MaxPayload {
		return 0, nil, false
	}
	return binary.LittleEndian.Uint64(b[16:]), b[headBytes : headBytes+int(n)], true
}
