package link

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/replication/block"
	"duet/replication/control"
	"duet/replication/internal/batch"
	"duet/replication/internal/pinned"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// echo acknowledges every request and remembers what happened.
type echo struct {
	mu     sync.Mutex
	up     []*Lane
	down   int
	frames []Frame
	faults []control.Fault
	mute   bool
}

func (e *echo) LaneUp(l *Lane) { e.mu.Lock(); e.up = append(e.up, l); e.mu.Unlock() }

func (e *echo) LaneDown(*Lane, error) { e.mu.Lock(); e.down++; e.mu.Unlock() }

func (e *echo) LinkFault(f control.Fault) { e.mu.Lock(); e.faults = append(e.faults, f); e.mu.Unlock() }

func (e *echo) LaneFrame(l *Lane, f *Frame) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	kept := *f
	kept.Payload = bytes.Clone(f.Payload)
	e.frames = append(e.frames, kept)
	if f.Payload != nil {
		block.Put(f.Payload)
	}
	if f.Request != 0 && !e.mute {
		go l.Ack(f.Request, f.Status)
	}
	return nil
}

func (e *echo) set(f func(*echo)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(e)
}

// queued is how many frames wait to be written.
func (l *Lane) queued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

func (e *echo) count(f func(*echo) int) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return f(e)
}

type bench struct {
	t     *testing.T
	port  int
	keys  [2]ed25519.PrivateKey
	links [2]*Link
	hands [2]*echo
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t}
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	b.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	for i := range b.keys {
		if _, b.keys[i], err = ed25519.GenerateKey(rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	for i := range b.links {
		b.hands[i] = &echo{}
		b.links[i] = New(b.hands[i], slog.New(slog.DiscardHandler))
		if err := b.links[i].Configure(b.config(i, public(b.keys[1-i]))); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.links[i].Close)
	}
	return b
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func (b *bench) config(i int, peer ed25519.PublicKey) Config {
	addresses := []string{"127.0.0.1", "127.0.0.2"}
	return Config{
		Site: "s", Node: control.Node(i), Boot: strconv.Itoa(i), Process: rand.Text(), Key: b.keys[i], PeerKey: peer, Port: b.port,
		Paths: []control.Path{
			{Name: "absent", Local: "198.51.100.99", Peer: "198.51.100.98"},
			{Name: "mirror0", Local: addresses[i], Peer: addresses[1-i]},
		},
	}
}

func (b *bench) right(r Right) {
	for _, l := range b.links {
		l.SetRight(r)
	}
}

func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

func (b *bench) awaitUp(session uint64) (a, z *Lane) {
	b.t.Helper()
	await(b.t, "lane up", func() bool {
		a, z = b.links[0].Lane(), b.links[1].Lane()
		return a != nil && z != nil && a.Session == session && a.Incarnation == z.Incarnation
	})
	return a, z
}

func send(l *Lane, f *Frame) (uint32, error) {
	type end struct {
		status uint32
		err    error
	}
	done := make(chan end, 1)
	l.Send(f, func(s uint32, err error) { done <- end{s, err} })
	e := <-done
	return e.status, e.err
}

func TestLaneCarriesInOrder(t *testing.T) {
	b := newBench(t)
	b.right(Right{Session: 5, Epoch: 2})
	a, _ := b.awaitUp(5)
	if a.Path != "mirror0" {
		t.Errorf("path %s", a.Path)
	}
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Add(1)
		payload := bytes.Repeat([]byte{byte(i)}, 1+i*100)
		a.Send(&Frame{Type: Leg, Offset: uint64(i), Payload: payload, Status: uint32(i)}, func(s uint32, err error) {
			defer wg.Done()
			if err != nil || s != uint32(i) {
				t.Errorf("%d: status %d, %v", i, s, err)
			}
		})
	}
	wg.Wait()
	for i, f := range b.hands[1].frames {
		if f.Offset != uint64(i) || len(f.Payload) != 1+i*100 || f.Payload[0] != byte(i) {
			t.Fatalf("frame %d: offset %d, %d bytes", i, f.Offset, len(f.Payload))
		}
	}
}

