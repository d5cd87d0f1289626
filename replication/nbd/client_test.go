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
	c := &client{t, nc}
	c.take(18)
	c.put([]byte{0, 0, 0, 3})
	return c
}

// enter dials and begins transmission on an export, after other options that must succeed.
func enter(t testing.TB, s *running, export string, options ...[]byte) *client {
	t.Helper()
	c := dial(t, s)
	for _, o := range options {
		c.put(o)
		c.acknowledged()
	}
	c.goOption(export)
	c.acknowledged()
	return c
}

// structured is the option that asks for structured replies.
var structured = optionBytes(optStructuredReply, nil)

// optionBytes is one option as it goes over the wire.
func optionBytes(opt uint32, data []byte) []byte {
	be := binary.BigEndian
	p := be.AppendUint64(nil, magicOption)
	p = be.AppendUint32(p, opt)
	p = be.AppendUint32(p, uint32(len(data)))
	return append(p, data...)
}

func (c *client) goOption(export string) {
	data := binary.BigEndian.AppendUint32(nil, uint32(len(export)))
	c.put(optionBytes(optGo, append(append(data, export...), 0, 0)))
}

// acknowledged reads the replies of an option, which must end well, and returns the others.
func (c *client) acknowledged() (before [][]byte) {
	c.t.Helper()
	for {
		h := c.take(20)
		data := c.take(int(binary.BigEndian.Uint32(h[16:])))
		switch kind := binary.BigEndian.Uint32(h[12:]); {
		case kind == repAck:
			return before
		case kind>>31 != 0:
			c.t.Fatalf("option %d: %#x %q", binary.BigEndian.Uint32(h[8:]), kind, data)
		}
		before = append(before, data)
	}
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
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(p); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) take(n int) []byte {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
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

// chunk is one chunk of a structured reply.
type chunk struct {
	flags, kind uint16
	cookie      uint64
	data        []byte
}

func (c *client) chunk() chunk {
	c.t.Helper()
	k, simple := c.eitherReply()
	if simple {
		c.t.Fatalf("a simple reply to %d", k.cookie)
	}
	return k
}

// eitherReply is what comes when structured replies are negotiated: a chunk, or a simple reply of success.
func (c *client) eitherReply() (k chunk, simple bool) {
	c.t.Helper()
	be := binary.BigEndian
	h := c.take(16)
	switch magic := be.Uint32(h); {
	case magic == magicSimple && be.Uint32(h[4:]) == uint32(eOK):
		return chunk{cookie: be.Uint64(h[8:])}, true
	case magic != magicChunk:
		c.t.Fatalf("magic %#x, and then %x", magic, h[4:])
	}
	k.flags, k.kind, k.cookie = be.Uint16(h[4:]), be.Uint16(h[6:]), be.Uint64(h[8:])
	k.data = c.take(int(be.Uint32(c.take(4))))
	return k, false
}

// errorChunk takes an error chunk apart.
func (k chunk) errorChunk(t testing.TB) (e errno, why string, at uint64) {
	t.Helper()
	be := binary.BigEndian
	if k.kind != chunkError && k.kind != chunkErrorAt {
		t.Fatalf("chunk of type %#x, want an error", k.kind)
	}
	n := int(be.Uint16(k.data[4:]))
	rest := k.data[6+n:]
	if k.kind == chunkErrorAt {
		at, rest = be.Uint64(rest), rest[8:]
	}
	if len(rest) != 0 || k.flags != chunkDone {
		t.Fatalf("malformed error chunk %+v", k)
	}
	return errno(be.Uint32(k.data)), string(k.data[6:][:n]), at
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
	_ = c.SetReadDeadline(time.Now().Add(patience))
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
