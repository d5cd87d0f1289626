// Package server answers nodes on behalf of a store of registers.
//
// It promises that a caller is who its key says: node and site follow from the pinned key of the connection, so a node
// can only name itself in a CAS and only reach registers of its own site. Every answer is durable before it leaves.
// Enrolment is looked up again at every request: a key that was revoked stops at its next word.
//
// It refuses unknown keys during the handshake, malformed frames (the connection is closed), connections and
// handshakes beyond their limits, and idlers. Strangers cost one handshake; they cannot keep nodes out, because each
// key may hold only a few connections and strangers hold none. Requests of one connection are answered in their order.
package server

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"duet/witness/enrolment"
	"duet/witness/pinned"
	"duet/witness/register"
	"duet/witness/wire"
)

// Limits of a server; a zero field takes the default.
type Limits struct {
	Connections  int           // at once, handshakes included: 20,000 (two for each of 10,000 sites)
	PerKey       int           // at once from one node: 8; the oldest is closed. A node redials before it gives up the old one
	Handshakes   int           // at once: 256, so that strangers cannot use up all connections
	Handshake    time.Duration // for TLS: 30 s (two round trips of 5 s with losses)
	Idle         time.Duration // without a request: 5 min (nodes ask each 30 s)
	WriteTimeout time.Duration // for one reply: 30 s
}

// Config is what a server needs.
type Config struct {
	Identity ed25519.PrivateKey
	Sites    *enrolment.Directory
	Store    Store
	Log      *slog.Logger
	Limits   Limits
}

// Counters say what happened since the start.
type Counters struct {
	Connections, Requests, UnknownKeys, Malformed, Overload, NoAnswers, StoreErrors uint64
}

// Server serves one listener at a time.
type Server struct {
	cfg   Config
	tls   *tls.Config
	peers map[[ed25519.PublicKeySize]byte][]net.Conn // oldest first
	mu    sync.Mutex

	connections, requests, unknownKeys, malformed, overload, noAnswers, storeErrors atomic.Uint64
}

// New makes a server.
func New(cfg Config) (*Server, error) {
	setDefault(&cfg.Limits.Connections, 20_000)
	setDefault(&cfg.Limits.PerKey, 8)
	setDefault(&cfg.Limits.Handshakes, 256)
	setDefault(&cfg.Limits.Handshake, 30*time.Second)
	setDefault(&cfg.Limits.Idle, 5*time.Minute)
	setDefault(&cfg.Limits.WriteTimeout, 30*time.Second)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, peers: make(map[[ed25519.PublicKeySize]byte][]net.Conn)}
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

// Counters reads the counters.
func (s *Server) Counters() Counters {
	return Counters{
		Connections: s.connections.Load(), Requests: s.requests.Load(), UnknownKeys: s.unknownKeys.Load(),
		Malformed: s.malformed.Load(), Overload: s.overload.Load(), NoAnswers: s.noAnswers.Load(), StoreErrors: s.storeErrors.Load(),
	}
}

// accept is asked by the handshake.
func (s *Server) accept(key ed25519.PublicKey) error {
	if _, _, ok := s.cfg.Sites.Find(key); !ok {
		s.unknownKeys.Add(1)
		return fmt.Errorf("%s is not enrolled: %w", pinned.FormatKey(key), pinned.ErrKey)
	}
	return nil
}

// Serve answers on ln until ctx ends or the store dies, then closes ln and every connection. It returns nil after ctx.
func (s *Server) Serve(caller context.Context, ln net.Listener) error {
	ctx, end := context.WithCancelCause(caller)
	defer end(nil)
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	defer end(nil) // before the wait: connections end with ctx

	slots := make(chan struct{}, s.cfg.Limits.Connections)
	handshakes := make(chan struct{}, s.cfg.Limits.Handshakes)
	for {
		conn, err := ln.Accept()
		if err != nil {
			if caller.Err() != nil {
				return nil
			}
			if ctx.Err() != nil {
				return context.Cause(ctx) // the store died
			}
			if isTemporary(err) && pause(ctx) {
				s.cfg.Log.Error("cannot accept connections", "error", err)
				continue
			}
			return fmt.Errorf("witness server: %w", err)
		}
		if !take(slots) {
			s.overload.Add(1)
			conn.Close()
			continue
		}
		if !take(handshakes) {
			s.overload.Add(1)
			<-slots
			conn.Close()
			continue
		}
		running.Go(func() {
			defer func() { <-slots }()
			if err := s.connection(ctx, conn, func() { <-handshakes }); err != nil {
				end(err)
			}
		})
	}
}

func take(slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	default:
		return false
	}
}

const acceptPause = 100 * time.Millisecond // after EMFILE and the like: the file table needs time, not a busy loop

func isTemporary(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !errors.Is(err, net.ErrClosed)
}