func TestNoLaneWithoutTheSameRight(t *testing.T) {
	b := newBench(t)
	b.links[0].SetRight(Right{Session: 5, Epoch: 2})
	b.links[1].SetRight(Right{Session: 6, Epoch: 2})
	await(t, "a refused hello", func() bool { return b.links[1].Counters.Mismatched.Load() > 0 })
	if b.links[0].Lane() != nil || b.links[1].Lane() != nil {
		t.Fatal("a lane between two sessions")
	}
	// The other side learns of the session later: its hello was kept waiting.
	b.links[1].SetRight(Right{Session: 5, Epoch: 1, Prepared: 2})
	b.awaitUp(5)
}

func TestSessionEndCutsTheLane(t *testing.T) {
	b := newBench(t)
	b.right(Right{Session: 5, Epoch: 2})
	a, _ := b.awaitUp(5)
	b.hands[1].mute = true
	result := make(chan error, 1)
	a.Send(&Frame{Type: Write, Payload: block.Alloc(4096), Length: 4096}, func(_ uint32, err error) { result <- err })
	b.links[0].SetRight(Right{})
	if err := <-result; !errors.Is(err, ErrLost) {
		t.Fatalf("%v", err)
	}
	await(t, "both ends down", func() bool { return b.links[0].Lane() == nil && b.links[1].Lane() == nil })
	b.right(Right{Session: 6, Epoch: 3})
	b.awaitUp(6)
}

func TestRedialsAfterLoss(t *testing.T) {
	b := newBench(t)
	b.right(Right{Session: 5, Epoch: 2})
	seen := map[uint64]bool{}
	for range 4 {
		a, z := b.awaitUp(5)
		if seen[a.Incarnation] {
			t.Fatal("an incarnation came twice")
		}
		seen[a.Incarnation] = true
		z.Close(errors.New("cut by the test"))
		<-a.Dead()
		await(t, "down", func() bool { return b.links[0].Lane() != a && b.links[1].Lane() != z })
	}
}

// raw is a connection that proved node a's key and speaks by hand.
func (b *bench) raw(key ed25519.PrivateKey) (*tls.Conn, error) {
	c, err := pinned.Config(key, public(b.keys[1]))
	if err != nil {
		b.t.Fatal(err)
	}
	var d net.Dialer
	conn, err := d.DialContext(context.Background(), "tcp", net.JoinHostPort("127.0.0.2", strconv.Itoa(b.port)))
	if err != nil {
		return nil, err
	}
	b.t.Cleanup(func() { conn.Close() })
	secure := tls.Client(newSocket(conn), c)
	return secure, secure.HandshakeContext(context.Background())
}

// What is begun waits for the end of its batch, keeps its order among what is sent, and has one result. Without room nothing begins.
func TestBeginGoesOutWithItsBatch(t *testing.T) {
	b := newBench(t)
	b.right(Right{Session: 5, Epoch: 2})
	a, _ := b.awaitUp(5)
	b.hands[1].set(func(e *echo) { e.mute = true })
	told := make(chan uint32, 2*maxInFlightFrames)
	var batched batch.Batch
	begin := func() bool {
		return a.Begin(&batched, &Frame{Type: Flush, Volume: 1}, func(_ *batch.Batch, status uint32, err error) {
			if err != nil {
				status = 99
			}
			told <- status
		})
	}
	if !begin() || !begin() {
		t.Fatal("not begun")
	}
	if n := a.queued(); n != 2 {
		t.Errorf("%d frames wait for the end of the batch", n)
	}
	batched.End()
	a.Send(&Frame{Type: Flush, Volume: 2}, nil)
	volumes := func() (v []uint32) {
		b.hands[1].set(func(e *echo) {
			for _, f := range e.frames {
				v = append(v, f.Volume)
			}
		})
		return v
	}
	await(t, "in order", func() bool { return slices.Equal(volumes(), []uint32{1, 1, 2}) })
	n := 2
	for begin() {
		n++
	}
	if n != maxInFlightFrames {
		t.Errorf("%d frames are in flight", n)
	}
	batched.End()
	a.Close(errors.New("enough"))
	for range n {
		if status := <-told; status != 99 {
			t.Fatalf("status %d from a peer that says nothing", status)
		}
	}
	if begin() {
		t.Error("begun on a dead lane")
	}
}

