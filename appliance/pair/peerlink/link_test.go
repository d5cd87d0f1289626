package peerlink

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/build/testport"
	"duet/witness/pinned"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick is the table of times with everything ten times faster.
func quick() Timing {
	t := Default()
	for _, d := range []*time.Duration{&t.Tick, &t.Ping, &t.PeerLost, &t.Resend, &t.SessionPause, &t.BackoffMin, &t.BackoffMax} {
		*d /= 10
	}
	t.DriverAlive = time.Hour
	return t
}

type testNode struct {
	t     *testing.T
	link  *Link
	stop  func()
	mu    sync.Mutex
	seen  []Event
	wrong []string
}

func newKey(t *testing.T) ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// pathsOf are two loopback paths; only the first is inside the chassis.
func pathsOf(node int) []Path {
	var ps []Path
	for i, name := range []string{"mirror0", "lan0"} {
		ip := func(n int) string { return fmt.Sprintf("127.0.%d.%d", 10+i, 1+n) }
		ps = append(ps, Path{Name: name, Local: ip(node), Peer: ip(1 - node), Chassis: i == 0})
	}
	return ps
}

func startLink(t *testing.T, cfg Config) *testNode {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Timing = quick()
	n := &testNode{t: t, link: New(cfg)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.link.Run(ctx) })
	wg.Go(func() {
		for {
			select {
			case e := <-n.link.Events():
				if e.Kind == Message {
					n.link.Consume(e.Session, e.PeerIncarnation, e.Sequence)
				}
				n.mu.Lock()
				n.seen = append(n.seen, e)
				n.mu.Unlock()
			case why := <-n.link.Refusals():
				n.mu.Lock()
				n.wrong = append(n.wrong, why.Why)
				n.mu.Unlock()
			case <-ctx.Done():
				return
			}
		}
	})
	n.link.Alive()
	n.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(n.stop)
	return n
}

// count is how many events of a kind came.
func (n *testNode) count(k EventKind) (c int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.seen {
		if e.Kind == k {
			c++
		}
	}
	return c
}

func (n *testNode) session() (s uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.seen {
		switch e.Kind {
		case Began:
			s = e.Session
		case Lost:
			s = 0
		}
	}
	return s
}

func until(t *testing.T, what string, ready func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
		<-tick.C
	}
}

func twoLinks(t *testing.T, pinned bool) (a, b *testNode, port int) {
	keys := [2]ed25519.PrivateKey{newKey(t), newKey(t)}
	port = testport.New(t)
	var n [2]*testNode
	for i := range n {
		cfg := Config{Node: uint8(i), Serial: "C1", Key: keys[i], Port: port, Paths: pathsOf(i)}
		if pinned {
			cfg.Pin = Pin{Site: [16]byte{1}, Key: keys[1-i].Public().(ed25519.PublicKey)}
		}
		n[i] = startLink(t, cfg)
	}
	return n[0], n[1], port
}

func TestSessionOverTwoPaths(t *testing.T) {
	a, b, _ := twoLinks(t, true)
	until(t, "one session on both sides", func() bool { return a.session() != 0 && a.session() == b.session() })
	until(t, "both paths", func() bool { return a.link.Paths()[0].Connected && a.link.Paths()[1].Connected })
	for i := range 200 {
		a.link.Send(a.session(), fmt.Appendf(nil, "%d", i))
		b.link.Send(b.session(), fmt.Appendf(nil, "%d", i))
	}
	a.link.SendLoose(a.session(), []byte("beat"))
	until(t, "all messages", func() bool { return a.count(Message) == 200 && b.count(Message) == 200 && b.count(Loose) >= 1 })
	b.mu.Lock()
	defer b.mu.Unlock()
	want := 0
	for _, e := range b.seen {
		if e.Kind == Message {
			if string(e.Body) != fmt.Sprint(want) {
				t.Fatalf("message %d is %q", want, e.Body)
			}
			want++
		}
	}
}

// Fresh nodes trust each other's key only over a cable inside one chassis.
func TestFreshNodesMeetInsideTheChassisOnly(t *testing.T) {
	a, b, _ := twoLinks(t, false)
	until(t, "one session on both sides", func() bool { return a.session() != 0 && a.session() == b.session() })
	if p := a.link.Paths(); p[1].Connected || !p[0].Connected || p[1].Refused != 0 || b.link.Paths()[1].Refused != 0 {
		t.Fatalf("paths %+v", p)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.seen {
		if e.Kind == Began && (!e.PeerFresh || len(e.PeerKey) != ed25519.PublicKeySize) {
			t.Errorf("session began with %+v", e)
		}
	}
}

// The peer dies without a word; the other side knows after the timer, and they meet again when it is back.
func TestLossAndReturn(t *testing.T) {
	keys := [2]ed25519.PrivateKey{newKey(t), newKey(t)}
	port := testport.New(t)
	cfg := func(i int) Config {
		return Config{
			Node: uint8(i), Serial: "C1", Key: keys[i], Port: port, Paths: pathsOf(i),
			Pin: Pin{Site: [16]byte{1}, Key: keys[1-i].Public().(ed25519.PublicKey)},
		}
	}
	a, b := startLink(t, cfg(0)), startLink(t, cfg(1))
	until(t, "a session", func() bool { return a.session() != 0 && a.session() == b.session() })
	old := a.session()
	b.stop()
	until(t, "the loss", func() bool { return a.session() == 0 })
	b = startLink(t, cfg(1))
	until(t, "another session", func() bool { return a.session() != 0 && a.session() == b.session() })
	if a.session() == old {
		t.Fatal("the session of a dead process went on")
	}
}

// Strangers on the port are refused, counted and told, and disturb nothing.
func TestStrangersAreRefused(t *testing.T) {
	a, b, port := twoLinks(t, true)
	until(t, "a session", func() bool { return a.session() != 0 && a.session() == b.session() })
	session := a.session()
	addr := net.JoinHostPort(pathsOf(1)[0].Local, fmt.Sprint(port))

	garbage, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := garbage.Write(bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 10)); err != nil {
		t.Fatal(err)
	}
	defer garbage.Close()
	until(t, "garbage is refused", func() bool { return b.link.Paths()[0].Refused >= 1 })

	cfg, err := pinned.Server(newKey(t), func(ed25519.PublicKey) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	cfg.InsecureSkipVerify = true
	if c, err := tls.Dial("tcp", addr, cfg); err == nil { // TLS 1.3: the refusal of the client's key comes with the first read
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a wrong key was greeted")
		}
		_ = c.Close()
	}
	until(t, "a wrong key is refused", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return strings.Contains(strings.Join(b.wrong, "\n"), "not the peer's key")
	})
	if n := b.link.Refused(); n[WrongKey] != 1 || n[NoTLS] != 1 || len(n) != 2 {
		t.Errorf("counted %v", n)
	}
	if a.session() != session || b.session() != session {
		t.Error("strangers disturbed the session")
	}
}

