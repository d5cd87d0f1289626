package block

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// zeroes is what Zero writes, in pieces of its length.
var zeroes = Alloc(BufferMax)

// calls is the kernel as File sees it; tests put faults between.
type calls struct {
	pread  func(fd int, p []byte, off int64) (int, error)
	pwrite func(fd int, p []byte, off int64, flags int) (int, error)
	sync   func(fd int) error
}

var kernel = calls{
	pread: unix.Pread,
	pwrite: func(fd int, p []byte, off int64, flags int) (int, error) {
		if flags == 0 {
			return unix.Pwrite(fd, p, off)
		}
		return unix.Pwritev2(fd, [][]byte{p}, off, flags)
	},
	sync: unix.Fdatasync,
}

// File is a Device on a regular file.
type File struct {
	path string
	fd   int
	size int64
	sys  calls

	open   sync.RWMutex // held shared by every call, so that Close cannot give the descriptor away under one
	closed bool

	syncing  sync.Mutex // one fdatasync at a time: the kernel reports a lost write-back to one caller only
	durables overlap
	dead     atomic.Pointer[deadError]

	queueOnce sync.Once // made by the first request that wants it
	queue     *queue    // nil: there is none
}

// OpenFile opens an existing file of a multiple of 4 KiB with O_DIRECT under an exclusive flock, which the kernel
// keeps until the last I/O of a killed owner is done.
func OpenFile(path string) (*File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	})
	if errors.Is(err, unix.EINVAL) { // the one flag that open(2) refuses this way
		err = fmt.Errorf("the file system has no O_DIRECT: %w", err)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	size, err := lockAndMeasure(fd, unix.LOCK_EX)
	if err == nil && size%Unit != 0 {
		err = fmt.Errorf("%w: size %d is not a multiple of %d", ErrInvalid, size, Unit)
	}
	if err != nil {
		return nil, errors.Join(&os.PathError{Op: "open", Path: path, Err: err}, unix.Close(fd))
	}
	return &File{path: path, fd: fd, size: size, sys: kernel}, nil
}

// lockPatience is how long an open waits for a lock: what a killed owner had in a ring keeps the file, and its lock, until the
// kernel has done it.
const lockPatience = 2 * time.Second

// lock takes the lock of a file, or says EWOULDBLOCK after lockPatience.
func lock(fd, how int) error {
	again := time.NewTicker(lockPatience / 400)
	defer again.Stop()
	for deadline := time.Now().Add(lockPatience); ; <-again.C {
		_, err := retry(func() (int, error) { return 0, unix.Flock(fd, how|unix.LOCK_NB) })
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
	}
}

func lockAndMeasure(fd, how int) (int64, error) {
	err := lock(fd, how)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return 0, ErrLocked
	case err != nil:
		return 0, fmt.Errorf("flock: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("stat: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, fmt.Errorf("%w: not a regular file", ErrInvalid)
	}
	return st.Size, nil
}

// Size is the capacity in bytes.
func (f *File) Size() int64 { return f.size }

// ReadAt fills p from off. A read error does not kill the device.
func (f *File) ReadAt(p []byte, off int64) error {
	if err := CheckBuffer(p, off, f.size); err != nil {
		return err
	}
	if err := f.enter(); err != nil {
		return err
	}
	defer f.open.RUnlock()
	return f.read(p, off)
}

func (f *File) read(p []byte, off int64) error {
	err := whole(p, off, func(p []byte, off int64) (int, error) { return f.sys.pread(f.fd, p, off) })
	if err != nil {
		return fmt.Errorf("read %s at %d+%d: %w", f.path, off, len(p), err)
	}
	return nil
}

// WriteAt writes p at off, with RWF_DSYNC when Durable.
func (f *File) WriteAt(p []byte, off int64, d Durability) error {
	if err := CheckBuffer(p, off, f.size); err != nil {
		return err
	}
	if err := CheckDurability(d); err != nil {
		return err
	}
	if err := f.enter(); err != nil {
		return err
	}
	defer f.open.RUnlock()
	return f.write(p, off, d)
}