// A lane is clear when both nodes say so of its path, and only then: frames of every size cross either way, and what was sent right behind
// the last record of TLS is not lost in it.
func TestAClearLane(t *testing.T) {
	for _, c := range []struct{ a, b, clear bool }{{true, true, true}, {true, false, false}, {false, true, false}} {
		b := newBench(t)
		for i, says := range []bool{c.a, c.b} {
			cfg := b.config(i, public(b.keys[1-i]))
			for k := range cfg.Paths {
				cfg.Paths[k].Clear = says
			}
			if err := b.links[i].Configure(cfg); err != nil {
				t.Fatal(err)
			}
		}
		for session := uint64(5); session < 8; session++ {
			b.right(Right{Session: session, Epoch: 2})
			x, z := b.awaitUp(session)
			if x.Clear != c.clear || z.Clear != c.clear {
				t.Errorf("%+v: %v, %v", c, x.Clear, z.Clear)
			}
			for _, n := range []int{1, 4096, 128 << 10, MaxPayload} {
				for _, l := range []*Lane{x, z} {
					p := block.Get(n)
					rand.Read(p)
					if status, err := send(l, &Frame{Type: Write, Length: uint32(n), Payload: p, Status: 7}); err != nil || status != 7 {
						t.Fatalf("%+v, %d bytes: %d, %v", c, n, status, err)
					}
					block.Put(p)
				}
			}
		}
		for _, l := range b.links {
			l.Close()
		}
	}
}

// The reader of a lane never waits for its socket: what is owed to its batch is written by another goroutine, at once.
func TestTheReaderDoesNotWrite(t *testing.T) {
	b := newBench(t)
	b.right(Right{Session: 5, Epoch: 2})
	told := make(chan error, 1)
	a, _ := b.awaitUp(5)
	if !a.Begin(a.Reading(), &Frame{Type: Flush}, func(_ *batch.Batch, _ uint32, err error) { told <- err }) {
		t.Fatal("not begun")
	}
	if err := <-told; err != nil { // its batch was not ended by this test
		t.Error(err)
	}
}

func TestWrongKeyIsRefusedAndReported(t *testing.T) {
	b := newBench(t)
	b.right(Right{Session: 5, Epoch: 2})
	b.awaitUp(5)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := b.raw(key)
	if err == nil {
		conn.SetDeadline(time.Now().Add(patience))
		_, err = conn.Read(make([]byte, 1))
	}
	if err == nil {
		t.Fatal("a foreign key was let in")
	}
	await(t, "counted and reported", func() bool {
		return b.links[1].Counters.WrongKey.Load() == 1 && b.hands[1].count(func(e *echo) int { return len(e.faults) }) == 1
	})
	if b.hands[1].count(func(e *echo) int { return e.down }) != 0 {
		t.Error("the living lane was disturbed")
	}
}

// A wrong key at the listening side is seen by the dialer.
func TestDialerRefusesAWrongKey(t *testing.T) {
	b := newBench(t)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.links[0].Configure(b.config(0, public(key))); err != nil {
		t.Fatal(err)
	}
	b.right(Right{Session: 5, Epoch: 2})
	await(t, "counted and reported", func() bool {
		return b.links[0].Counters.WrongKey.Load() > 0 && b.hands[0].count(func(e *echo) int { return len(e.faults) }) == 1
	})
	if b.links[1].Lane() != nil {
		t.Fatal("a lane with a wrong key")
	}
}

// Garbage, silence and floods on the port do not disturb a living lane, nor keep the peer out.
func TestStrangersOnThePort(t *testing.T) {
	b := newBench(t)
	b.right(Right{Session: 5, Epoch: 2})
	a, _ := b.awaitUp(5)
	for i := range 5 * maxStrangers {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.2", strconv.Itoa(b.port)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			if _, err := c.Write(bytes.Repeat([]byte("garbage "), 100)); err != nil {
				continue // dropped already
			}
		}
	}
	await(t, "strangers dropped", func() bool { return b.links[1].Counters.Dropped.Load() > 0 })
	if s, err := send(a, &Frame{Type: Leg, Status: 4}); err != nil || s != 4 {
		t.Fatalf("the lane: %d, %v", s, err)
	}
	a.Close(errors.New("cut by the test"))
	await(t, "a new lane", func() bool { l := b.links[0].Lane(); return l != nil && l != a })
	b.awaitUp(5)
}

