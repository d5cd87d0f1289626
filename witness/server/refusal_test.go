package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"duet/witness/enrolment"
	"duet/witness/pinned"
	"duet/witness/register"
	"duet/witness/store"
	"duet/witness/tlsrecord"
	"duet/witness/wire"
)

// counted waits until a reason was counted n times.
func (r *running) counted(reason Reason, n uint64) {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		got := r.server.Status(r.t.Context()).Refusals[reason.String()]
		if got == n {
			return
		}
		if got > n || time.Now().After(deadline) {
			r.t.Fatalf("%q was counted %d times, want %d", reason, got, n)
		}
	}
}

// says exchanges one request.
func says(t *testing.T, conn net.Conn, q wire.Request) wire.Reply {
	t.Helper()
	frame := q.Encode()
	if _, err := conn.Write(frame[:]); err != nil {
		t.Fatal(err)
	}
	var raw [wire.ReplySize]byte
	if _, err := io.ReadFull(conn, raw[:]); err != nil {
		t.Fatalf("%s: %v", q.Op, err)
	}
	reply, err := wire.DecodeReply(raw)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// tap keeps what its client sent, as an eavesdropper would.
type tap struct {
	net.Conn
	mu   sync.Mutex
	sent bytes.Buffer
}

func (c *tap) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.sent.Write(p)
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *tap) taken() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := bytes.Clone(c.sent.Bytes())
	c.sent.Reset()
	return taken
}

// tapped is a connection of the node with its bytes.
func (r *running) tapped() (*tls.Conn, *tap) {
	r.t.Helper()
	cfg, err := pinned.Client(r.node, public(r.key))
	if err != nil {
		r.t.Fatal(err)
	}
	raw := &tap{Conn: r.tcp()}
	return tls.Client(raw, cfg), raw
}

func founded(t *testing.T, conn net.Conn) register.ID {
	t.Helper()
	made := says(t, conn, wire.Request{Op: wire.Create, Nonce: 1, Site: register.ID{1}, New: register.Content{Epoch: 1, Set: register.Both}})
	if made.Result != wire.OK {
		t.Fatalf("%+v", made)
	}
	return made.RID
}

// Every way of saying something wrong is refused, counted by its reason, and shown.
func TestRefusals(t *testing.T) {
	onlyA := func(ep register.Epoch) register.Content {
		return register.Content{Epoch: ep, Set: register.OnlyA}
	}
	both := register.Content{Epoch: 1, Set: register.Both}
	// A connection is refused when it is closed without an answer.
	closes := func(what func(r *running) net.Conn) func(*testing.T, *running) {
		return func(t *testing.T, r *running) { gone(t, what(r)) }
	}
	frame := func(change func(frame []byte) []byte) func(*testing.T, *running) {
		return closes(func(r *running) net.Conn {
			conn := r.tls(r.node)
			raw := wire.Request{Op: wire.Status, Nonce: 1}.Encode()
			if _, err := conn.Write(change(raw[:])); err != nil {
				t.Fatal(err)
			}
			return conn
		})
	}
	answers := func(q func(rid register.ID) wire.Request, want wire.Result) func(*testing.T, *running) {
		return func(t *testing.T, r *running) {
			conn := r.tls(r.node)
			if got := says(t, conn, q(founded(t, conn))); got.Result != want {
				t.Errorf("%+v", got)
			}
		}
	}
	for _, test := range []struct {
		name   string
		do     func(*testing.T, *running)
		reason Reason
	}{
		{"wrong key", closes(func(r *running) net.Conn {
			conn := r.tls(newKey(r.t))
			_ = conn.Handshake()
			return conn
		}), UnknownKey},
		{"no TLS", closes(func(r *running) net.Conn {
			conn := r.tcp()
			_, _ = conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			return conn
		}), Handshake},
		{"old version", frame(func(f []byte) []byte { f[3] = '0'; return f }), OldVersion},
		{"another protocol", frame(func(f []byte) []byte { f[0] = 'X'; return f }), Malformed},
		{"half a request", frame(func(f []byte) []byte { return f[:40] }), Malformed},
		{"a field that STATUS has not", frame(func(f []byte) []byte { f[20] = 1; return f }), Malformed},
		{"oversized", frame(func(f []byte) []byte { return bytes.Repeat(f, 20) }), Oversized},
		{"a record that breaks off", func(t *testing.T, r *running) {
			conn, raw := r.tapped()
			founded(t, conn)
			if _, err := raw.Conn.Write([]byte{23, 3, 3, 0, 81, 1, 2, 3}); err != nil {
				t.Fatal(err)
			}
			raw.Close()
		}, Truncated},
		{"a record that was changed", func(t *testing.T, r *running) {
			conn, raw := r.tapped()
			founded(t, conn)
			if _, err := raw.Conn.Write(append([]byte{23, 3, 3, 0, 81}, make([]byte, 81)...)); err != nil {
				t.Fatal(err)
			}
			gone(t, raw.Conn)
		}, BadRecord},
		{"a replayed record", func(t *testing.T, r *running) {
			conn, raw := r.tapped()
			rid := founded(t, conn)
			raw.taken()
			cas := wire.Request{Op: wire.CAS, Nonce: 7, RID: rid, Expected: both, New: onlyA(2)}
			if got := says(t, conn, cas); got.Result != wire.OK {
				t.Fatalf("%+v", got)
			}
			if _, err := raw.Conn.Write(raw.taken()); err != nil {
				t.Fatal(err)
			}
			gone(t, raw.Conn)
		}, BadRecord},
		{"a replayed connection", func(t *testing.T, r *running) {
			conn, raw := r.tapped()
			founded(t, conn)
			again := r.tcp()
			if _, err := again.Write(raw.taken()); err != nil {
				t.Fatal(err)
			}
			gone(t, again)
		}, Handshake},
		{"wrong site", func(t *testing.T, r *running) {
			conn := r.tls(r.node)
			rid := founded(t, conn)
			says(t, conn, wire.Request{Op: wire.Push, Nonce: 2, RID: rid, New: register.Content{Epoch: 2}})
			if got := says(t, conn, wire.Request{Op: wire.Create, Nonce: 3, Site: register.ID{2}}); got.Result != wire.UnknownSite {
				t.Errorf("%+v", got)
			}
		}, WrongSite},
		{"wrong node", answers(func(rid register.ID) wire.Request {
			return wire.Request{Op: wire.CAS, Nonce: 2, RID: rid, Expected: both, New: register.Content{Epoch: 2, Set: register.OnlyB}}
		}, wire.Refused), WrongNode},
		{"unknown register", answers(func(register.ID) wire.Request {
			return wire.Request{Op: wire.Push, Nonce: 2, RID: register.ID{9}, New: register.Content{Epoch: 2}}
		}, wire.UnknownRegister), UnknownRegister},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := start(t, Limits{})
			r.t = t
			test.do(t, r)
			r.counted(test.reason, 1)
			if refusals := r.server.Status(t.Context()).Refusals; len(refusals) != 1 {
				t.Errorf("refused for %v", refusals)
			}
			if err := ask(r.tls(r.node)); err != nil {
				t.Errorf("the next connection: %v", err)
			}
		})
	}
}

