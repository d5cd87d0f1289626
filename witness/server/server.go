// Package server answers nodes on behalf of a store of registers.
//
// It promises that a caller is who its key says: node and site follow from the pinned key of the connection, so a node
// can only name itself in a CAS and only reach registers of its own site. Every answer is durable before it leaves.
// Enrolment is looked up again at every request: a key that was revoked stops at its next word. A store that cannot be
// asked is no answer: the connection closes without a word, and the node dials and repeats.
//
// It keeps a connection for each node, which says a few bytes in half a minute, for thousands of sites on a machine of
// a few dozen MiB. So crypto/tls and a goroutine see a connection through its handshake; then it is parked (table.go):
// a descriptor in an epoll and the 120 bytes of package tlsrecord. A worker takes it when something comes, answers, and
// parks it again. Rejected: a goroutine and a tls.Conn for each (608 MiB for 20,000), and closing idle connections (a
// handshake at the worst moment, over a line with 5 s round trips, and more bytes than the promise allows).
//
// It refuses unknown keys during the handshake, what is no request of this protocol (the connection is closed),
// connections and handshakes beyond their limits, idlers, and readers that do not read. Every refusal is counted by its
// reason; few of many are logged. Strangers cost one handshake; they never hurt a node that is in, because each key may
// hold only a few connections and strangers hold none. A node that dials finds a place among the handshakes as long as
// some that hold one are silent (handshakes.go): 256 of them that go on talking, or some 256 new ones a second, keep it
// waiting as any flood does. Requests of one connection are answered in their order.
package server

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"duet/witness/enrolment"
	"duet/witness/pinned"
	"duet/witness/tlsrecord"
	"duet/witness/wire"
)

// Limits of a server; a zero field takes the default.
type Limits struct {
	Connections   int           // at once: 40,000 (two nodes of 10,000 sites, and each while it redials)
	PerKey        int           // at once from one node: 8; the oldest is closed. A node redials before it gives up the old one
	Handshakes    int           // at once: 256, so that strangers cannot use up memory
	HandshakeWait time.Duration // for a place among them: 1 s; who was silent for so long loses his to whoever comes
	Handshake     time.Duration // for TLS: 30 s (two round trips of 5 s with losses)
	Workers       int           // requests that wait for the store at once: 1,024
	Store         time.Duration // for one request to it: 5 s; a node has asked twice by then
	Idle          time.Duration // without a request: 5 min (nodes ask each 30 s)
}

// Config is what a server needs.
type Config struct {
	Identity ed25519.PrivateKey
	Sites    *enrolment.Directory
	Store    Store
	Log      *slog.Logger
	Limits   Limits
}

// Server serves one listener, once.
type Server struct {
	cfg      Config
	tls      *tls.Config
	began    time.Time
	table    table
	refusals refusals

	accepted atomic.Uint64
	requests [wire.Status + 1]atomic.Uint64
	results  [wire.Refused + 1]atomic.Uint64
}

// New makes a server.
func New(cfg Config) (*Server, error) {
	setDefault(&cfg.Limits.Connections, 40_000)
	setDefault(&cfg.Limits.PerKey, 8)
	setDefault(&cfg.Limits.Handshakes, 256)
	setDefault(&cfg.Limits.HandshakeWait, time.Second)
	setDefault(&cfg.Limits.Handshake, 30*time.Second)
	setDefault(&cfg.Limits.Workers, 1024)
	setDefault(&cfg.Limits.Store, 5*time.Second)
	setDefault(&cfg.Limits.Idle, 5*time.Minute)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, began: time.Now()}
	s.table.newest = make(map[publicKey]*parked)
	s.refusals.log = cfg.Log
	var err error
	s.tls, err = pinned.Server(cfg.Identity, s.accept)
	if err != nil {
		return nil, fmt.Errorf("witness server: %w", err)
	}
	return s, nil
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// accept is asked by the handshake.
func (s *Server) accept(key ed25519.PublicKey) error {
	if _, _, ok := s.cfg.Sites.Find(key); !ok {
		return fmt.Errorf("%s is not enrolled: %w", pinned.FormatKey(key), pinned.ErrKey)
	}
	return nil
}

