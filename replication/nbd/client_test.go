package nbd

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// patience bounds every wait of a test on something that must happen.
const patience = 10 * time.Second

// client is a plain NBD client: it sends what it is told and checks what comes back.
type client struct {
	t testing.TB
	net.Conn
}

func dial(t testing.TB, s *running) *client {
	t.Helper()
	nc, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c := &client{t, nc}
	c.take(18)
	c.put([]byte{0, 0, 0, 3})
	return c
}

// enter dials and begins transmission on an export.
func enter(t testing.TB, s *running, export string) *client {
	t.Helper()
	c := dial(t, s)
	c.goOption(export)
	for {
		if kind := c.optionReply(); kind == repAck {
			return c
		} else if kind != repInfo {
			t.Fatalf("GO: %#x", kind)
		}
	}
}

func (c *client) goOption(export string) {
	be := binary.BigEndian
	data := be.AppendUint32(nil, uint32(len(export)))
	data = append(append(data, export...), 0, 0)
	p := be.AppendUint64(nil, magicOption)
	p = be.AppendUint32(p, optGo)
	p = be.AppendUint32(p, uint32(len(data)))
	c.put(append(p, data...))
}

// optionReply reads one reply of an option and returns its kind.
func (c *client) optionReply() uint32 {
	c.t.Helper()
	h := c.take(20)
	c.take(int(binary.BigEndian.Uint32(h[16:])))
	return binary.BigEndian.Uint32(h[12:])
}

func (c *client) put(p []byte) {
	c.t.Helper()
	if _, err := c.Write(p); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) take(n int) []byte {
	c.t.Helper()
	p := make([]byte, n)
	if _, err := io.ReadFull(c, p); err != nil {
		c.t.Fatal(err)
	}
	return p
}

func (c *client) send(command uint16, flags uint16, cookie, off uint64, n uint32, payload []byte) {
	c.t.Helper()
	c.put(append(rawRequest(command, flags, cookie, off, n), payload...))
}

func rawRequest(command, flags uint16, cookie, off uint64, n uint32) []byte {
	be := binary.BigEndian
	p := be.AppendUint32(nil, magicRequest)
	p = be.AppendUint16(p, flags)
	p = be.AppendUint16(p, command)
	p = be.AppendUint64(p, cookie)
	p = be.AppendUint64(p, off)
	return be.AppendUint32(p, n)
}

// expect reads a reply to cookie with that error, and n bytes of data.
func (c *client) expect(cookie uint64, want errno, n int) []byte {
	c.t.Helper()
	got, err := c.reply()
	if got != cookie || err != want {
		c.t.Fatalf("reply to %d with error %d, want to %d with %d", got, err, cookie, want)
	}
	return c.take(n)
}

func (c *client) reply() (cookie uint64, err errno) {
	c.t.Helper()
	h := c.take(16)
	if magic := binary.BigEndian.Uint32(h); magic != magicSimple {
		c.t.Fatalf("reply magic %#x", magic)
	}
	return binary.BigEndian.Uint64(h[8:]), errno(binary.BigEndian.Uint32(h[4:]))
}

// silent says that the server sends nothing; it is asked for after the proof that it could have.
func (c *client) silent(wait time.Duration) {
	c.t.Helper()
	defer c.SetReadDeadline(time.Now().Add(patience))
	c.SetReadDeadline(time.Now().Add(wait))
	var b [1]byte
	if _, err := c.Read(b[:]); err == nil {
		c.t.Fatal("the server answered")
	} else if t := net.Error(nil); !errors.As(err, &t) || !t.Timeout() {
		c.t.Fatalf("the server closed: %v", err)
	}
}

// closed waits for the end of the stream, without another byte.
func (c *client) closed() {
	c.t.Helper()
	var b [1]byte
	n, err := c.Read(b[:])
	var timeout net.Error
	if n != 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatalf("%d bytes, %v; want the end", n, err)
	}
}

// await polls a state that other goroutines reach.
func await(t testing.TB, what string, reached func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !reached() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}
