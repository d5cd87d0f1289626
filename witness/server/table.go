package server

import (
	"crypto/ed25519"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"duet/witness/tlsrecord"
)

type publicKey = [ed25519.PublicKeySize]byte

// parked is a connection on which nothing happens: all that is kept of it. Its descriptor is nobody else's.
type parked struct {
	fd      int32
	busy    bool // a worker has it; it alone touches session and rest
	doomed  bool // to be closed by that worker
	closed  bool
	heard   uint32 // seconds since the server began
	key     publicKey
	older   *parked // connection of the same key
	session tlsrecord.Session
	rest    []byte // of a record that has not come whole
}

// table holds all parked connections. Events name descriptors: one that was closed and given out anew between an event
// and its look-up only makes a worker find nothing to read.
type table struct {
	mu     sync.Mutex
	byFD   []*parked
	newest map[publicKey]*parked
	open   int
	poll   *poll
}

// enter parks a connection, and closes the oldest of its key beyond the limit: a node that redials wants the newest.
func (t *table) enter(p *parked, perKey int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.byFD) <= int(p.fd) {
		t.byFD = append(t.byFD, nil)
	}
	t.byFD[p.fd] = p
	t.open++
	p.older = t.newest[p.key]
	t.newest[p.key] = p
	count := 1
	for at := p; at.older != nil; at = at.older {
		if count++; count > perKey {
			t.end(at.older)
			break
		}
	}
	if err := t.poll.add(p.fd); err != nil {
		t.end(p)
		return err
	}
	return nil
}

// take gives the connection of an event to a worker; nil: it is gone, or has one.
func (t *table) take(fd int32) *parked {
	t.mu.Lock()
	defer t.mu.Unlock()
	if int(fd) >= len(t.byFD) || t.byFD[fd] == nil || t.byFD[fd].busy {
		return nil
	}
	p := t.byFD[fd]
	p.busy = true
	return p
}

// release parks a connection again, or closes it: the worker is done with it.
func (t *table) release(p *parked, keep bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.busy = false
	if !keep || p.doomed || t.poll.again(p.fd) != nil {
		t.end(p)
	}
}

// end closes a connection, or has its worker do it. The table is locked.
func (t *table) end(p *parked) {
	if p.busy {
		p.doomed = true
		_ = unix.Shutdown(int(p.fd), unix.SHUT_RDWR) //nolint:errcheck // the worker's next read says so; it may be gone by itself
		return
	}
	if p.closed {
		return
	}
	p.closed = true
	t.byFD[p.fd] = nil
	t.open--
	t.unlink(p)
	_ = unix.Close(int(p.fd)) // nothing of it was to be kept
}

func (t *table) unlink(p *parked) {
	if t.newest[p.key] == p {
		if p.older == nil {
			delete(t.newest, p.key)
		} else {
			t.newest[p.key] = p.older
		}
		return
	}
	for at := t.newest[p.key]; at != nil; at = at.older {
		if at.older == p {
			at.older = p.older
			return
		}
	}
}

// sweep closes what was not heard of since the second before.
func (t *table) sweep(before uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.byFD {
		if p != nil && !p.busy && p.heard < before {
			t.end(p)
		}
	}
}

func (t *table) count() (connections, nodes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open, len(t.newest)
}

// descriptor takes the socket out of the hands of package net, whose goroutines and buffers it will not need.
func descriptor(conn net.Conn) (fd int32, err error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return -1, fmt.Errorf("%T is not TCP", conn)
	}
	// The probes of an idle connection would be half of its bytes; STATUS each 30 s and Limits.Idle do their work.
	if err := tcp.SetKeepAlive(false); err != nil {
		return -1, err
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd = -1
	controlErr := raw.Control(func(old uintptr) {
		var copied int
		copied, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
		fd = int32(copied)
	})
	if controlErr != nil {
		return -1, controlErr
	}
	return fd, err
}

// address is who is at the other end, for a log.
func address(fd int32) string {
	switch peer, err := unix.Getpeername(int(fd)); at := peer.(type) {
	case *unix.SockaddrInet4:
		return (&net.TCPAddr{IP: at.Addr[:], Port: at.Port}).String()
	case *unix.SockaddrInet6:
		return (&net.TCPAddr{IP: at.Addr[:], Port: at.Port}).String()
	default:
		return fmt.Sprint("unknown: ", err)
	}
}

// seconds since the server began, for parked.heard.
func (s *Server) seconds() uint32 { return uint32(time.Since(s.began) / time.Second) }