// Serve answers on ln until ctx ends or the store dies, then closes ln and every connection. It returns nil after ctx.
func (s *Server) Serve(caller context.Context, ln net.Listener) (err error) {
	defer ln.Close()
	if s.table.poll, err = newPoll(); err != nil {
		return fmt.Errorf("witness server: %w", err)
	}
	ctx, end := context.WithCancelCause(caller)
	var running sync.WaitGroup
	defer s.table.sweep(^uint32(0)) // last: nobody uses a connection any more
	defer running.Wait()
	defer end(nil) // before the wait: everything ends with ctx
	context.AfterFunc(ctx, func() {
		ln.Close()
		_ = s.table.poll.close()
	})
	running.Go(func() { s.dispatch(ctx, end) })
	running.Go(func() { s.sweep(ctx) })

	handshakes := newHandshakes(s.cfg.Limits)
	for {
		conn, err := ln.Accept()
		if err != nil {
			if caller.Err() != nil {
				return nil
			}
			if ctx.Err() != nil {
				return context.Cause(ctx) // the store died
			}
			if isTemporary(err) && pause(ctx, acceptPause) {
				s.refusals.note(Overload, "error", err)
				continue
			}
			return fmt.Errorf("witness server: %w", err)
		}
		var h *handshake
		if open, _ := s.table.count(); open < s.cfg.Limits.Connections {
			h = handshakes.enter(ctx, conn)
		}
		if h == nil {
			s.refusals.note(Overload, "from", conn.RemoteAddr())
			conn.Close()
			continue
		}
		running.Go(func() {
			defer handshakes.leave(h)
			s.welcome(ctx, h)
		})
	}
}

const acceptPause = 100 * time.Millisecond // after EMFILE and the like: the file table needs time, not a busy loop

func isTemporary(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !errors.Is(err, net.ErrClosed)
}

func pause(ctx context.Context, span time.Duration) bool {
	timer := time.NewTimer(span)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// welcome sees a connection through its handshake and parks it.
func (s *Server) welcome(ctx context.Context, conn *handshake) {
	defer conn.Close() // package net's descriptor; the parked one is another
	limited, cancel := context.WithTimeout(ctx, s.cfg.Limits.Handshake)
	defer cancel()
	state, session, err := tlsrecord.Server(limited, conn, s.tls)
	if err != nil {
		reason := Handshake
		switch {
		case errors.Is(err, pinned.ErrKey):
			reason = UnknownKey
		case conn.dropped.Load():
			reason = Overload
		}
		if ctx.Err() == nil {
			s.refusals.note(reason, "from", conn.RemoteAddr(), "error", err)
		}
		return
	}
	key, err := pinned.PeerKey(state)
	if err != nil {
		return
	}
	fd, err := descriptor(conn.Conn)
	if err != nil {
		s.refusals.note(Overload, "from", conn.RemoteAddr(), "error", err)
		return
	}
	s.accepted.Add(1)
	p := &parked{fd: fd, key: publicKey(key), session: *session, heard: s.seconds()}
	if err := s.table.enter(p, s.cfg.Limits.PerKey); err != nil {
		s.refusals.note(Overload, "from", conn.RemoteAddr(), "error", err)
	}
}

// dispatch gives each connection on which something happened to a worker.
func (s *Server) dispatch(ctx context.Context, end context.CancelCauseFunc) {
	workers := make(chan struct{}, s.cfg.Limits.Workers)
	var running sync.WaitGroup
	defer running.Wait()
	var ready []int32
	for {
		var err error
		ready, err = s.table.poll.wait(ready)
		if err != nil {
			if ctx.Err() == nil { // else the poll was closed
				end(fmt.Errorf("witness server: %w", err))
			}
			return
		}
		for _, fd := range ready {
			p := s.table.take(fd)
			if p == nil {
				continue
			}
			workers <- struct{}{}
			running.Go(func() {
				defer func() { <-workers }()
				keep, err := s.serve(ctx, p)
				if err != nil {
					end(err)
				}
				s.table.release(p, keep)
			})
		}
	}
}

// sweep closes idlers.
func (s *Server) sweep(ctx context.Context) {
	const looks = 8 // in an idle span: nobody stays longer than nine eighths of it
	for pause(ctx, max(s.cfg.Limits.Idle/looks, time.Millisecond)) {
		span := uint32((s.cfg.Limits.Idle + time.Second - 1) / time.Second)
		if now := s.seconds(); now > span {
			s.table.sweep(now - span)
		}
	}
}
