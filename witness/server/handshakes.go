package server

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// handshakes are the connections of which nobody knows yet whose they are. Each costs a goroutine and the buffers of
// crypto/tls, so there are few. Who comes when all places are taken gets that of the one that has said nothing for the
// longest time: places are for those who talk. A handshake that has heard its other side within patience is never ended
// for another one, so a thousand nodes that come at once after a common power cut wait for each other and all come in.
//
// Rejected: places for each address. Many sites may come from one address, and one stranger from many.
type handshakes struct {
	max      int
	patience time.Duration
	freed    chan struct{} // a place may be free; only the accept loop waits

	mu   sync.Mutex
	open map[*handshake]struct{}
}

// handshake is a connection that notes when it was heard.
type handshake struct {
	net.Conn
	heard   atomic.Int64 // nanoseconds of time.Since(began)
	began   time.Time
	dropped atomic.Bool
}

func newHandshakes(limits Limits) *handshakes {
	return &handshakes{
		max: limits.Handshakes, patience: limits.HandshakeWait, freed: make(chan struct{}, 1), open: make(map[*handshake]struct{}),
	}
}

func (h *handshake) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	if n > 0 {
		h.heard.Store(int64(time.Since(h.began)))
	}
	return n, err
}

// silence is for how long nothing was heard.
func (h *handshake) silence() time.Duration {
	return time.Since(h.began) - time.Duration(h.heard.Load())
}

// enter finds a place, at once or after a little; nil: there was none.
func (s *handshakes) enter(ctx context.Context, conn net.Conn) *handshake {
	h := &handshake{Conn: conn, began: time.Now()}
	for limit := time.Now().Add(s.patience); ; {
		in, wait := s.try(h)
		if in {
			return h
		}
		if wait = min(wait, time.Until(limit)); wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-s.freed:
		case <-timer.C:
		case <-ctx.Done():
			limit = time.Now() // the last try
		}
		timer.Stop()
	}
}

// try gives h a place that is free or whose holder was silent for too long; else it says when one of them will have been.
func (s *handshakes) try(h *handshake) (in bool, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= s.max {
		var silent *handshake
		for other := range s.open {
			if silent == nil || other.silence() > silent.silence() {
				silent = other
			}
		}
		if wait := s.patience - silent.silence(); wait > 0 {
			return false, wait
		}
		delete(s.open, silent)
		silent.dropped.Store(true)
		_ = silent.Close() // its goroutine hears it
	}
	s.open[h] = struct{}{}
	return true, 0
}

func (s *handshakes) leave(h *handshake) {
	s.mu.Lock()
	delete(s.open, h)
	s.mu.Unlock()
	select {
	case s.freed <- struct{}{}:
	default:
	}
}