// Zero writes zeroes. It never punches or marks unwritten: an unwritten extent turns the first durable write to
// it into a commit of the file system's journal (p50 203-248 us against 119-140 us, replication.md section 3), and a
// hole breaks "no ENOSPC on a write".
func (f *File) Zero(off, n int64, d Durability) error {
	if err := CheckRange(off, n, f.size); err != nil {
		return err
	}
	if err := CheckDurability(d); err != nil {
		return err
	}
	if err := f.enter(); err != nil {
		return err
	}
	defer f.open.RUnlock()
	for n > 0 {
		piece := min(n, int64(len(zeroes)))
		if err := f.write(zeroes[:piece], off, d); err != nil {
			return err
		}
		off, n = off+piece, n-piece
	}
	return nil
}

// Sync is fdatasync. Its success also waits for the durable writes that overlapped it: one of them could have
// been told of a lost write-back, or of a failed cache flush, that this call was not told of.
func (f *File) Sync() error {
	if err := f.enter(); err != nil {
		return err
	}
	defer f.open.RUnlock()
	f.syncing.Lock()
	defer f.syncing.Unlock()
	return f.sync()
}

// sync is Sync of a caller that has the right to it.
func (f *File) sync() error {
	if dead := f.dead.Load(); dead != nil {
		return dead
	}
	if _, err := retry(func() (int, error) { return 0, f.sys.sync(f.fd) }); err != nil {
		return f.kill(fmt.Errorf("sync %s: %w", f.path, err))
	}
	f.durables.awaitOlder()
	return f.alive()
}

// Close waits for the calls in progress, then gives the descriptor and the lock back.
func (f *File) Close() error {
	f.open.Lock()
	defer f.open.Unlock()
	if f.closed {
		return ErrClosed
	}
	f.closed = true
	if f.queue != nil {
		f.queue.close()
	}
	if err := unix.Close(f.fd); err != nil {
		return &os.PathError{Op: "close", Path: f.path, Err: err}
	}
	return nil
}

// write issues one checked write and kills the device when it fails.
func (f *File) write(p []byte, off int64, d Durability) error {
	flags := 0
	if d == Durable {
		flags = unix.RWF_DSYNC
		generation := f.durables.enter()
		defer f.durables.leave(generation)
	}
	if dead := f.dead.Load(); dead != nil {
		return dead
	}
	err := whole(p, off, func(p []byte, off int64) (int, error) { return f.sys.pwrite(f.fd, p, off, flags) })
	if err != nil {
		return f.kill(fmt.Errorf("write %s at %d+%d: %w", f.path, off, len(p), err))
	}
	return f.alive()
}

// enter takes the open lock shared, or says why not.
func (f *File) enter() error {
	f.open.RLock()
	err := f.alive()
	if f.closed {
		err = ErrClosed
	}
	if err != nil {
		f.open.RUnlock()
	}
	return err
}

func (f *File) alive() error {
	if dead := f.dead.Load(); dead != nil {
		return dead
	}
	return nil
}

func (f *File) kill(cause error) error {
	f.dead.CompareAndSwap(nil, &deadError{cause})
	return f.dead.Load()
}

// deadError is ErrDead with its first cause.
type deadError struct{ cause error }

func (e *deadError) Error() string   { return ErrDead.Error() + ": " + e.cause.Error() }
func (e *deadError) Unwrap() []error { return []error{ErrDead, e.cause} }

// Dead wraps the first cause as ErrDead; for other implementations of Device.
func Dead(cause error) error { return &deadError{cause} }

// whole repeats call until all of p is done. O_DIRECT may stop short at any block; the rest is issued again from
// the last whole Unit, which repeats the same bytes at worst. No progress is an error.
func whole(p []byte, off int64, call func([]byte, int64) (int, error)) error {
	for len(p) > 0 {
		n, err := retry(func() (int, error) { return call(p, off) })
		if err != nil {
			return err
		}
		if n < len(p) {
			n &^= Unit - 1
		}
		if n <= 0 {
			return io.ErrUnexpectedEOF
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// retry repeats a call that a signal interrupted before it did anything.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
