package block

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ring is an io_uring for one request at a time, carried out by whoever waits for it: submitted and waited for in one call into
// the kernel, like pread, but for no longer than wanted. (A goroutine for each request, which Watch uses for what a ring is
// not for, wakes another thread for each: it doubled the time of a 4 KiB read.)
//
// The layout is that of linux/io_uring.h; see io_uring(7), io_uring_setup(2), io_uring_enter(2).
type ring struct {
	fd           int
	mapped, sqes []byte
	sqTail       *atomic.Uint32
	cqHead       *atomic.Uint32
	cqTail       *atomic.Uint32
	cqMask       uint32
	sqMask       uint32
	sqArray      uintptr
	cqes         uintptr
	arg          ringArg // of the call into the kernel; not on a stack, which moves
	ts           unix.Timespec
	submitted    bool
	broken       bool // it answered something that makes no sense
}

const (
	ringsMax = 64 // of this process; beyond them requests go the other way

	ringEnterGetEvents = 1 << 0
	ringEnterExtArg    = 1 << 3
	ringFeatSingleMmap = 1 << 0
	ringFeatExtArg     = 1 << 8
	ringOffSqes        = 0x10000000
	ringOpRead         = 22
	ringOpWrite        = 23
)

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, sqCPU, sqIdle, features, wqFD uint32
	_                                                          [3]uint32
	sq                                                         struct{ head, tail, mask, entries, flags, dropped, array, _ uint32 }
	_                                                          uint64
	cq                                                         struct{ head, tail, mask, entries, overflow, cqes, flags, _ uint32 }
	_                                                          uint64
}

// ringSQE is struct io_uring_sqe.
type ringSQE struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	len, rwFlags  uint32
	userData      uint64
	_             [3]uint64
}

// ringCQE is struct io_uring_cqe.
type ringCQE struct {
	userData uint64
	res      int32
	flags    uint32
}

// ringArg is struct io_uring_getevents_arg.
type ringArg struct {
	sigmask         uint64
	sigmaskSize, _1 uint32
	ts              uint64
}

// rings are those that nobody uses.
var rings struct {
	mu    sync.Mutex
	free  []*ring
	made  int
	never bool // the kernel has none, or does not let us
}

// takeRing returns nil when there is none to be had.
func takeRing() *ring {
	rings.mu.Lock()
	defer rings.mu.Unlock()
	if n := len(rings.free); n > 0 {
		r := rings.free[n-1]
		rings.free = rings.free[:n-1]
		return r
	}
	if rings.never || rings.made == ringsMax {
		return nil
	}
	r, err := newRing()
	if err != nil {
		rings.never = true
		return nil
	}
	rings.made++
	return r
}

// giveRing takes one back whose request has ended.
func giveRing(r *ring) {
	rings.mu.Lock()
	defer rings.mu.Unlock()
	if r.broken {
		r.close()
		rings.made--
		return
	}
	rings.free = append(rings.free, r)
}

func newRing() (*ring, error) {
	var p ringParams
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, errno
	}
	r := &ring{fd: int(fd)}
	if p.features&ringFeatSingleMmap == 0 || p.features&ringFeatExtArg == 0 {
		r.close()
		return nil, unix.ENOSYS
	}
	size := max(int(p.sq.array)+4*int(p.sqEntries), int(p.cq.cqes)+int(p.cqEntries)*int(unsafe.Sizeof(ringCQE{})))
	var err error
	if r.mapped, err = unix.Mmap(r.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err == nil {
		r.sqes, err = unix.Mmap(r.fd, ringOffSqes, int(p.sqEntries)*int(unsafe.Sizeof(ringSQE{})),
			unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	at := func(off uint32) unsafe.Pointer { return unsafe.Pointer(&r.mapped[off]) }
	r.sqTail, r.cqHead, r.cqTail = (*atomic.Uint32)(at(p.sq.tail)), (*atomic.Uint32)(at(p.cq.head)), (*atomic.Uint32)(at(p.cq.tail))
	r.sqMask, r.cqMask = *(*uint32)(at(p.sq.mask)), *(*uint32)(at(p.cq.mask))
	r.sqArray, r.cqes = uintptr(p.sq.array), uintptr(p.cq.cqes)
	return r, nil
}

func (r *ring) close() {
	for _, m := range [][]byte{r.mapped, r.sqes} {
		if m != nil {
			_ = unix.Munmap(m) //nolint:errcheck // it was mapped
		}
	}
	_ = unix.Close(r.fd) //nolint:errcheck // nothing was written
}

// begin prepares a read or a write. Nothing is issued before wait.
func (r *ring) begin(op uint8, fd int, p []byte, off int64) {
	tail := r.sqTail.Load()
	i := tail & r.sqMask
	sqe := (*ringSQE)(unsafe.Pointer(&r.sqes[uintptr(i)*unsafe.Sizeof(ringSQE{})]))
	*sqe = ringSQE{
		opcode: op, fd: int32(fd), off: uint64(off), addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))), len: uint32(len(p)),
		userData: uint64(off),
	}
	*(*uint32)(unsafe.Pointer(&r.mapped[r.sqArray+4*uintptr(i)])) = i
	r.sqTail.Store(tail + 1)
	r.submitted = false
}

