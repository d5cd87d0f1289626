package nbd

import (
	"context"
	"errors"

	"duet/replication/internal/batch"
)

// Export is one entry of the list a client may ask for.
type Export struct {
	Name        string
	Description string // for people; may be empty
}

// Backend tells what is exported. Its methods are called from many goroutines.
type Backend interface {
	// Exports lists what exists now.
	Exports() []Export
	// Open is called once per connection (and once per INFO). It may block until ctx ends while an export is
	// not there yet: the client's handshake waits. An unknown name is ErrUnknown at once.
	Open(ctx context.Context, name string) (Volume, error)
}

// Volume is an opened export. Every offset and length it sees is a multiple of 4096, within Size, and at most
// 1 MiB: the server splits larger requests and does the read-modify-write of ragged ones. Buffers are aligned,
// come from block.Get and belong to the server: they must not be kept after the call returned.
//
// A call may block for minutes (a held volume); the others of the connection go on. When ctx ends the client
// is gone and the call must return soon; its result is dropped. Calls of one connection run concurrently and
// in no order; a Flush covers every call that returned, on any connection, before it began.
type Volume interface {
	Size() int64
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64, fua bool) error
	Flush(ctx context.Context) error
	Zero(ctx context.Context, off, n int64, fua bool) error
	Trim(ctx context.Context, off, n int64) error
	// Close is called after the last call returned.
	Close()
}

// Beginner may be implemented by a volume that can carry requests out without a goroutine for each. false: this request needs
// the method without Begin; nothing has happened. Otherwise done is called exactly once, perhaps before the call returns and from any goroutine;
// neither it nor the call waits. What costs a call into the kernel is done when the batch ends, and so is what done leaves to its
// own batch.
type Beginner interface {
	// BeginRead reads n bytes, at most 1 MiB, into a buffer of block.Get that belongs to done.
	BeginRead(ctx context.Context, b *batch.Batch, off, n int64, done func(*batch.Batch, []byte, error)) bool
	// BeginWrite writes without FUA. p is used until done is called.
	BeginWrite(ctx context.Context, b *batch.Batch, p []byte, off int64, done func(*batch.Batch, error)) bool
	// BeginFlush flushes.
	BeginFlush(ctx context.Context, b *batch.Batch, done func(*batch.Batch, error)) bool
}

// Guard is implemented by a volume whose right to answer ends at a deadline (replication.md section 7). The server
// asks Live before each batch of replies goes to the socket. When the answer is no, the batch is kept, Wait is
// called, and then the reads of the batch are done again, because they may be stale by now; its other replies,
// which stay true, go out.
type Guard interface {
	// Live says whether the volume may answer now. It must be cheap: one clock read.
	Live() bool
	// Wait returns when Live, or when ctx ends, with its error.
	Wait(ctx context.Context) error
}

// Terms may be implemented beside Guard. Term changes whenever the right to answer lapsed or was given anew; a
// read that began in another term than the one in force when its reply is due is done again. Without it only a
// lapse that the server happens to see counts, not one that came and went while a slow client blocked the socket.
type Terms interface {
	Term() uint64
}

// DirtyMap may be implemented by a volume that knows which of its blocks the other leg lacks. Without it the context
// x-duet:dirty is not offered.
type DirtyMap interface {
	// NextDirty is the first run of bytes that the other leg may lack within [off, end), both multiples of 4096 within
	// Size; n = 0: there is none. It may block like a read, and its answer becomes stale like a read's.
	NextDirty(ctx context.Context, off, end int64) (from, n int64, err error)
}

// Errors of a backend or a volume with a meaning for the server. A syscall.Errno of EPERM, EINVAL, ENOSPC,
// ENOTSUP or ENOMEM goes to the client as it is; any other error becomes EIO.
var (
	// ErrUnknown refuses an export name.
	ErrUnknown = errors.New("unknown export")
	// ErrGone closes the connection without an answer: the client connects again and repeats the request.
	// It is the answer of a volume that is being closed, because an error would reach the guest
	// (replication.md P6).
	ErrGone = errors.New("export is going away")
)
