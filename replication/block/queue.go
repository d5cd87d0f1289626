package block

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"duet/replication/internal/batch"
	"duet/replication/internal/nowait"
)

// A queue carries requests of one File to the kernel and back without a thread that waits for each: io_submit(2) for all that a
// batch has begun, an eventfd in the poller of the runtime for all that has ended.
//
// It is Linux's older asynchronous interface and not io_uring, because of whose thread completes a request. A ring finishes what a
// thread submitted in that thread, and a thread of a Go program may be in an fdatasync for as long as a disk likes, perhaps of another
// leg: a healthy leg would look as slow as a sick one. These completions come from the interrupt. The cost is the same: 6 us of
// CPU for a 4 KiB write of 32, where a blocked thread for each takes 24 (docs/performance.md).
//
// A request that would have to wait in the kernel before it reaches the disk (RWF_NOWAIT), and one that finds no slot, takes the
// plain way, in a goroutine of its own: whoever begins a request never waits for a disk, however full its queue is.
type queue struct {
	file   *File
	ctx    uintptr
	events *os.File // an eventfd
	ended  chan struct{}

	mu    sync.Mutex
	slots []slot
	free  []*slot
	begun []*controlBlock // not submitted yet

	submitting sync.Mutex
	list       []*controlBlock // of the one that submits
}

// slot is one request under way.
type slot struct {
	cb  controlBlock
	p   []byte // keeps it alive
	end func(*batch.Batch, error)
}

const (
	queueDepth = 256 // a volume's clients have no more under way (replication.md section 13)

	opRead         = 0 // IOCB_CMD_PREAD
	opWrite        = 1 // IOCB_CMD_PWRITE
	opSync         = 3 // IOCB_CMD_FDSYNC, which takes no flags
	flagEventFD    = 1 // IOCB_FLAG_RESFD
	rwNoWait       = 8 // RWF_NOWAIT
	eventsAtOnce   = 64
	eventfdCounter = 8 // bytes
)

// controlBlock is struct iocb of linux/aio_abi.h on a little-endian machine.
type controlBlock struct {
	data         uint64 // index of the slot
	key, rwFlags uint32
	opcode       uint16
	priority     int16
	fd           uint32
	buf, n       uint64
	off          int64
	_            uint64
	flags, event uint32
}

// completion is struct io_event.
type completion struct {
	data, obj uint64
	res, res2 int64
}

// newQueue says nil when the kernel has none to give.
func newQueue(f *File) *queue {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil
	}
	q := &queue{
		file: f, events: os.NewFile(uintptr(fd), "completions of "+f.path), ended: make(chan struct{}),
		slots: make([]slot, queueDepth), free: make([]*slot, queueDepth),
	}
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, queueDepth, uintptr(unsafe.Pointer(&q.ctx)), 0); errno != 0 {
		_ = q.events.Close() //nolint:errcheck // nothing was written
		return nil
	}
	for i := range q.slots {
		s := &q.slots[i]
		s.cb = controlBlock{data: uint64(i), fd: uint32(f.fd), flags: flagEventFD, event: uint32(fd)}
		q.free[i] = s
	}
	go q.reap()
	return q
}

// close is called when nothing is under way; then nothing more is told.
func (q *queue) close() {
	unix.Syscall(unix.SYS_IO_DESTROY, q.ctx, 0, 0)
	_ = q.events.Close() //nolint:errcheck // nothing was written
	<-q.ended
}

// begin takes a request that goes to the kernel when b ends; false: there is no slot. end is called once.
func (q *queue) begin(b *batch.Batch, op uint16, p []byte, off int64, end func(*batch.Batch, error)) bool {
	q.mu.Lock()
	n := len(q.free)
	if n == 0 {
		q.mu.Unlock()
		return false
	}
	s := q.free[n-1]
	q.free = q.free[:n-1]
	s.p, s.end = p, end
	s.cb.opcode, s.cb.buf, s.cb.n, s.cb.off = op, uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))), uint64(len(p)), off
	if s.cb.rwFlags = rwNoWait; op == opSync {
		s.cb.rwFlags = 0
	}
	q.begun = append(q.begun, &s.cb)
	q.mu.Unlock()
	b.Owe(q)
	return true
}

// Flush submits what was begun.
func (q *queue) Flush() {
	q.submitting.Lock()
	defer q.submitting.Unlock()
	q.mu.Lock()
	q.list, q.begun = q.begun, q.list[:0]
	q.mu.Unlock()
	for list := q.list; len(list) > 0; {
		n, errno := nowait.Call(unix.SYS_IO_SUBMIT, q.ctx, uintptr(len(list)), uintptr(unsafe.Pointer(unsafe.SliceData(list))))
		if errno != 0 || n == 0 {
			q.refused(list[0]) // the kernel has done nothing for the first of the list
			n = 1
		}
		list = list[n:]
	}
}