// errNotIssued: the kernel did not take the request; nothing has happened.
var errNotIssued = errors.New("the ring did not take the request")

// wait issues what begin prepared and waits for its end, for about d at most; 0: as long as it takes. n is what it did. Without done
// the request is still under way, and its memory with it.
func (r *ring) wait(d time.Duration) (n int, done bool, err error) {
	r.arg = ringArg{}
	if d > 0 {
		r.ts = unix.NsecToTimespec(int64(d))
		r.arg.ts = uint64(uintptr(unsafe.Pointer(&r.ts)))
	}
	for {
		submit := uintptr(1)
		if r.submitted {
			submit = 0
		}
		issued, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, 1, ringEnterGetEvents|ringEnterExtArg,
			uintptr(unsafe.Pointer(&r.arg)), unsafe.Sizeof(r.arg))
		r.submitted = r.submitted || errno == 0 && issued > 0
		if head := r.cqHead.Load(); head != r.cqTail.Load() {
			cqe := *(*ringCQE)(unsafe.Pointer(&r.mapped[r.cqes+uintptr(head&r.cqMask)*unsafe.Sizeof(ringCQE{})]))
			r.cqHead.Store(head + 1)
			if cqe.res < 0 {
				return 0, true, unix.Errno(-cqe.res)
			}
			return int(cqe.res), true, nil
		}
		switch {
		case !r.submitted && errno != unix.EINTR:
			r.broken = true
			return 0, true, errNotIssued
		case r.submitted && d > 0:
			return 0, false, nil // its time is over, or a signal came
		}
	}
}

// underWay is one request of a file in a ring.
type underWay struct {
	f    *File
	ring *ring
	op   uint8
	p    []byte
	off  int64
}

// beginRead and beginWrite begin a read, or a write that is Cached, that is waited for no longer than wanted. nil: call ReadAt or
// WriteAt instead, which also say what is wrong with a call. p is the kernel's until wait says that the request has ended.
func (f *File) beginRead(p []byte, off int64) *underWay  { return f.begin(ringOpRead, p, off) }
func (f *File) beginWrite(p []byte, off int64) *underWay { return f.begin(ringOpWrite, p, off) }

func (f *File) begin(op uint8, p []byte, off int64) *underWay {
	if len(p) == 0 || CheckBuffer(p, off, f.size) != nil || f.enter() != nil {
		return nil
	}
	r := takeRing()
	if r == nil {
		f.open.RUnlock()
		return nil
	}
	r.begin(op, f.fd, p, off)
	return &underWay{f, r, op, p, off}
}

// wait waits for about d; 0: for the end.
func (u *underWay) wait(d time.Duration) (done bool, err error) {
	n, done, err := u.ring.wait(d)
	runtime.KeepAlive(u.p)
	if !done {
		return false, nil
	}
	giveRing(u.ring)
	defer u.f.open.RUnlock()
	switch {
	case errors.Is(err, errNotIssued), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR), errors.Is(err, unix.EOPNOTSUPP):
		n, err = 0, nil // nothing was done: the plain way
	case err == nil && n == len(u.p):
		return true, u.f.alive()
	}
	return true, u.f.finish(u.op, u.p[n&^(Unit-1):], u.off+int64(n&^(Unit-1)), err)
}

// finish does what a ring left to do, or says what went wrong there. A write that failed is not tried again.
func (f *File) finish(op uint8, p []byte, off int64, err error) error {
	switch {
	case op == ringOpWrite && err == nil:
		return f.write(p, off, Cached)
	case op == ringOpWrite:
		return f.kill(fmt.Errorf("write %s at %d+%d: %w", f.path, off, len(p), err))
	case err == nil:
		err = whole(p, off, func(p []byte, off int64) (int, error) { return f.sys.pread(f.fd, p, off) })
	}
	if err != nil {
		return fmt.Errorf("read %s at %d+%d: %w", f.path, off, len(p), err)
	}
	return nil
}
