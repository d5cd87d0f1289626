package client_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"duet/witness/client"
	"duet/witness/pinned"
	"duet/witness/wire"
)

// far is a witness at the end of a long line, on the clock of a synctest bubble: every read of the client's side waits
// for the way there and back.
type far struct {
	t       *testing.T
	server  *tls.Config
	dead    func(dial int32) bool // this connection swallows everything after the handshake
	delay   time.Duration
	dials   atomic.Int32
	answers atomic.Int32
	over    chan struct{}
	refuse  atomic.Bool              // nobody listens
	last    atomic.Pointer[net.Conn] // the far end of the newest connection
}

func (f *far) dial(ctx context.Context, _ string) (net.Conn, error) {
	dial := f.dials.Add(1)
	if f.refuse.Load() {
		return nil, errors.New("connection refused")
	}
	near, remote := net.Pipe()
	f.last.Store(&remote)
	conn := tls.Server(remote, f.server)
	go func() {
		defer remote.Close()
		for {
			var frame [wire.RequestSize]byte
			if _, err := io.ReadFull(conn, frame[:]); err != nil {
				return
			}
			q, err := wire.DecodeRequest(frame)
			if err != nil {
				return
			}
			if f.dead != nil && f.dead(dial) {
				continue
			}
			go func() {
				select {
				case <-time.After(f.delay):
				case <-f.over:
					return
				}
				reply := wire.Reply{Op: q.Op, Result: wire.OK, Nonce: q.Nonce}.Encode()
				f.answers.Add(1)
				conn.Write(reply[:])
			}()
		}
	}()
	return near, nil
}

func newFar(t *testing.T, delay time.Duration) (*far, *client.Client) {
	t.Helper()
	node, witness := newKey(t), newKey(t)
	server, err := pinned.Server(witness, func(ed25519.PublicKey) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	f := &far{t: t, server: server, delay: delay, over: make(chan struct{})}
	c, err := client.New(client.Config{Address: "far", ServerKey: public(witness), Identity: node, Dial: f.dial})
	if err != nil {
		t.Fatal(err)
	}
	return f, c
}

func (f *far) end(c *client.Client) {
	close(f.over)
	c.Close()
}

// A reply takes 5 s, an attempt 2 s: the third attempt with the same nonce gets the answer to the first.
func TestLateReplyServesTheRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c := newFar(t, 5*time.Second)
		defer f.end(c)
		start := time.Now()
		for attempt := 1; ; attempt++ {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			reply, err := c.Do(ctx, wire.Request{Op: wire.Status, Nonce: 7})
			cancel()
			if err == nil {
				if attempt != 3 || reply.Nonce != 7 || time.Since(start) != 5*time.Second {
					t.Errorf("attempt %d after %s: %+v", attempt, time.Since(start), reply)
				}
				return
			}
			if !errors.Is(err, context.DeadlineExceeded) || attempt > 3 {
				t.Fatalf("attempt %d: %v", attempt, err)
			}
		}
	})
}

// A reply that comes while nobody waits is kept for the repeat.
func TestReplyBetweenTwoAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c := newFar(t, 2500*time.Millisecond)
		defer f.end(c)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := c.Do(ctx, wire.Request{Op: wire.Status, Nonce: 7}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		<-time.After(time.Second)
		start := time.Now()
		if _, err := c.Do(t.Context(), wire.Request{Op: wire.Status, Nonce: 7}); err != nil || time.Since(start) != 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		if f.answers.Load() != 1 || f.dials.Load() != 1 {
			t.Errorf("%d answers on %d connections", f.answers.Load(), f.dials.Load())
		}
	})
}

// A connection that went dead is not waited for: another one is opened beside it, also when each attempt is short.
func TestDeadConnectionIsHedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c := newFar(t, 0)
		defer f.end(c)
		f.dead = func(dial int32) bool { return dial == 1 }
		start := time.Now()
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := c.Do(ctx, wire.Request{Op: wire.Status, Nonce: 7})
			cancel()
			if err == nil {
				break
			}
			if time.Since(start) > 10*time.Second {
				t.Fatalf("no answer after %s: %v", time.Since(start), err)
			}
		}
		if took := time.Since(start); took > 4*time.Second || f.dials.Load() != 2 {
			t.Errorf("%s, %d connections", took, f.dials.Load())
		}
	})
}

// A witness that was stopped for a minute and is back: the client, which nobody had asked meanwhile, has become patient,
// but the first question must not wait for its patience. A frozen node has one lease to get its answer in.
func TestQuestionEndsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c := newFar(t, 0)
		defer f.end(c)
		if _, err := c.Do(t.Context(), wire.Request{Op: wire.Status, Nonce: 1}); err != nil || !c.Connected() {
			t.Fatal(err, c.Connected())
		}
		f.refuse.Store(true)
		(*f.last.Load()).Close()
		<-time.After(time.Minute)
		if c.Connected() {
			t.Error("a closed connection counts as one")
		}
		f.refuse.Store(false)
		start := time.Now()
		if _, err := c.Do(t.Context(), wire.Request{Op: wire.Status, Nonce: 2}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 300*time.Millisecond {
			t.Errorf("the question waited %s", took)
		}
	})
}
