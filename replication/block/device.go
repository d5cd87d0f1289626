// Package block is the only code of duet that reads, writes and syncs a leg: a file opened with O_DIRECT under
// an exclusive lock, behind the small interface Device, which block/crashdev also provides in memory.
//
// It promises that a nil error of a Durable write or of Sync means the bytes survive a power cut, as far as
// the kernel and the disk tell the truth; that a call either does all of its range or fails; and that memory
// handed in is not touched after the call returned.
//
// It refuses to go on after an error. The first error of a write or a sync kills the device: that call and
// every later one, reads too, fails with ErrDead, which carries the first cause. The reason is that the kernel reports a
// lost write-back once, to one caller, and then marks the pages clean; a second fsync that succeeds proves
// nothing (PostgreSQL's "fsyncgate", 2018; replication.md section 9.5). Nothing is retried into success, except
// an interrupted call (EINTR) and the rest of a short one, which the kernel defines as not failed. A failed
// read kills nothing: media errors on reads are repaired from the other leg.
//
// Offsets, lengths and memory are multiples of Unit (4 KiB), the block of replication.md section 1: above it
// there is no atomicity, below it the engine's NBD server does read-modify-write. Other calls are refused with
// ErrInvalid before anything is issued.
//
// Reader is the way in for whoever only looks: it opens for reading alone and cannot change anything.
//
// All I/O of a File is synchronous (preadv2, pwritev2 with RWF_DSYNC, fdatasync) on the calling goroutine, which is also
// what the measured fast path at depth 1 wants (replication.md section 13); a Watch over it can give up waiting. There is no retry policy, no cache and
// no timeout here: how long a call may take is judged by the engine, which owns the consequences.
package block

import "errors"

// Unit is the alignment of every offset, length and buffer, and the size of a block of a volume.
const Unit = 4096

// Durability says what a write promises when it returns.
type Durability uint8

// The durabilities of a write. Every caller names one; there is no default.
const (
	Cached  Durability = iota + 1 // written; survives a power cut only after a later Sync
	Durable                       // survives a power cut (RWF_DSYNC, FUA on the wire)
)

// Device is one object of a leg. All methods may be called at the same time from several goroutines.
type Device interface {
	// ReadAt fills p from off.
	ReadAt(p []byte, off int64) error
	// WriteAt writes p at off.
	WriteAt(p []byte, off int64, d Durability) error
	// Zero writes zeroes; the blocks stay allocated and written.
	Zero(off, n int64, d Durability) error
	// Sync makes every write that returned before Sync was called survive a power cut.
	Sync() error
	// Size is the capacity in bytes, fixed while the device is open, a multiple of Unit.
	Size() int64
	// Close waits for the calls in progress and gives the lock back. It does not sync.
	Close() error
}

// Errors callers branch on; test with errors.Is.
var (
	ErrDead    = errors.New("device is dead after a write or sync error") // final; wraps the first cause
	ErrInvalid = errors.New("invalid range or alignment")                 // nothing was issued
	ErrLocked  = errors.New("another process has this leg open")          // OpenFile, OpenReader
	ErrClosed  = errors.New("device is closed")                           // after Close
)
