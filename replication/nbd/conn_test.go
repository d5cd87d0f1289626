package nbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // bad clients are half of these tests
	goleak.VerifyTestMain(m)
}

func one(t testing.TB) (*running, *ram) {
	t.Helper()
	s := start(t, newMemory(t, map[string]int64{"disk": 8 << 20}))
	return s, s.backend.volumes["disk"]
}

// gate holds calls of a volume until it is opened.
type gate struct {
	open   chan struct{}
	inside atomic.Int64
}

func (g *gate) pass(ctx context.Context) error {
	g.inside.Add(1)
	defer g.inside.Add(-1)
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func block4(with byte) []byte { return bytes.Repeat([]byte{with}, 4096) }

// A held write holds nothing but itself, and is answered when it is let go.
func TestHeldRequestHoldsNothingElse(t *testing.T) {
	s, disk := one(t)
	g := newGate()
	disk.hook(func(ctx context.Context, call string, off, _ int64) error {
		if call == "write" && off == 0 {
			return g.pass(ctx)
		}
		return nil
	})
	c := enter(t, s, "disk")
	c.send(cmdWrite, 0, 1, 0, 4096, block4(1))
	for i := range uint64(300) { // more than fit in flight, had they been held, too
		c.send(cmdWrite, 0, 100+i, 4096, 4096, block4(2))
		c.expect(100+i, eOK, 0)
	}
	c.send(cmdRead, 0, 2, 0, 4096, nil)
	if !bytes.Equal(c.expect(2, eOK, 4096), block4(0)) {
		t.Fatal("held write is visible")
	}
	close(g.open)
	c.expect(1, eOK, 0)
}

// At its limits a connection is not read from; other connections are; then everything is answered.
func TestLimitsStopReading(t *testing.T) {
	for name, c := range map[string]struct {
		bytes uint32
		fits  int64
	}{
		"requests": {4096, requestsMax},
		"bytes":    {1 << 20, bytesMax >> 20},
	} {
		t.Run(name, func(t *testing.T) {
			s, disk := one(t)
			g := newGate()
			disk.hook(func(ctx context.Context, call string, _, _ int64) error {
				if call == "write" {
					return g.pass(ctx)
				}
				return nil
			})
			cl := enter(t, s, "disk")
			const extra = 20
			total := int(c.fits) + extra
			go func() {
				p := make([]byte, c.bytes)
				for i := range total {
					if _, err := cl.Write(append(rawRequest(cmdWrite, 0, uint64(i), 0, c.bytes), p...)); err != nil {
						t.Errorf("write %d: %v", i, err)
						return
					}
				}
			}()
			await(t, "the limit is reached", func() bool { return g.inside.Load() == c.fits })
			other := enter(t, s, "disk")
			other.send(cmdRead, 0, 9, 0, 4096, nil)
			other.expect(9, eOK, 4096)
			cl.silent(50 * time.Millisecond)
			if n := g.inside.Load(); n != c.fits {
				t.Fatalf("%d in flight, limit %d", n, c.fits)
			}
			close(g.open)
			seen := map[uint64]bool{}
			for range total {
				cookie, err := cl.reply()
				if err != eOK || seen[cookie] {
					t.Fatalf("reply to %d: %d", cookie, err)
				}
				seen[cookie] = true
			}
		})
	}
}

// Ragged writes of many connections to the bytes of one block, among whole writes of the neighbours: nobody's
// bytes are lost. Without the range lock the read-modify-writes lose each other's.
func TestRaggedWritesAreAtomicOverConnections(t *testing.T) {
	s, disk := one(t)
	disk.hook(func(context.Context, string, int64, int64) error { runtime.Gosched(); return nil })
	const writers, rounds = 8, 100
	var wg sync.WaitGroup
	for w := range writers {
		c := enter(t, s, "disk")
		wg.Go(func() {
			off := uint64(4096 - 4*writers + w*8) // straddles two blocks
			for i := range rounds {
				c.send(cmdWrite, 0, uint64(i), off, 8, bytes.Repeat([]byte{byte(i)}, 8))
				c.expect(uint64(i), eOK, 0)
				c.send(cmdRead, 0, 1000, off, 8, nil)
				if got := c.expect(1000, eOK, 8); !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, 8)) {
					t.Errorf("writer %d round %d: read %v", w, i, got)
				}
			}
		})
	}
	wg.Wait()
	want := bytes.Repeat([]byte{rounds - 1}, 8*writers)
	if got := disk.contents()[4096-4*writers:][:8*writers]; !bytes.Equal(got, want) {
		t.Fatalf("lost bytes: %v", got)
	}
}