// reap tells the ends, until close.
func (q *queue) reap() {
	defer close(q.ended)
	var b batch.Batch
	var counter [eventfdCounter]byte
	done := make([]completion, eventsAtOnce)
	raw, err := q.events.SyscallConn()
	for err == nil {
		err = raw.Read(func(fd uintptr) bool {
			_, none := nowait.Read(fd, counter[:])
			return none == nil
		}) // closed
		for more := true; more; {
			n, errno := nowait.Call(unix.SYS_IO_GETEVENTS, q.ctx, 0, uintptr(len(done)), uintptr(unsafe.Pointer(&done[0])), 0)
			if errno != 0 {
				n = 0
			}
			for _, c := range done[:n] {
				q.completed(&b, c)
			}
			more = int(n) == len(done)
		}
		b.End()
	}
}

// take frees the slot of a request that has ended in the kernel.
func (q *queue) take(i uint64) (op uint16, p []byte, off int64, end func(*batch.Batch, error)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := &q.slots[i]
	op, p, off, end = s.cb.opcode, s.p, s.cb.off, s.end
	s.p, s.end = nil, nil
	q.free = append(q.free, s)
	return op, p, off, end
}

func (q *queue) completed(b *batch.Batch, c completion) {
	op, p, off, end := q.take(c.data)
	f := q.file
	n := max(c.res, 0) &^ (Unit - 1)
	switch {
	case c.res == int64(len(p)) && op == opSync && !f.durables.none():
		go f.plainly(op, p, off, end) // see Sync; rather than to wait for them here, once more
	case c.res == int64(len(p)):
		err := f.alive()
		f.open.RUnlock()
		end(b, err)
	case c.res >= 0, op != opSync && notBegun(unix.Errno(-c.res)):
		go f.plainly(op, p[n:], off+n, end)
	default:
		err := f.failed(op, p, off, unix.Errno(-c.res))
		f.open.RUnlock()
		end(b, err)
	}
}

// refused is the other way for a request that the kernel did not take.
func (q *queue) refused(cb *controlBlock) {
	op, p, off, end := q.take(cb.data)
	go q.file.plainly(op, p, off, end)
}

// notBegun says that an error means that nothing was done, so the plain way is no repetition of a failed request.
func notBegun(errno unix.Errno) bool {
	return errno == unix.EAGAIN || errno == unix.EINTR || errno == unix.EOPNOTSUPP
}

// beginRead and beginWrite begin a request, a write that is Cached, that goes to the kernel when b ends. false: call ReadAt or WriteAt
// instead, which also say what is wrong with a call. end is called once, with what they would return, and not by this call; it
// must not wait. p is the kernel's until then.
func (f *File) beginRead(b *batch.Batch, p []byte, off int64, end func(*batch.Batch, error)) bool {
	return f.begin(b, opRead, p, off, end)
}

func (f *File) beginWrite(b *batch.Batch, p []byte, off int64, end func(*batch.Batch, error)) bool {
	return f.begin(b, opWrite, p, off, end)
}

// beginSync is beginWrite of a Sync. false: also while another one is under way.
func (f *File) beginSync(b *batch.Batch, end func(*batch.Batch, error)) bool {
	if f.enter() != nil {
		return false
	}
	if !f.syncing.TryLock() {
		f.open.RUnlock()
		return false
	}
	told := func(b *batch.Batch, err error) {
		f.syncing.Unlock()
		end(b, err)
	}
	if !f.queueBegin(b, opSync, nil, 0, told) {
		f.syncing.Unlock()
		f.open.RUnlock()
		return false
	}
	return true
}

func (f *File) begin(b *batch.Batch, op uint16, p []byte, off int64, end func(*batch.Batch, error)) bool {
	if len(p) == 0 || CheckBuffer(p, off, f.size) != nil || f.enter() != nil {
		return false
	}
	if !f.queueBegin(b, op, p, off, end) {
		f.open.RUnlock()
		return false
	}
	return true
}

func (f *File) queueBegin(b *batch.Batch, op uint16, p []byte, off int64, end func(*batch.Batch, error)) bool {
	f.queueOnce.Do(func() { f.queue = newQueue(f) })
	return f.queue != nil && f.queue.begin(b, op, p, off, end)
}

// plainly does what a queue left to do.
func (f *File) plainly(op uint16, p []byte, off int64, end func(*batch.Batch, error)) {
	var err error
	switch op {
	case opWrite:
		err = f.write(p, off, Cached)
	case opSync:
		err = f.sync()
	default:
		err = f.read(p, off)
	}
	f.open.RUnlock()
	var b batch.Batch
	end(&b, err)
	b.End()
}

// failed is the error of a request; a write that failed is not tried again.
func (f *File) failed(op uint16, p []byte, off int64, errno unix.Errno) error {
	switch op {
	case opWrite:
		return f.kill(fmt.Errorf("write %s at %d+%d: %w", f.path, off, len(p), errno))
	case opSync:
		return f.kill(fmt.Errorf("sync %s: %w", f.path, errno))
	}
	return fmt.Errorf("read %s at %d+%d: %w", f.path, off, len(p), errno)
}