func pause(ctx context.Context) bool {
	timer := time.NewTimer(acceptPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connection serves one caller from handshake to end. Its error is the death of the store, and nothing else.
func (s *Server) connection(ctx context.Context, raw net.Conn, handshakeDone func()) error {
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()

	conn := tls.Server(raw, s.tls)
	limited, cancel := context.WithTimeout(ctx, s.cfg.Limits.Handshake)
	err := conn.HandshakeContext(limited)
	cancel()
	handshakeDone()
	if err != nil {
		s.cfg.Log.Info("connection refused", "from", raw.RemoteAddr(), "error", err)
		return nil
	}
	key, err := pinned.PeerKey(conn.ConnectionState())
	if err != nil {
		return nil
	}
	s.connections.Add(1)
	s.enter(key, raw)
	defer s.leave(key, raw)
	return s.converse(ctx, conn, key)
}

func (s *Server) converse(ctx context.Context, conn *tls.Conn, key ed25519.PublicKey) error {
	for {
		request, err := s.receive(conn)
		if err != nil {
			if errors.Is(err, wire.ErrMalformed) {
				s.malformed.Add(1)
				s.cfg.Log.Warn("malformed request", "from", conn.RemoteAddr(), "error", err)
			}
			return nil
		}
		s.requests.Add(1)
		reply, err := s.answer(ctx, key, request)
		if errors.Is(err, register.ErrNoAnswer) {
			s.noAnswers.Add(1)
			s.cfg.Log.Warn("no answer", "from", conn.RemoteAddr(), "op", request.Op.String(), "error", err)
			return nil // the closed connection is the only word that claims nothing: the node dials and repeats
		}
		if err != nil {
			s.storeErrors.Add(1)
			s.cfg.Log.Error("no answer can be given", "error", err)
			return err
		}
		frame := reply.Encode()
		if err := conn.SetWriteDeadline(time.Now().Add(s.cfg.Limits.WriteTimeout)); err != nil {
			return nil
		}
		if _, err := conn.Write(frame[:]); err != nil {
			return nil
		}
		if reply.Result == wire.UnknownSite && request.Op != wire.Create {
			return nil // revoked
		}
	}
}

func (s *Server) receive(conn net.Conn) (wire.Request, error) {
	if err := conn.SetReadDeadline(time.Now().Add(s.cfg.Limits.Idle)); err != nil {
		return wire.Request{}, err
	}
	var frame [wire.RequestSize]byte
	if _, err := io.ReadFull(conn, frame[:]); err != nil {
		return wire.Request{}, err
	}
	return wire.DecodeRequest(frame)
}

// answer carries the request out. An error is the death of the store: the caller gets silence, which is no answer.
func (s *Server) answer(ctx context.Context, key ed25519.PublicKey, q wire.Request) (wire.Reply, error) {
	reply := wire.Reply{Op: q.Op, Nonce: q.Nonce, RID: q.RID}
	site, caller, ok := s.cfg.Sites.Find(key)
	if !ok {
		reply.Result = wire.UnknownSite
		return reply, nil
	}
	owner := register.Owner{Name: site.Name, Keys: [2][32]byte{[32]byte(site.KeyA), [32]byte(site.KeyB)}}
	var r register.Register
	var err error
	done := true
	switch q.Op {
	case wire.Create:
		if !mayCreate(q.New, caller) {
			reply.Result = wire.Refused
			return reply, nil
		}
		r, err = s.cfg.Store.Create(ctx, owner, q.Site, q.Nonce, q.New)
	case wire.CAS:
		if q.New.Set != caller {
			reply.Result = wire.Refused
			return reply, nil
		}
		r, done, err = s.cfg.Store.CAS(ctx, owner, q.RID, q.Expected, q.New)
	case wire.Push:
		r, done, err = s.cfg.Store.Push(ctx, owner, q.RID, q.New.Epoch)
	case wire.Status:
		reply.RIDs, err = s.cfg.Store.List(ctx, owner)
	}
	switch {
	case errors.Is(err, register.ErrUnknownRegister):
		reply.Result = wire.UnknownRegister
	case errors.Is(err, register.ErrUnknownSite):
		reply.Result = wire.UnknownSite
	case errors.Is(err, register.ErrCorrupt):
		reply.Result = wire.Corrupt
	case err != nil:
		return wire.Reply{}, err
	case done:
		reply.Result = wire.OK
	default:
		reply.Result = wire.Failed
	}
	if err != nil {
		s.cfg.Log.Warn("request refused", "site", site.Name, "op", q.Op.String(), "result", reply.Result.String(), "error", err)
		return reply, nil
	}
	if q.Op != wire.Status {
		reply.RID, reply.Content, reply.Sequence = r.RID, r.Content, r.Sequence
	}
	return reply, nil
}

// mayCreate is the rule of protocol.md section 11: {a,b}, {caller}, or {} with epoch 0.
func mayCreate(c register.Content, caller register.Set) bool {
	switch c.Set {
	case register.Nobody:
		return c.Epoch == 0
	case register.Both, caller:
		return true
	default:
		return false
	}
}

// enter notes a connection of key, and closes its oldest beyond the limit.
func (s *Server) enter(key ed25519.PublicKey, conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := [ed25519.PublicKeySize]byte(key)
	s.peers[k] = append(s.peers[k], conn)
	if len(s.peers[k]) > s.cfg.Limits.PerKey {
		s.peers[k][0].Close()
		s.peers[k] = s.peers[k][1:]
	}
}

func (s *Server) leave(key ed25519.PublicKey, conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := [ed25519.PublicKeySize]byte(key)
	kept := s.peers[k][:0]
	for _, other := range s.peers[k] {
		if other != conn {
			kept = append(kept, other)
		}
	}
	if s.peers[k] = kept; len(kept) == 0 {
		delete(s.peers, k)
	}
}
