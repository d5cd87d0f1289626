package link

import (
	"bufio"
	"encoding/binary"
	"net"
	"sync"

	"duet/replication/internal/nowait"
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
	record int           // bytes that are left of the record of TLS that is being read
	clear  bool          // there are no records any more

	mu     sync.Mutex
	out    *bufio.Writer
	corked bool
}

func newSocket(conn net.Conn) *socket {
	conn = nowait.New(conn)
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

// Read is net.Conn.Read. TLS never gets more than the rest of a record, however much it asks for: what comes after its last one
// is not for it.
func (s *socket) Read(p []byte) (int, error) {
	if s.clear {
		return s.in.Read(p)
	}
	if s.record == 0 {
		head, err := s.in.Peek(recordHead)
		if len(head) < recordHead {
			return 0, err
		}
		s.record = recordHead + int(binary.BigEndian.Uint16(head[3:]))
	}
	n, err := s.in.Read(p[:min(len(p), s.record)])
	s.record -= n
	return n, err
}

// recordHead is the length of what precedes a record of TLS: type, version, length (RFC 8446, 5.1).
const recordHead = 5

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
