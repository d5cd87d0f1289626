package server

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// poll waits for thousands of descriptors at once. It is an epoll of its own, one-shot: whoever got an event has the
// connection to himself until he asks again. The runtime's own poller waits for this epoll, so that no thread does.
type poll struct {
	file *os.File
	raw  syscall.RawConn
	fd   int
}

const eventsMax = 256 // of one look

func newPoll() (*poll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	p := &poll{file: os.NewFile(uintptr(fd), "epoll"), fd: fd}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, p.file.Close())
	}
	return p, nil
}

const interest = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT

func (p *poll) add(fd int32) error { return p.control(unix.EPOLL_CTL_ADD, fd) }

// again asks for the next event of a descriptor whose last one was carried out.
func (p *poll) again(fd int32) error { return p.control(unix.EPOLL_CTL_MOD, fd) }

func (p *poll) control(op int, fd int32) error {
	return unix.EpollCtl(p.fd, op, int(fd), &unix.EpollEvent{Events: interest, Fd: fd})
}

// wait gives the descriptors on which something happened, or an error, also when the poll was closed.
func (p *poll) wait(ready []int32) ([]int32, error) {
	var events [eventsMax]unix.EpollEvent
	var n int
	var err error
	// Read calls again after each wake-up. Nothing is missed between two calls: it looks before it waits.
	ended := p.raw.Read(func(fd uintptr) bool {
		for {
			n, err = unix.EpollWait(int(fd), events[:], 0)
			if !errors.Is(err, unix.EINTR) {
				return n > 0 || err != nil
			}
		}
	})
	if err := errors.Join(ended, err); err != nil {
		return nil, err
	}
	ready = ready[:0]
	for _, event := range events[:n] {
		ready = append(ready, event.Fd)
	}
	return ready, nil
}

func (p *poll) close() error { return p.file.Close() }
