package link

import (
	"bufio"
	"net"
	"sync"
)

// socketBuffer is what one call into the kernel takes or brings at most. A record of TLS has 16 KiB, and TLS makes a call or two
// for each without this.
const socketBuffer = 256 << 10

// socket is a connection below TLS. It reads ahead, and while it is corked it collects what is written.
type socket struct {
	net.Conn
	in     *bufio.Reader // of the one that reads
	before func()        // called by it before it waits for the peer, and
	after  func()        // when something came; nil until there is a lane

	mu     sync.Mutex
	out    *bufio.Writer
	corked bool
}

func newSocket(conn net.Conn) *socket {
	s := &socket{Conn: conn, out: bufio.NewWriterSize(conn, socketBuffer)}
	s.in = bufio.NewReaderSize(receiving{s}, socketBuffer)
	return s
}

// receiving is the reading half of the connection itself.
type receiving struct{ s *socket }

func (r receiving) Read(p []byte) (int, error) {
	if r.s.before != nil {
		r.s.before()
	}
	n, err := r.s.Conn.Read(p)
	if r.s.after != nil {
		r.s.after()
	}
	return n, err
}

// Read is net.Conn.Read.
func (s *socket) Read(p []byte) (int, error) { return s.in.Read(p) }

// Write is net.Conn.Write, but for the cork.
func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.out.Write(p)
	if err == nil && !s.corked {
		err = s.out.Flush()
	}
	return n, err
}

func (s *socket) cork() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = true
}

// uncork writes what was collected.
func (s *socket) uncork() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = false
	return s.out.Flush()
}