// Whole writes never wait for each other, ragged ones wait for both, in order of arrival.
func TestRangeLock(t *testing.T) {
	var l rangeLock
	ctx := t.Context()
	a, b := &span{from: 0, to: 8192}, &span{from: 4096, to: 12288}
	if !l.enter(a) || !l.enter(b) {
		t.Fatal("whole writes wait for each other")
	}
	rmw := &span{from: 4096, to: 8192, alone: true}
	late := &span{from: 4096, to: 8192}
	far := &span{from: 1 << 20, to: 2 << 20, alone: true}
	if l.enter(rmw) || l.enter(late) || !l.enter(far) {
		t.Fatal("who waits is wrong")
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := l.lock(gone, &span{from: 0, to: 4096 * 3, alone: true}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	isReady := func(s *span) bool {
		select {
		case <-s.ready:
			return true
		default:
			return false
		}
	}
	l.unlock(a)
	if isReady(rmw) {
		t.Fatal("too early")
	}
	l.unlock(b)
	if !isReady(rmw) || isReady(late) {
		t.Fatal("order of arrival")
	}
	l.unlock(rmw)
	if !isReady(late) {
		t.Fatal("left behind")
	}
	l.unlock(late)
	l.unlock(far)
	if len(l.spans) != 0 || l.alone != 0 {
		t.Fatalf("%+v", &l)
	}
}

// P6: what the volume says when it goes away, or when the server stops, never reaches the client as an error.
func TestGoingAwayIsNotAnError(t *testing.T) {
	t.Run("volume gone", func(t *testing.T) {
		s, disk := one(t)
		disk.hook(func(context.Context, string, int64, int64) error { return fmt.Errorf("leg closed: %w", ErrGone) })
		c := enter(t, s, "disk")
		c.send(cmdWrite, 0, 1, 0, 4096, block4(1))
		c.closed()
	})
	t.Run("server stops with a held request", func(t *testing.T) {
		s, disk := one(t)
		g := newGate()
		disk.hook(func(ctx context.Context, _ string, _, _ int64) error { return g.pass(ctx) })
		c := enter(t, s, "disk")
		const many = 200 // so that one of them would win the race against the close
		for i := range uint64(many) {
			c.send(cmdWrite, 0, i, 0, 4096, block4(1))
		}
		await(t, "held", func() bool { return g.inside.Load() == many })
		began := time.Now()
		s.stop()
		if took := time.Since(began); took < stopTimeout/2 || took > patience {
			t.Errorf("stopped after %v", took)
		}
		c.closed()
	})
	t.Run("server stops while a request gets done", func(t *testing.T) {
		s, disk := one(t)
		g := newGate()
		disk.hook(func(ctx context.Context, _ string, _, _ int64) error { return g.pass(ctx) })
		c := enter(t, s, "disk")
		c.send(cmdWrite, 0, 1, 0, 4096, block4(1))
		await(t, "held", func() bool { return g.inside.Load() == 1 })
		go s.stop()
		close(g.open)
		c.expect(1, eOK, 0)
		c.closed()
	})
}

// A client that leaves takes its held requests along.
func TestClientLeavesWhileHeld(t *testing.T) {
	for name, leaveBy := range map[string]func(*client){
		"closes":          func(c *client) { c.Close() },
		"DISC and closes": func(c *client) { c.send(cmdDisc, 0, 0, 0, 0, nil); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s, disk := one(t)
			g := newGate()
			disk.hook(func(ctx context.Context, _ string, _, _ int64) error { return g.pass(ctx) })
			c := enter(t, s, "disk")
			c.send(cmdWrite, 0, 1, 0, 4096, block4(1))
			await(t, "held", func() bool { return g.inside.Load() == 1 })
			leaveBy(c)
			await(t, "the volume is closed", func() bool {
				return !disk.isOpen()
			})
		})
	}
}

// slowBackend is a backend whose export is not there yet.
type slowBackend struct {
	*memory
	g *gate
}

func (b slowBackend) Open(ctx context.Context, name string) (Volume, error) {
	if name == "disk" {
		if err := b.g.pass(ctx); err != nil {
			return nil, err
		}
	}
	return b.memory.Open(ctx, name)
}

// While an export is not there yet the handshake waits, an unknown name does not, and a client that gives up is
// forgotten.
func TestOpenMayBlock(t *testing.T) {
	b := slowBackend{newMemory(t, map[string]int64{"disk": 1 << 20}), newGate()}
	path := filepath.Join(t.TempDir(), "nbd.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, b) }()
	s := &running{path: path}

	waiting := dial(t, s)
	waiting.goOption("disk")
	leaving := dial(t, s)
	leaving.goOption("disk")
	await(t, "two wait", func() bool { return b.g.inside.Load() == 2 })
	unknown := dial(t, s)
	unknown.goOption("nope")
	if kind := unknown.optionReply(); kind != repErrUnknown {
		t.Fatalf("unknown: %#x", kind)
	}
	leaving.Close()
	await(t, "one waits", func() bool { return b.g.inside.Load() == 1 })
	close(b.g.open)
	if kind := waiting.optionReply(); kind != repInfo {
		t.Fatalf("GO: %#x", kind)
	}
	if kind := waiting.optionReply(); kind != repAck {
		t.Fatalf("GO: %#x", kind)
	}
	waiting.send(cmdRead, 0, 1, 0, 4096, nil)
	waiting.expect(1, eOK, 4096)

	b.g.open = make(chan struct{})
	blocked := dial(t, s)
	blocked.goOption("disk")
	await(t, "one waits again", func() bool { return b.g.inside.Load() == 1 })
	cancel() // a stopping server does not wait for Open
	blocked.closed()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestErrorsOfTheVolume(t *testing.T) {
	s, disk := one(t)
	var answer atomic.Value
	disk.hook(func(context.Context, string, int64, int64) error { return answer.Load().(error) })
	c := enter(t, s, "disk")
	for err, want := range map[error]errno{
		errors.New("whatever"): eIO,
		syscall.EIO:            eIO,
		fmt.Errorf("wrapped: %w", syscall.ENOSPC): eNOSPC,
		syscall.EPERM:   ePERM,
		syscall.EROFS:   eIO,
		syscall.EINVAL:  eINVAL,
		syscall.ENOTSUP: eNOTSUP,
	} {
		answer.Store(fmt.Errorf("%w", err))
		for command, payload := range map[uint16][]byte{cmdWrite: block4(1), cmdRead: nil, cmdTrim: nil, cmdWriteZeroes: nil} {
			c.send(command, 0, 5, 0, 4096, payload)
			c.expect(5, want, 0)
		}
		c.send(cmdFlush, 0, 6, 0, 0, nil)
		c.expect(6, want, 0)
	}
}

// First error wins, and the pieces after it are not tried.
func TestBug12ErrorOfASplitRequestIsNotOverwritten(t *testing.T) {
	for failing := range int64(4) {
		s, disk := one(t)
		disk.hook(func(_ context.Context, _ string, off, _ int64) error {
			if off == failing<<20 {
				return syscall.EIO
			}
			return nil
		})
		c := enter(t, s, "disk")
		c.send(cmdWrite, 0, 1, 0, 4<<20, make([]byte, 4<<20))
		c.expect(1, eIO, 0)
		c.send(cmdRead, 0, 2, 0, 4<<20, nil)
		c.expect(2, eIO, 0)
		c.send(cmdWriteZeroes, 0, 3, 0, 4<<20, nil)
		c.expect(3, eIO, 0)
	}
}

// A client that does not read its replies stops only itself, and goes when the server stops.
func TestClientThatDoesNotRead(t *testing.T) {
	s, _ := one(t)
	c := enter(t, s, "disk")
	for i := range uint64(40) { // more than socket buffers hold
		c.send(cmdRead, 0, i, 0, 1<<20, nil)
	}
	other := enter(t, s, "disk")
	other.send(cmdFlush, 0, 9, 0, 0, nil)
	other.expect(9, eOK, 0)
	s.stop()
	_, _ = io.Copy(io.Discard, c)
}

func TestServeEndsWhenItsListenerDoes(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "nbd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := Serve(t.Context(), l, newMemory(t, nil)); !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
}

// From the end of its context on a connection says nothing, whoever else would have closed it first: an error
// that only means "cancelled" would reach the guest.
func TestNothingIsAnsweredAfterTheEnd(t *testing.T) {
	server, far := net.Pipe()
	defer far.Close()
	c := newConn(nil, server)
	c.cancel()
	r := newRequest()
	r.err = eIO
	c.running.Add(1)
	go func() {
		c.answer(r)
		server.Close()
	}()
	if p, _ := io.ReadAll(far); len(p) != 0 {
		t.Fatalf("%d bytes were answered", len(p))
	}
}