// A CAS of before, sent again by whoever holds the key (a node that was restored, a late duplicate): the register has
// moved on, and the answer says where it is. It grants nothing and changes nothing.
func TestReplayedCAS(t *testing.T) {
	r := start(t, Limits{})
	conn := r.tls(r.node)
	rid := founded(t, conn)
	old := wire.Request{Op: wire.CAS, Nonce: 7, RID: rid, Expected: register.Content{Epoch: 1, Set: register.Both}, New: register.Content{Epoch: 2, Set: register.OnlyA}}
	if got := says(t, conn, old); got.Result != wire.OK {
		t.Fatalf("%+v", got)
	}
	if got := says(t, conn, old); got.Result != wire.OK || got.Sequence != 2 {
		t.Errorf("a repeat of the last one: %+v", got)
	}
	says(t, conn, wire.Request{Op: wire.Push, Nonce: 8, RID: rid, New: register.Content{Epoch: 4}})
	got := says(t, conn, old)
	if got.Result != wire.Failed || got.Content != (register.Content{Epoch: 4, Set: register.Both}) || got.Sequence != 3 {
		t.Errorf("a CAS of before: %+v", got)
	}
	if status := r.server.Status(t.Context()); status.Results["failed"] != 1 || status.Requests["CAS"] != 3 {
		t.Errorf("%+v", status)
	}
}

// A key that is revoked stops at its next word.
func TestRevokedIsCounted(t *testing.T) {
	r := start(t, Limits{})
	conn := r.tls(r.node)
	rid := founded(t, conn)
	if err := enrolment.Write(r.dir, enrolment.Site{Name: "s", KeyA: public(newKey(t)), KeyB: public(newKey(t))}); err != nil {
		t.Fatal(err)
	}
	if got := says(t, conn, wire.Request{Op: wire.Push, Nonce: 2, RID: rid, New: register.Content{Epoch: 2}}); got.Result != wire.UnknownSite {
		t.Errorf("%+v", got)
	}
	gone(t, conn)
	r.counted(Revoked, 1)
}

