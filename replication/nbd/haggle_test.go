package nbd

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// ticks calls f every d until it fails.
func ticks(d time.Duration, f func() error) {
	for f() == nil {
		<-time.After(d)
	}
}

// A client that never begins is given up after handshakeTimeout, whatever it does meanwhile: its place is one of a
// few. On a virtual clock.
func TestHandshakeEnds(t *testing.T) {
	list := optionBytes(optList, nil)
	for name, client := range map[string]func(nc net.Conn){
		"says nothing": func(nc net.Conn) {
			_, _ = io.Copy(io.Discard, nc)
		},
		"one byte a second": func(nc net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, nc) }()
			_, _ = nc.Write(append([]byte{0, 0, 0, 3}, optionBytes(optGo, make([]byte, 4000))[:16]...))
			ticks(time.Second, func() error { _, err := nc.Write([]byte{0}); return err })
		},
		"one option every five seconds": func(nc net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, nc) }()
			_, _ = nc.Write([]byte{0, 0, 0, 3})
			ticks(5*time.Second, func() error { _, err := nc.Write(list); return err })
		},
		"reads no answer": func(nc net.Conn) {
			_, _ = io.CopyN(io.Discard, nc, 18)
			_, _ = nc.Write([]byte{0, 0, 0, 3})
			_, _ = nc.Write(list)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				s := &server{backend: newMemory(t, nil), locks: map[string]*exportLock{}}
				began := time.Now()
				gone := make(chan struct{})
				go func() {
					defer close(gone)
					client(near)
				}()
				defer func() {
					near.Close()
					<-gone
				}()
				s.connection(t.Context(), far)
				if took := time.Since(began); took != handshakeTimeout {
					t.Errorf("given up after %v, not %v", took, handshakeTimeout)
				}
			})
		})
	}
}

// lateBackend opens after a while.
type lateBackend struct {
	*memory
	after time.Duration
}

func (b lateBackend) Open(ctx context.Context, name string) (Volume, error) {
	select {
	case <-time.After(b.after):
		return b.memory.Open(ctx, name)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// The wait for an export that is not there yet is not the client's time; but a client that leaves is noticed, also
// when it sent something ahead, and one that sends without end is not listened to.
func TestOpenIsNotTheClientsTime(t *testing.T) {
	open := func(t *testing.T, then func(near net.Conn)) (took time.Duration) {
		near, far := net.Pipe()
		gone := make(chan struct{})
		defer func() {
			near.Close()
			<-gone
		}()
		m := newMemory(t, map[string]int64{"disk": 1 << 20})
		s := &server{backend: lateBackend{m, time.Hour}, locks: map[string]*exportLock{}}
		began := time.Now()
		go func() {
			defer close(gone)
			_, _ = io.CopyN(io.Discard, near, 18)
			_, _ = near.Write([]byte{0, 0, 0, 3})
			_, _ = near.Write(optionBytes(optGo, []byte("\x00\x00\x00\x04disk\x00\x00")))
			then(near)
		}()
		s.connection(t.Context(), far)
		if m.volumes["disk"].isOpen() {
			t.Error("the volume stayed open")
		}
		return time.Since(began)
	}
	synctest.Test(t, func(t *testing.T) {
		answered := false
		took := open(t, func(near net.Conn) {
			<-time.After(time.Hour)
			c := &client{t, near}
			for c.optionReply() == repInfo {
				continue
			}
			<-time.After(time.Hour) // nor is there a limit in transmission
			c.send(cmdRead, 0, 1, 0, 4096, nil)
			c.expect(1, eOK, 4096)
			answered = true
			near.Close()
		})
		if !answered || took != 2*time.Hour {
			t.Errorf("answered: %v, after %v", answered, took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		took := open(t, func(near net.Conn) {
			_, _ = near.Write(rawRequest(cmdRead, 0, 1, 0, 4096)) // ahead
			<-time.After(time.Minute)
			near.Close()
		})
		if took != time.Minute {
			t.Errorf("its leaving was noticed after %v", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		took := open(t, func(near net.Conn) {
			ticks(time.Millisecond, func() error { _, err := near.Write(make([]byte, 1000)); return err })
		})
		if took > time.Minute {
			t.Errorf("listened to it for %v", took)
		}
	})
}