// A pinned peer that says something else than before is refused too: its slot, its site, its version, its chassis.
func TestWrongGreetingsAreRefused(t *testing.T) {
	keys := [2]ed25519.PrivateKey{newKey(t), newKey(t)}
	good := greeting{version: protocolVersion, node: 0, site: [16]byte{1}, serial: "C1"}
	for name, c := range map[string]struct {
		greet  greeting
		pinned bool
		want   string
		reason Reason
	}{
		"version": {greeting{version: 9, node: 0, site: good.site, serial: "C1"}, true, "version 9", OtherVersion},
		"older":   {greeting{version: 0, node: 0, site: good.site, serial: "C1"}, true, "version 0", OtherVersion},
		"slot":    {greeting{version: protocolVersion, node: 1, site: good.site, serial: "C1"}, true, "is node b too", OwnSlot},
		"site":    {greeting{version: protocolVersion, node: 0, site: [16]byte{2}, serial: "C1"}, true, "belongs to site", OtherSite},
		"chassis": {greeting{version: protocolVersion, node: 0, serial: "C2"}, false, `chassis "C2"`, OtherChassis},
	} {
		t.Run(name, func(t *testing.T) {
			port := testport.New(t)
			cfg := Config{Node: 1, Serial: "C1", Key: keys[1], Port: port, Paths: pathsOf(1)[:1]}
			if c.pinned {
				cfg.Pin = Pin{Site: good.site, Key: keys[0].Public().(ed25519.PublicKey)}
			}
			b := startLink(t, cfg)
			client, err := pinned.Client(keys[0], keys[1].Public().(ed25519.PublicKey))
			if err != nil {
				t.Fatal(err)
			}
			var conn *tls.Conn
			until(t, "the listener", func() bool {
				conn, err = tls.Dial("tcp", net.JoinHostPort(pathsOf(1)[0].Local, fmt.Sprint(port)), client)
				return err == nil
			})
			defer conn.Close()
			f := frame{kind: kindGreeting, body: c.greet.append(nil)}
			if _, err := conn.Write(f.append(nil)); err != nil {
				t.Fatal(err)
			}
			until(t, "the refusal", func() bool {
				b.mu.Lock()
				defer b.mu.Unlock()
				return strings.Contains(strings.Join(b.wrong, "\n"), c.want)
			})
			if n := b.link.Refused(); n[c.reason] != 1 || len(n) != 1 {
				t.Errorf("counted %v", n)
			}
		})
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(frame{kind: kindData, session: 1, seq: 2, body: []byte("x")}.append(nil))
	f.Add(frame{kind: kindGreeting, body: greeting{version: 1, serial: "C1"}.append(nil)}.append(nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := readFrame(bytes.NewReader(b), MaxBody)
		if err != nil {
			return
		}
		again := fr.append(nil)
		if !bytes.Equal(again, b[:len(again)]) {
			t.Fatal("a frame that is read is not the frame that is written")
		}
		if g, err := parseGreeting(fr.body); err == nil && !bytes.Equal(g.append(nil), fr.body) {
			t.Fatal("a greeting that is read is not the one that is written")
		}
	})
}

// FuzzMachine feeds any frames to a machine in a session: it must neither panic nor grow.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add(bytes.Repeat([]byte{4, 0, 1}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		for acceptor := range 2 {
			m := &machine{cfg: testTiming, acpt: acceptor == 1, inc: 1, aliveUntil: time.Hour, fresh: func() uint64 { return 5 }}
			m.resume(Resume{Session: 7, PeerIncarnation: 1})
			c := &lane{}
			m.connected(c, frame{kind: kindGreeting, session: 7, inc: 1})
			for i := 0; i+8 < len(b); i += 9 {
				m.frame(c, frame{
					kind: kind(b[i] % 9), session: 7 * uint64(b[i+1]%2), inc: uint64(b[i+2] % 4), seq: uint64(b[i+3]),
					stamp: uint64(b[i+4]) << 58, ackInc: uint64(b[i+5] % 3), ack: uint64(b[i+6]), body: b[i+7 : i+8],
				})
				m.tick(time.Duration(b[i+8]) * time.Millisecond)
				if len(m.out) > 4096 || len(m.ended) > maxEnded || len(m.unacked) > maxUnacked {
					t.Fatal("a queue grew without a limit")
				}
				m.out, m.told = nil, nil
			}
		}
	})
}