// Who asks and never reads is closed, and keeps nobody else waiting.
func TestSlowReader(t *testing.T) {
	r := start(t, Limits{})
	conn := r.tls(r.node)
	if err := ask(conn); err != nil {
		t.Fatal(err)
	}
	frame := wire.Request{Op: wire.Status, Nonce: 1}.Encode()
	batch := bytes.Repeat(frame[:], tlsrecord.PlaintextMax/wire.RequestSize)
	for { // until the kernel's buffers of both sides are full of answers
		if _, err := conn.Write(batch); err != nil {
			break
		}
	}
	r.counted(SlowReader, 1)
	if err := ask(r.tls(r.node)); err != nil {
		t.Error(err)
	}
}

// A record that comes byte by byte is answered like any other, and so are several requests in one.
func TestPieces(t *testing.T) {
	r := start(t, Limits{})
	conn, raw := r.tapped()
	if err := ask(conn); err != nil {
		t.Fatal(err)
	}
	frame := wire.Request{Op: wire.Status, Nonce: 3}.Encode()
	hold := &held{Conn: raw.Conn}
	raw.Conn = hold
	if _, err := conn.Write(append(frame[:], frame[:]...)); err != nil {
		t.Fatal(err)
	}
	for _, b := range hold.bytes {
		if _, err := hold.Conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	for range 2 {
		var reply [wire.ReplySize]byte
		if _, err := io.ReadFull(conn, reply[:]); err != nil {
			t.Fatal(err)
		}
	}
}

// held keeps what it should send.
type held struct {
	net.Conn
	bytes []byte
}

func (c *held) Write(p []byte) (int, error) {
	c.bytes = append(c.bytes, p...)
	return len(p), nil
}

// silentStore is a store that cannot be asked.
type silentStore struct{ Store }

func (silentStore) List(ctx context.Context, _ register.Owner) ([]register.ID, error) {
	<-ctx.Done()
	return nil, register.ErrNoAnswer
}

// A store that cannot be asked is no answer: the connection closes, the server lives, and says why.
func TestNoAnswer(t *testing.T) {
	dir, node, key := t.TempDir(), newKey(t), newKey(t)
	if err := enrolment.Write(dir, enrolment.Site{Name: "s", KeyA: public(node), KeyB: public(newKey(t))}); err != nil {
		t.Fatal(err)
	}
	registers, _, err := store.Open(store.Config{Path: filepath.Join(dir, "registers.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer registers.Close()
	r := serveOn(t, dir, key, silentStore{registers}, Limits{Store: 20 * time.Millisecond})
	r.node = node
	for n := range uint64(2) {
		conn := r.tls(node)
		if err := ask(conn); err == nil {
			t.Fatal("an answer from nowhere")
		}
		r.counted(NoAnswer, n+1)
	}
}

// Few of many refusals are logged, and the next line says how many were not.
func TestRefusalsAreLoggedSparingly(t *testing.T) {
	var text bytes.Buffer
	f := refusals{log: slog.New(slog.NewTextHandler(&text, nil))}
	for range 100 {
		f.note(UnknownKey, "from", "somewhere")
	}
	f.note(Malformed)
	if lines := strings.Count(text.String(), "unknown key"); lines != logPerWindow {
		t.Errorf("%d lines", lines)
	}
	f.window[UnknownKey] = time.Now().Add(-2 * logWindow)
	f.note(UnknownKey)
	if !strings.Contains(text.String(), "unlogged_before=95") || strings.Count(text.String(), "malformed") != 1 {
		t.Error(text.String())
	}
	if got := f.byReason(); got["unknown key"] != 101 || got["malformed"] != 1 || len(got) != 2 {
		t.Errorf("%v", got)
	}
}

// Whatever follows a handshake, authentic or not, is answered or refused, never a panic and never a change.
func FuzzConversation(f *testing.F) {
	dir := f.TempDir()
	_, node, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	if err := enrolment.Write(dir, enrolment.Site{Name: "s", KeyA: public(node), KeyB: other}); err != nil {
		f.Fatal(err)
	}
	registers, _, err := store.Open(store.Config{Path: filepath.Join(dir, "registers.db")})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { registers.Close() })
	s, err := New(Config{Identity: node, Sites: enrolment.Open(dir, func(error) {}), Store: registers})
	if err != nil {
		f.Fatal(err)
	}
	cas := wire.Request{Op: wire.CAS, Nonce: 1, RID: register.ID{1}, New: register.Content{Epoch: 2, Set: register.OnlyB}}.Encode()
	status := wire.Request{Op: wire.Status}.Encode()
	f.Add(status[:])
	f.Add(append(cas[:], status[:]...))
	f.Add([]byte("dwq0"))
	f.Fuzz(func(t *testing.T, content []byte) {
		p := &parked{fd: -1, key: publicKey(public(node))}
		if _, err := s.conversation(context.Background(), p, content); err != nil {
			t.Errorf("%x ends the server: %v", content, err)
		}
		if _, _, err := s.records(context.Background(), p, content); err != nil {
			t.Errorf("%x as a record ends the server: %v", content, err)
		}
	})
}
