// Package gatetest is what every gate of the database must do, for tests of the kernel's gate and of the forwarder that the
// tests of package postgres use in its place. The client is on the far side of the gate and speaks TCP to an echo server
// behind it.
//
// It judges states: whether an established connection lives, and how it ends. It never judges how fast.
package gatetest

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

// Gates is what is judged: postgres.Gates.
type Gates interface {
	Set(g decide.Gate, open bool, until membership.Boottime) error
	Open(g decide.Gate) bool
}

// Site is a pair of gates with an echo server behind each, and a way to reach it as a client.
type Site struct {
	Gates Gates
	Dial  func(g decide.Gate) (net.Conn, error) // connects, or fails; does not wait longer than Patience
}

// Patience bounds every wait for a packet.
const Patience = 5 * time.Second

// lease is a deadline that renewals move, and that one can wait for.
const lease = 400 * time.Millisecond

// Echo serves on a listener until it is closed.
func Echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(c, c) //nolint:errcheck // the client sees it
			c.Close()
		}()
	}
}

// Conform runs the suite. Sites are new: every gate is closed.
func Conform(t *testing.T, site func(t *testing.T) Site) {
	t.Run("closed at first", func(t *testing.T) {
		s := site(t)
		for _, g := range []decide.Gate{decide.Write, decide.Read} {
			if s.Gates.Open(g) || s.passes(g) {
				t.Errorf("the %v gate is open", g)
			}
		}
	})
	t.Run("one opens, the other stays closed", func(t *testing.T) {
		s := site(t)
		s.set(t, decide.Write, true, 0)
		if !s.Gates.Open(decide.Write) || !s.passes(decide.Write) {
			t.Error("the write gate is closed")
		}
		if s.Gates.Open(decide.Read) || s.passes(decide.Read) {
			t.Error("the read gate is open")
		}
	})
	t.Run("a close resets", func(t *testing.T) {
		s := site(t)
		s.set(t, decide.Read, true, 0)
		c := s.connect(t, decide.Read)
		s.set(t, decide.Read, false, 0)
		if err := untilCut(c); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("the connection ended by %v", err)
		}
		if s.Gates.Open(decide.Read) || s.passes(decide.Read) {
			t.Error("closed, and it passes")
		}
		s.set(t, decide.Read, true, 0)
		if !s.passes(decide.Read) {
			t.Error("it does not open again")
		}
	})
	t.Run("renewals do not disturb", func(t *testing.T) {
		s := site(t)
		s.set(t, decide.Write, true, in(lease))
		c := s.connect(t, decide.Write)
		for began := time.Now(); time.Since(began) < 4*lease; {
			s.set(t, decide.Write, true, in(lease))
			if err := ping(c); err != nil {
				t.Fatalf("after %v: %v", time.Since(began), err)
			}
		}
	})
	t.Run("it dies by itself", func(t *testing.T) {
		s := site(t)
		s.set(t, decide.Write, true, in(lease))
		c := s.connect(t, decide.Write)
		if err := untilCut(c); err == nil { // nobody calls anything meanwhile
			t.Error("the connection outlives the deadline")
		}
		if s.Gates.Open(decide.Write) || s.passes(decide.Write) {
			t.Error("the deadline is over, and it passes")
		}
		s.set(t, decide.Write, true, in(-time.Second))
		if s.Gates.Open(decide.Write) || s.passes(decide.Write) {
			t.Error("opened by a deadline that is over")
		}
	})
}

func in(d time.Duration) membership.Boottime {
	return membership.Boottime(boottime.Now()) + membership.Boottime(d)
}

func (s Site) set(t *testing.T, g decide.Gate, open bool, until membership.Boottime) {
	t.Helper()
	if err := s.Gates.Set(g, open, until); err != nil {
		t.Fatal(err)
	}
}

// connect through an open gate.
func (s Site) connect(t *testing.T, g decide.Gate) net.Conn {
	t.Helper()
	c, err := s.Dial(g)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := ping(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// passes says whether one byte comes back.
func (s Site) passes(g decide.Gate) bool {
	c, err := s.Dial(g)
	if err != nil {
		return false
	}
	defer c.Close()
	return ping(c) == nil
}

func ping(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// untilCut gives how the connection ended; nil: it did not, for far longer than the lease.
func untilCut(c net.Conn) error {
	for began := time.Now(); time.Since(began) < Patience+10*lease; {
		if err := ping(c); err != nil {
			return err
		}
	}
	return nil
}