// Each violation on a connection of the right key ends it and reaches nobody.
func TestViolationsEndTheLane(t *testing.T) {
	violations := map[string]func(l *Lane) []byte{
		"gap": func(l *Lane) []byte { return l.craft(&Frame{Type: Leg, Sequence: 2}) },
		"repeat": func(l *Lane) []byte {
			return append(l.craft(&Frame{Type: Ping, Sequence: 1}), l.craft(&Frame{Type: Leg, Sequence: 1})...)
		},
		"other incarnation": func(l *Lane) []byte {
			f := &Frame{Type: Leg, Sequence: 1, Session: uint32(l.Session), Incarnation: 1}
			return encodeFrame(f)
		},
		"other session": func(l *Lane) []byte {
			f := &Frame{Type: Leg, Sequence: 1, Session: 77, Incarnation: uint32(l.Incarnation)}
			return encodeFrame(f)
		},
		"other epoch":       func(l *Lane) []byte { return l.craft(&Frame{Type: Write, Sequence: 1, Epoch: 9}) },
		"second hello":      func(l *Lane) []byte { return l.craft(&Frame{Type: Hello, Sequence: 1}) },
		"answer to nothing": func(l *Lane) []byte { return l.craft(&Frame{Type: Acks, Sequence: 1, Payload: make([]byte, 8)}) },
		"ragged acks":       func(l *Lane) []byte { return l.craft(&Frame{Type: Acks, Sequence: 1, Payload: make([]byte, 7)}) },
		"request twice": func(l *Lane) []byte {
			return append(l.craft(&Frame{Type: Leg, Sequence: 1, Request: 4}), l.craft(&Frame{Type: Leg, Sequence: 2, Request: 4})...)
		},
		"garbage after start": func(*Lane) []byte { return bytes.Repeat([]byte{7}, 200) },
	}
	for name, craft := range violations {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.hands[1].mute = true
			b.links[1].SetRight(Right{Session: 5, Epoch: 2})
			var conn *tls.Conn
			await(t, "listening", func() bool {
				var err error
				conn, err = b.raw(b.keys[0])
				return err == nil
			})
			e := &end{link: New(&echo{}, slog.Default()), config: b.config(0, public(b.keys[1]))}
			l, err := e.greet(context.Background(), conn, control.Path{Name: "by hand"}, Right{Session: 5, Epoch: 2})
			if err != nil {
				t.Fatal(err)
			}
			await(t, "up", func() bool { return b.links[1].Lane() != nil })
			if _, err := conn.Write(craft(l)); err != nil {
				t.Fatal(err)
			}
			await(t, "closed", func() bool { return b.hands[1].count(func(e *echo) int { return e.down }) == 1 })
			want := 0
			if name == "request twice" {
				want = 1
			}
			if n := b.hands[1].count(func(e *echo) int { return len(e.frames) }); n != want {
				t.Errorf("%d frames reached the engine, want %d", n, want)
			}
		})
	}
}

func (l *Lane) craft(f *Frame) []byte {
	f.Session, f.Incarnation = uint32(l.Session), uint32(l.Incarnation)
	return encodeFrame(f)
}

// A peer that stops talking is lost after the limit, although its socket stays open.
func TestSilence(t *testing.T) {
	b := newBench(t)
	b.links[1].SetRight(Right{Session: 5, Epoch: 2})
	var conn *tls.Conn
	await(t, "listening", func() bool {
		var err error
		conn, err = b.raw(b.keys[0])
		return err == nil
	})
	e := &end{link: New(&echo{}, slog.Default()), config: b.config(0, public(b.keys[1]))}
	if _, err := e.greet(context.Background(), conn, control.Path{Name: "by hand"}, Right{Session: 5, Epoch: 2}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	await(t, "lost", func() bool { return b.hands[1].count(func(e *echo) int { return e.down }) == 1 })
	if d := time.Since(begin); d < silentFor-pingEvery {
		t.Errorf("lost after %v", d)
	}
}

// Proves: replication.md test 19. A socket that fails after k bytes loses the lane; every result comes, once.
func TestEveryResultComesOnce(t *testing.T) {
	b := newBench(t)
	b.right(Right{Session: 5, Epoch: 2})
	for round := range 5 {
		a, z := b.awaitUp(5)
		var results sync.WaitGroup
		for i := range 64 {
			results.Add(1)
			if i == 10*round {
				go z.Close(errors.New("cut by the test"))
			}
			go a.Send(&Frame{Type: Leg, Payload: make([]byte, 1<<16)}, func(uint32, error) { results.Done() })
		}
		results.Wait()
		<-a.Dead()
		await(t, "down", func() bool { return b.links[0].Lane() != a && b.links[1].Lane() != z })
	}
}
