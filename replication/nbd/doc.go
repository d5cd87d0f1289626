// Package nbd is duet's NBD server: it speaks the protocol of the NBD project's proto.md (fixed newstyle, simple and
// structured replies, metadata contexts) to QEMU, libnbd and the kernel, and hands what it understood to a Volume. It
// knows no disk and no mirror.
//
// It promises that requests of one connection run side by side and each is answered as soon as it is done, so
// one held write stops nothing but itself; that a reply says success only if the volume said so; that an error
// never leaves the stream out of step (the payload of a refused write is drained, and a read that fails sends none of
// its data); that a Volume sees only aligned pieces of at most 1 MiB, and that the read-modify-write of a ragged
// request is atomic against every other write of every connection to the same export. When it stops, it answers what
// is done and closes; it never turns "I am going away" into an error, because QEMU connects again and repeats what was
// not answered, but passes an error on to the guest (replication.md P6 and section 14).
//
// It refuses, with an error of the protocol and a reason: unknown exports, options and commands, flags that were not
// offered, ranges beyond the end, requests over 32 MiB, block status without a selected context, and zeroes that would
// have to be faster than writing them. TLS is answered "unsupported"; the socket's permissions decide who may connect.
// It closes the connection when the stream cannot be trusted any more: a wrong magic, a payload too long to drain, a
// handshake that does not end.
//
// Memory and goroutines are bounded by the named limits below: a connection that is at its limits is not read
// from until something is answered.
//
// Two metadata contexts are offered. "base:allocation" says of every block that it is data: a leg is thick. With
// "x-duet:dirty" bit 0 of a descriptor says that the other node's leg may lack the blocks; a volume that cannot know
// (it is no DirtyMap) does not have it.
//
// There is no Go library with FUA, trim and multi-conn to use instead (replication.md section 15).
package nbd

import (
	"time"

	"duet/replication/block"
)

// Limits. Each names what fails without it.
const (
	// RequestBytesMax is the longest read or write: the size every client may assume (proto.md, block size
	// constraints). Longer ones are refused, not split.
	RequestBytesMax = 32 << 20
	// PieceBytesMax is the longest range a Volume sees, the maximum that is advertised, and the largest pool
	// buffer.
	PieceBytesMax = block.BufferMax
	// requestsMax and bytesMax are what one connection may have in flight (replication.md section 13: 256
	// requests, 32 MiB); then reading stops.
	requestsMax = 256
	bytesMax    = 32 << 20
	// connectionsMax bounds the sum of the above; a VM has one connection a disk, nbdcopy uses four.
	connectionsMax = 128
	// drainBytesMax is how much payload of a refused write is read away; beyond it closing is cheaper.
	drainBytesMax = 2 * RequestBytesMax
	// optionBytesMax is the longest option payload: an export name (4096 by proto.md) and some requests.
	optionBytesMax = 8 << 10
	nameBytesMax   = 4096
	// optionsMax is how many options a client may send before it must begin.
	optionsMax = 128
	// handshakeTimeout bounds how long a client may take until it begins, over all options and over reading what they
	// are answered: a client per slot that haggles for ever would keep everybody else out. Open does not count.
	handshakeTimeout = 30 * time.Second
	// stopTimeout is how long a stopping server waits for requests in flight (replication.md section 14, planned
	// stop). What is not done then is not answered; the client repeats it.
	stopTimeout = time.Second
	// acceptPause is the wait after a refused accept (no descriptors left).
	acceptPause = 100 * time.Millisecond
)
