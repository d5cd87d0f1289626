package server

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/witness/enrolment"
	"duet/witness/pinned"
	"duet/witness/register"
	"duet/witness/store"
	"duet/witness/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

type running struct {
	t       *testing.T
	server  *Server
	key     ed25519.PrivateKey
	node    ed25519.PrivateKey
	dir     string // enrolments
	address string
}

func start(t *testing.T, limits Limits) *running {
	t.Helper()
	dir, node := t.TempDir(), newKey(t)
	if err := enrolment.Write(dir, enrolment.Site{Name: "s", KeyA: public(node), KeyB: public(newKey(t))}); err != nil {
		t.Fatal(err)
	}
	registers, _, err := store.Open(store.Config{Path: filepath.Join(dir, "registers.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { registers.Close() })
	r := serveOn(t, dir, newKey(t), registers, limits)
	r.node = node
	return r
}

// serveOn serves the enrolments in dir from registers until the test ends.
func serveOn(t *testing.T, dir string, key ed25519.PrivateKey, registers Store, limits Limits) *running {
	t.Helper()
	r := &running{t: t, key: key, dir: dir}
	var err error
	r.server, err = New(Config{Identity: key, Sites: enrolment.Open(dir, func(err error) { t.Error(err) }), Store: registers, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *running) tcp() net.Conn {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	return conn
}

func (r *running) tls(identity ed25519.PrivateKey) *tls.Conn {
	r.t.Helper()
	cfg, err := pinned.Client(identity, public(r.key))
	if err != nil {
		r.t.Fatal(err)
	}
	return tls.Client(r.tcp(), cfg)
}

// ask sends a STATUS and says whether it was answered.
func ask(conn net.Conn) error {
	frame := wire.Request{Op: wire.Status, Nonce: 1}.Encode()
	if _, err := conn.Write(frame[:]); err != nil {
		return err
	}
	var reply [wire.ReplySize]byte
	_, err := io.ReadFull(conn, reply[:])
	return err
}

// gone waits until the other side has closed.
func gone(t *testing.T, conn net.Conn) {
	t.Helper()
	for buf := make([]byte, 256); ; {
		_, err := conn.Read(buf)
		if err == nil {
			continue
		}
		var timeout net.Error
		if ok := asTimeout(err, &timeout); ok {
			t.Error("not closed within 10 s")
		}
		return
	}
}

func asTimeout(err error, as *net.Error) bool {
	return errors.As(err, as) && (*as).Timeout()
}

func TestMalformedClosesTheConnection(t *testing.T) {
	r := start(t, Limits{})
	conn := r.tls(r.node)
	if err := ask(conn); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(make([]byte, wire.RequestSize)); err != nil {
		t.Fatal(err)
	}
	gone(t, conn)
	if got := r.server.Status(t.Context()); got.Refusals["malformed"] != 1 || got.Requests["STATUS"] != 1 {
		t.Errorf("%+v", got)
	}
	if err := ask(r.tls(r.node)); err != nil {
		t.Errorf("the next connection: %v", err)
	}
}

func TestSilentStrangersAreClosed(t *testing.T) {
	r := start(t, Limits{Handshake: 50 * time.Millisecond})
	gone(t, r.tcp())
	garbage := r.tcp()
	if _, err := garbage.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	gone(t, garbage)
}

func TestIdlersAreClosed(t *testing.T) {
	r := start(t, Limits{Idle: 50 * time.Millisecond})
	conn := r.tls(r.node)
	if err := ask(conn); err != nil {
		t.Fatal(err)
	}
	gone(t, conn)
}

// A node that redials more than it may loses its oldest connection, not the newest: that is the one it wants.
func TestOldestConnectionOfANodeGoes(t *testing.T) {
	r := start(t, Limits{PerKey: 2})
	var conns []*tls.Conn
	for range 3 {
		conn := r.tls(r.node)
		if err := ask(conn); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	gone(t, conns[0])
	for _, conn := range conns[1:] {
		if err := ask(conn); err != nil {
			t.Error(err)
		}
	}
}

// Strangers that fill all handshakes keep nobody out, whether they say nothing or half of something: the one that was
// silent for longest goes, and a node that is in stays in.
func TestStrangersKeepNobodyOut(t *testing.T) {
	r := start(t, Limits{Handshakes: 4, Handshake: time.Minute, HandshakeWait: 50 * time.Millisecond})
	in := r.tls(r.node)
	if err := ask(in); err != nil {
		t.Fatal(err)
	}
	var strangers []net.Conn
	for n := range 4 {
		stranger := r.tcp()
		if n >= 2 {
			if _, err := stranger.Write([]byte{22, 3, 1, 2, 0, 1}); err != nil { // a ClientHello begins
				t.Fatal(err)
			}
		}
		strangers = append(strangers, stranger)
	}
	for range 3 {
		if err := ask(r.tls(r.node)); err != nil {
			t.Errorf("a node that dials: %v", err)
		}
	}
	gone(t, strangers[0])
	r.counted(Overload, 1)
	if err := ask(in); err != nil {
		t.Error(err)
	}
}

// Who talks keeps his place: whoever comes waits a little, and is turned away.
func TestTalkersKeepTheirPlaces(t *testing.T) {
	places := newHandshakes(Limits{Handshakes: 1, HandshakeWait: time.Hour})
	here, there := net.Pipe()
	defer there.Close()
	first := places.enter(t.Context(), here)
	if first == nil {
		t.Fatal("no place")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if places.enter(ended, here) != nil || first.dropped.Load() {
		t.Error("one that was heard an instant ago lost its place")
	}
	second := make(chan *handshake)
	go func() { second <- places.enter(t.Context(), here) }()
	places.leave(first)
	if <-second == nil {
		t.Error("the place that became free was not given")
	}
	if places = newHandshakes(Limits{Handshakes: 1}); places.enter(t.Context(), here) == nil || places.enter(t.Context(), here) == nil {
		t.Error("one that was silent for longer than patience kept its place")
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	r := start(t, Limits{})
	cfg, err := pinned.Client(r.node, public(r.key))
	if err != nil {
		t.Fatal(err)
	}
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if err := ask(tls.Client(r.tcp(), cfg)); err == nil {
		t.Error("TLS 1.2 is spoken")
	}
}

// A store that failed answers nobody: the server ends, and says why.
func TestDeadStoreEndsTheServer(t *testing.T) {
	dir := t.TempDir()
	node, key := newKey(t), newKey(t)
	if err := enrolment.Write(dir, enrolment.Site{Name: "s", KeyA: public(node), KeyB: public(newKey(t))}); err != nil {
		t.Fatal(err)
	}
	registers, _, err := store.Open(store.Config{Path: filepath.Join(dir, "registers.db")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Identity: key, Sites: enrolment.Open(dir, func(error) {}), Store: registers})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), ln) }()
	if err := registers.Close(); err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, key: key, address: ln.Addr().String()}
	if err := ask(r.tls(node)); err == nil {
		t.Error("a closed store answers")
	}
	if err := <-served; err == nil {
		t.Error("the server ended without a reason")
	}
}

func TestMayCreate(t *testing.T) {
	for _, test := range []struct {
		content register.Content
		want    bool
	}{
		{register.Content{}, true},
		{register.Content{Epoch: 1}, false},
		{register.Content{Epoch: 5, Set: register.Both}, true},
		{register.Content{Epoch: 5, Set: register.OnlyA}, true},
		{register.Content{Epoch: 5, Set: register.OnlyB}, false},
	} {
		if got := mayCreate(test.content, register.OnlyA); got != test.want {
			t.Errorf("a creates %+v: %v", test.content, got)
		}
	}
}

// Many nodes at once: each gets its own answers.
func TestManyConnections(t *testing.T) {
	r := start(t, Limits{PerKey: 50})
	var all sync.WaitGroup
	for range 20 {
		conn := r.tls(r.node)
		all.Go(func() {
			for range 5 {
				if err := ask(conn); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}
