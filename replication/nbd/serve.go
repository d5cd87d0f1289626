package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// server is what the connections share.
type server struct {
	backend Backend

	mu    sync.Mutex
	locks map[string]*exportLock // by export name; while a connection uses it
}

// exportLock is the range lock of an export, shared by its connections.
type exportLock struct {
	ranges rangeLock
	users  int
}

// Serve accepts connections on l until ctx ends, then closes l, answers what gets done within a second, closes
// the connections and returns nil. It returns earlier, with an error, only when l fails.
func Serve(ctx context.Context, l net.Listener, b Backend) error {
	s := &server{backend: b, locks: map[string]*exportLock{}}
	var connections sync.WaitGroup
	defer connections.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before the wait: connections end when the listener failed, too
	stop := context.AfterFunc(ctx, func() {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			slog.Warn("nbd listener not closed", "error", err)
		}
	})
	defer stop()

	slots := make(chan struct{}, connectionsMax)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		nc, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				return nc.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("nbd listener: %w", err)
		case err != nil:
			slog.Warn("nbd connection not accepted", "error", err)
			<-slots
			if !pause(ctx, acceptPause) {
				return nil
			}
			continue
		}
		connections.Go(func() {
			defer func() { <-slots }()
			s.connection(ctx, nc)
		})
	}
}

// connection runs one client from greeting to goodbye.
func (s *server) connection(ctx context.Context, nc net.Conn) {
	c := newConn(s, nc)
	defer c.end()
	unwatch := context.AfterFunc(ctx, c.stop)
	defer unwatch()
	if err := c.run(); err != nil {
		slog.Warn("nbd connection closed", "export", c.name, "reason", err)
	}
}

// lockOf counts a user of an export's lock in.
func (s *server) lockOf(name string) *rangeLock {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.locks[name]
	if e == nil {
		e = &exportLock{}
		s.locks[name] = e
	}
	e.users++
	return &e.ranges
}

// unlockOf counts it out.
func (s *server) unlockOf(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.locks[name]; e != nil {
		if e.users--; e.users == 0 {
			delete(s.locks, name)
		}
	}
}

// pause waits; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
