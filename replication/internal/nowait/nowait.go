// Package nowait makes calls into the kernel that do not wait, without telling the runtime.
//
// Before a call that may wait, the runtime wakes its monitor thread, when that one sleeps because the program had nothing to do; the
// monitor looks after 20 us, finds nothing to do and sleeps again. A mirrored write of 4 KiB finds both daemons idle five times,
// and that was a third of its CPU. The calls here return at once (descriptors are non-blocking, submissions say so), so
// there is nothing to watch; while one runs, its processor is simply busy, as with a copy of the same bytes.
package nowait

import (
	"errors"
	"io"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is a system call that does not wait.
func Call(number uintptr, args ...uintptr) (uintptr, syscall.Errno) {
	var a [6]uintptr
	copy(a[:], args)
	for {
		n, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != unix.EINTR {
			return n, errno
		}
	}
}

// Boottime is CLOCK_BOOTTIME in nanoseconds.
func Boottime() int64 {
	var t unix.Timespec
	if _, errno := Call(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&t))); errno != 0 {
		panic("CLOCK_BOOTTIME: " + errno.Error())
	}
	return t.Nano()
}

// VectorsMax is how many vectors one Writev takes (IOV_MAX of linux/uio.h).
const VectorsMax = 1024

// Conn is a connection of this machine's kernel that is read and written by such calls. Read is for one goroutine at a time, and so is
// Write.
type Conn struct {
	net.Conn
	raw syscall.RawConn
}

// New makes a Conn, or gives back what is none of the kernel's.
func New(conn net.Conn) net.Conn {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return conn
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return conn // closed: the first use says so
	}
	return &Conn{conn, raw}
}

// SyscallConn is syscall.Conn.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// Read is net.Conn.Read.
func (c *Conn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	waited := c.raw.Read(func(fd uintptr) bool {
		n, err = Read(fd, p)
		return !errors.Is(err, unix.EAGAIN)
	})
	switch {
	case waited != nil:
		return 0, waited
	case err == nil && n == 0:
		return 0, io.EOF
	}
	return n, err
}

// Write is net.Conn.Write.
func (c *Conn) Write(p []byte) (written int, err error) {
	waited := c.raw.Write(func(fd uintptr) bool {
		for written < len(p) {
			n, failed := Write(fd, p[written:])
			if errors.Is(failed, unix.EAGAIN) {
				return false
			}
			if failed != nil {
				err = failed
				return true
			}
			written += n
		}
		return true
	})
	if err == nil {
		err = waited
	}
	return written, err
}
