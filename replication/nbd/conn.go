package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"duet/replication/internal/batch"
	"duet/replication/internal/nowait"
)

// readAhead is the buffer of the reader: some dozens of requests with 4 KiB of payload arrive in one read.
// Longer payloads go straight into their own buffers.
const readAhead = 128 << 10

// conn is one client. The goroutine of run reads, and begins what the volume can begin; every other request has a goroutine.
// Replies are written by whoever finds nobody writing (outbox).
type conn struct {
	srv  *server
	net  net.Conn
	raw  syscall.RawConn // of net; nil: it has none
	in   *bufio.Reader
	read batch.Batch // of the reader
	name string      // export, once chosen

	ctx    context.Context // ends when the client is gone or was given up
	cancel context.CancelFunc

	deadlines sync.Mutex
	stopping  bool

	until    time.Time // bounds the handshake
	noZeroes bool
	volume   Volume
	guard    Guard    // volume, if it is one
	terms    Terms    // likewise
	begins   Beginner // likewise
	offer    offer
	selected string // the export that the contexts of offer were selected for
	ranges   *rangeLock

	budget  budget
	running sync.WaitGroup
	out     outbox
}

func newConn(s *server, nc net.Conn) *conn {
	ctx, cancel := context.WithCancel(context.Background())
	nc = nowait.New(nc)
	c := &conn{srv: s, net: nc, ctx: ctx, cancel: cancel}
	c.in = bufio.NewReaderSize(&reading{c}, readAhead)
	if sc, ok := nc.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn() //nolint:errcheck // then there is none
	}
	c.budget.init()
	return c
}

// stop ends reading at once and the rest after stopTimeout.
func (c *conn) stop() {
	c.deadlines.Lock()
	c.stopping = true
	c.setReadDeadline(past)
	c.deadlines.Unlock()
	time.AfterFunc(stopTimeout, c.cancel)
}

// readUntil sets the deadline of reads; zero: none. A stopping connection reads no more.
func (c *conn) readUntil(t time.Time) {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if !c.stopping {
		c.setReadDeadline(t)
	}
}

// haggleUntil bounds the handshake in both directions: a client may stop sending, and it may stop reading.
func (c *conn) haggleUntil(t time.Time) {
	c.until = t
	c.readUntil(t)
	c.net.SetWriteDeadline(t)
}

// past as a deadline ends a read at once.
var past = time.Unix(1, 0)

// setReadDeadline gives a connection up whose reads cannot be bounded.
func (c *conn) setReadDeadline(t time.Time) {
	if err := c.net.SetReadDeadline(t); err != nil {
		c.cancel()
	}
}

// hangUp closes the socket. That it was closed already, or breaks on the way, is all the same by now.
func (c *conn) hangUp() {
	if err := c.net.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		slog.Debug("nbd connection broke while closing", "export", c.name, "error", err)
	}
}

func (c *conn) isStopping() bool {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	return c.stopping
}

// run is the whole conversation. An orderly end, of either side, is no error.
func (c *conn) run() error {
	closeOnCancel := context.AfterFunc(c.ctx, c.hangUp)
	defer closeOnCancel()
	began, err := c.handshake()
	if !began || err != nil {
		return c.plain(err)
	}
	err = c.transmit()
	if err == nil || c.isStopping() {
		c.finish()
	}
	return c.plain(err)
}

// end gives everything back, after the last request returned.
func (c *conn) end() {
	c.cancel()
	c.hangUp()
	c.running.Wait()
	if c.volume != nil {
		c.volume.Close()
		c.srv.unlockOf(c.name)
	}
}

// plain makes nil of the errors that are a goodbye.
func (c *conn) plain(err error) error {
	if err == nil || c.ctx.Err() != nil || c.isStopping() ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}

// finish waits for the requests in flight, but not for a client that leaves meanwhile.
func (c *conn) finish() {
	done := make(chan struct{})
	go func() {
		c.running.Wait()
		close(done)
	}()
	if !c.isStopping() {
		go func() { // nothing sensible comes after DISC; its end does
			if _, err := io.Copy(io.Discard, c.in); err == nil || !c.isStopping() {
				c.cancel()
			}
		}()
	}
	select {
	case <-done:
	case <-c.ctx.Done():
	}
}

// reading is the socket. Before it is waited for, what has come before goes its way.
type reading struct{ c *conn }

func (r *reading) Read(p []byte) (int, error) {
	r.c.read.End()
	return r.c.net.Read(p)
}

// transmit reads requests until the client disconnects (nil) or the stream ends or breaks.
func (c *conn) transmit() error {
	c.haggleUntil(time.Time{})
	defer c.read.End()
	for {
		r := newRequest()
		if err := c.readRequest(r); err != nil || r.command == cmdDisc {
			r.release()
			return err
		}
		c.running.Add(1)
		if !c.begin(r) {
			go c.serve(r)
		}
	}
}

// readRequest reads a header, waits for room, and reads the payload.
func (c *conn) readRequest(r *request) error {
	var h [28]byte
	if _, err := io.ReadFull(c.in, h[:]); err != nil {
		return err
	}
	be := binary.BigEndian
	if magic := be.Uint32(h[0:]); magic != magicRequest {
		return fmt.Errorf("request magic %#x: the stream is out of step", magic)
	}
	r.flags, r.command, r.cookie = be.Uint16(h[4:]), be.Uint16(h[6:]), be.Uint64(h[8:])
	r.off, r.n = be.Uint64(h[16:]), be.Uint32(h[24:])
	if r.command == cmdDisc {
		return nil
	}
	r.err, r.why = r.check(c.offer)
	if r.err == eOK {
		r.plan()
	}
	if !c.budget.try(r.charge) {
		c.read.End()
		if err := c.budget.take(c.ctx, r.charge); err != nil {
			return err
		}
	}
	r.charged = &c.budget
	if r.command != cmdWrite {
		return nil
	}
	if r.err != eOK {
		return c.drain(int64(r.n))
	}
	return c.readPayload(r)
}

// readPayload reads what is written into its place within the aligned pieces.
func (c *conn) readPayload(r *request) error {
	r.allocate()
	for i := range r.pieces {
		if _, err := io.ReadFull(c.in, r.wanted(i)); err != nil {
			return err
		}
	}
	return nil
}

// drain reads a refused payload away, so that the next header is found where it is.
func (c *conn) drain(n int64) error {
	if n > drainBytesMax {
		return fmt.Errorf("refused write of %d bytes is too long to drain", n)
	}
	_, err := io.CopyN(io.Discard, c.in, n)
	return err
}

// whileOpening runs f with a context that ends when the client leaves or the server stops. What f takes is not the
// client's time.
func (c *conn) whileOpening(f func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	began := time.Now()
	c.readUntil(time.Time{})
	peeked := make(chan struct{})
	go func() {
		defer close(peeked)
		defer cancel()
		for { // what comes meanwhile stays in the buffer; its end, a stop, and more than any client sends ahead end it
			if _, err := c.in.Peek(c.in.Buffered() + 1); err != nil {
				return
			}
		}
	}()
	err := f(ctx)
	c.deadlines.Lock()
	c.setReadDeadline(past) // wakes the peek
	c.deadlines.Unlock()
	<-peeked
	c.haggleUntil(c.until.Add(time.Since(began)))
	return err
}
