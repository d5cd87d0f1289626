package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// writeTimeout ends a connection whose client does not read.
const writeTimeout = 1 * time.Second

// Handler is the daemon behind the socket. Its methods are called one at a time, except Status and Standing.
type Handler interface {
	Configure(Config) error
	Grant(Grant) error
	Revoke() error
	Copy(session uint64) error
	// Drain holds new requests to these volumes, and to no others, before it returns; which of them were drained comes
	// within DrainLimit.
	Drain(volumes []string) (<-chan []string, error)
	// Readmit begins to make a new leg in the place of a dead one; it does not wait.
	Readmit(volume string) error
	// Scrub has a volume scrubbed next; it does not wait.
	Scrub(volume string) error
	Status() Status
	// Standing is what a new client must know: levels that were reported as events before it connected.
	Standing() []Event
}

// Server serves one duetd at a time.
type Server struct {
	listener net.Listener
	handler  Handler
	instance string
	log      *slog.Logger

	serving sync.Mutex // one request at a time over all connections

	mu      sync.Mutex
	current *session
	wg      sync.WaitGroup
}

// session is one connected client.
type session struct {
	conn net.Conn
	out  chan *message
	once sync.Once
	end  chan struct{}
}

func (s *session) close() {
	s.once.Do(func() { close(s.end); s.conn.Close() })
}

// Listen makes the socket (mode 0600), replacing one that a dead daemon left.
func Listen(path string, instance string, h Handler, log *slog.Logger) (*Server, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("old control socket: %w", err)
	}
	old := unix.Umask(0o177)
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &Server{listener: l, handler: h, instance: instance, log: log}, nil
}

// Serve accepts until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			s.drop()
			s.wg.Wait()
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("control socket: %w", err)
		}
		if err := onlyRoot(conn); err != nil {
			s.log.Warn("control connection refused", "error", err)
			conn.Close()
			continue
		}
		s.begin(conn)
	}
}

// Emit queues an event for the connected client. Without a client it is dropped: Standing tells the next one.
func (s *Server) Emit(e Event) {
	s.mu.Lock()
	c := s.current
	s.mu.Unlock()
	if c != nil {
		c.queue(&message{Event: &e})
	}
}

// queue never blocks: a client that is maxQueuedEvents behind is closed, connects again and gets Standing.
func (s *session) queue(m *message) {
	select {
	case s.out <- m:
	default:
		s.close()
	}
}

func (s *Server) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		s.current.close()
	}
}

// begin makes conn the current client; the one before is closed: one connection is one duetd.
func (s *Server) begin(conn net.Conn) {
	c := &session{conn: conn, out: make(chan *message, maxQueuedEvents), end: make(chan struct{})}
	c.queue(&message{Version: protocolVersion, Instance: s.instance})
	s.mu.Lock()
	if s.current != nil {
		s.current.close()
	}
	s.current = c
	standing := s.handler.Standing()
	for i := range standing {
		c.queue(&message{Event: &standing[i]})
	}
	s.mu.Unlock()
	s.wg.Add(2)
	go func() { defer s.wg.Done(); s.write(c) }()
	go func() { defer s.wg.Done(); s.read(c) }()
}

func (s *Server) write(c *session) {
	defer c.close()
	for {
		select {
		case m := <-c.out:
			c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			if err := writeMessage(c.conn, m); err != nil {
				return
			}
		case <-c.end:
			return
		}
	}
}

func (s *Server) read(c *session) {
	defer c.close()
	r := newReader(c.conn)
	for {
		m, err := readMessage(r)
		if err != nil {
			return
		}
		reply, later := s.answer(c, m)
		if later == nil {
			c.queue(reply)
			continue
		}
		s.wg.Go(func() {
			select {
			case reply.Volumes = <-later:
				c.queue(reply)
			case <-c.end:
			}
		})
	}
}

// answer carries out one request. A request of a connection that was replaced is refused: two duetd must not
// interleave grants. A reply that takes longer is given later, so that a grant never waits behind it.
func (s *Server) answer(c *session, m *message) (reply *message, later <-chan []string) {
	s.serving.Lock()
	defer s.serving.Unlock()
	reply = &message{ID: m.ID}
	s.mu.Lock()
	current := s.current == c
	s.mu.Unlock()
	if !current {
		reply.Error = "another client took over"
		return reply, nil
	}
	var err error
	if m.Op == opDrain {
		later, err = s.handler.Drain(m.Volumes)
	} else {
		err = s.do(m, reply)
	}
	if err != nil {
		reply.Error = err.Error()
		return reply, nil
	}
	return reply, later
}

func (s *Server) do(m, reply *message) error {
	switch {
	case m.Op == opConfigure && m.Config != nil:
		return s.handler.Configure(*m.Config)
	case m.Op == opGrant && m.Grant != nil:
		return s.handler.Grant(*m.Grant)
	case m.Op == opRevoke:
		return s.handler.Revoke()
	case m.Op == opCopy:
		return s.handler.Copy(m.Session)
	case m.Op == opReadmit && len(m.Volumes) == 1:
		return s.handler.Readmit(m.Volumes[0])
	case m.Op == opScrub && len(m.Volumes) == 1:
		return s.handler.Scrub(m.Volumes[0])
	case m.Op == opStatus:
		st := s.handler.Status()
		st.Instance = s.instance
		reply.Status = &st
		return nil
	}
	return fmt.Errorf("unknown request %q", m.Op)
}

// onlyRoot checks the peer's credentials, which the kernel wrote at connect.
func onlyRoot(conn net.Conn) error {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("not a unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if cred.Uid != 0 {
		return fmt.Errorf("uid %d is not root", cred.Uid)
	}
	return nil
}
