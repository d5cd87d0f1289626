package client_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/build/testport"
	"duet/witness/client"
	"duet/witness/enrolment"
	"duet/witness/register"
	"duet/witness/server"
	"duet/witness/store"
	"duet/witness/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a real server on loopback and the keys of one site.
type world struct {
	t          *testing.T
	dir        string
	identity   ed25519.PrivateKey
	a, b       ed25519.PrivateKey
	address    string
	server     *server.Server
	stopServer func()
}

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), identity: newKey(t), a: newKey(t), b: newKey(t), address: testport.Address(t, "127.0.0.1")}
	if err := os.MkdirAll(w.sites(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := enrolment.Write(w.sites(), enrolment.Site{Name: "site-1", KeyA: public(w.a), KeyB: public(w.b)}); err != nil {
		t.Fatal(err)
	}
	w.start()
	t.Cleanup(func() { w.stopServer() })
	return w
}

func (w *world) sites() string { return filepath.Join(w.dir, "sites") }

func (w *world) start() {
	w.t.Helper()
	registers, _, err := store.Open(store.Config{Path: filepath.Join(w.dir, "registers.db"), Machine: store.Machine{ID: "m"}})
	if err != nil {
		w.t.Fatal(err)
	}
	sites := enrolment.Open(w.sites(), func(err error) { w.t.Error(err) })
	w.server, err = server.New(server.Config{Identity: w.identity, Sites: sites, Store: registers, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", w.address)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(ctx, ln) }()
	w.stopServer = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			w.t.Error(err)
		}
		registers.Close()
	})
}

func (w *world) client(identity ed25519.PrivateKey, change ...func(*client.Config)) *client.Client {
	w.t.Helper()
	cfg := client.Config{Address: w.address, ServerKey: public(w.identity), Identity: identity}
	for _, f := range change {
		f(&cfg)
	}
	c, err := client.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

func nonce() uint64 {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err)
	}
	return binary.BigEndian.Uint64(b[:])
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func do(t *testing.T, c *client.Client, r wire.Request) wire.Reply {
	t.Helper()
	if r.Nonce == 0 {
		r.Nonce = nonce()
	}
	reply, err := c.Do(within(t), r)
	if err != nil {
		t.Fatalf("%s: %v", r.Op, err)
	}
	if reply.Nonce != r.Nonce || reply.Op != r.Op {
		t.Fatalf("%s %x answered by %s %x", r.Op, r.Nonce, reply.Op, reply.Nonce)
	}
	return reply
}

// The life of a site: founding, push, the vote, the loser's answer.
func TestVote(t *testing.T) {
	w := newWorld(t)
	a, b := w.client(w.a), w.client(w.b)
	site := register.ID{1}
	both := func(ep register.Epoch) register.Content { return register.Content{Epoch: ep, Set: register.Both} }

	made := do(t, a, wire.Request{Op: wire.Create, Nonce: 7, Site: site})
	if made.Result != wire.OK || made.RID == (register.ID{}) || made.Content != (register.Content{}) {
		t.Fatalf("CREATE: %+v", made)
	}
	again := do(t, a, wire.Request{Op: wire.Create, Nonce: 7, Site: site})
	if again.RID != made.RID {
		t.Fatalf("a repeated CREATE made %x, then %x", made.RID, again.RID)
	}
	rid := made.RID
	early := do(t, b, wire.Request{Op: wire.CAS, RID: rid, Expected: both(1), New: register.Content{Epoch: 2, Set: register.OnlyB}})
	if early.Result != wire.Failed {
		t.Fatalf("a vote before the first PUSH: %+v", early)
	}
	if push := do(t, a, wire.Request{Op: wire.Push, RID: rid, New: register.Content{Epoch: 1}}); push.Result != wire.OK || push.Content != both(1) {
		t.Fatalf("PUSH: %+v", push)
	}
	won := do(t, a, wire.Request{Op: wire.CAS, RID: rid, Expected: both(1), New: register.Content{Epoch: 2, Set: register.OnlyA}})
	if won.Result != wire.OK || won.RID != rid {
		t.Fatalf("CAS of a: %+v", won)
	}
	lost := do(t, b, wire.Request{Op: wire.CAS, RID: rid, Expected: both(1), New: register.Content{Epoch: 2, Set: register.OnlyB}})
	if lost.Result != wire.Failed || lost.Content != (register.Content{Epoch: 2, Set: register.OnlyA}) {
		t.Fatalf("CAS of b: %+v", lost)
	}
	if status := do(t, b, wire.Request{Op: wire.Status}); len(status.RIDs) != 1 || status.RIDs[0] != rid {
		t.Fatalf("STATUS: %+v", status)
	}
}

func TestCallerNamesOnlyItself(t *testing.T) {
	w := newWorld(t)
	a := w.client(w.a)
	rid := do(t, a, wire.Request{Op: wire.Create, Site: register.ID{1}, New: register.Content{Epoch: 1, Set: register.Both}}).RID
	for _, set := range []register.Set{register.OnlyB, register.Both, register.Nobody} {
		got := do(t, a, wire.Request{Op: wire.CAS, RID: rid, Expected: register.Content{Epoch: 1, Set: register.Both}, New: register.Content{Epoch: 2, Set: set}})
		if got.Result != wire.Refused {
			t.Errorf("a asked for set %d: %+v", set, got)
		}
	}
	if got := do(t, a, wire.Request{Op: wire.Create, Site: register.ID{1}, New: register.Content{Epoch: 3, Set: register.OnlyB}}); got.Result != wire.Refused {
		t.Errorf("a created for b: %+v", got)
	}
}

func TestOtherSitesRegisterIsUnknown(t *testing.T) {
	w := newWorld(t)
	strangerA, strangerB := newKey(t), newKey(t)
	rid := do(t, w.client(w.a), wire.Request{Op: wire.Create, Site: register.ID{1}}).RID
	if err := enrolment.Write(w.sites(), enrolment.Site{Name: "site-2", KeyA: public(strangerA), KeyB: public(strangerB)}); err != nil {
		t.Fatal(err)
	}
	s := w.client(strangerA)
	if got := do(t, s, wire.Request{Op: wire.Push, RID: rid, New: register.Content{Epoch: 9}}); got.Result != wire.UnknownRegister {
		t.Errorf("another site's register: %+v", got)
	}
	if got := do(t, s, wire.Request{Op: wire.Create, Site: register.ID{1}}); got.Result != wire.UnknownSite {
		t.Errorf("CREATE for another site: %+v", got)
	}
}

func TestUnknownKeyIsRefusedAndCounted(t *testing.T) {
	w := newWorld(t)
	_, err := w.client(newKey(t)).Do(within(t), wire.Request{Op: wire.Status, Nonce: nonce()})
	if !errors.Is(err, client.ErrKeyRefused) {
		t.Fatalf("unknown key: %v", err)
	}
	limit := within(t)
	for w.server.Status(t.Context()).Refusals["unknown key"] == 0 { // counted after the alert has left
		if limit.Err() != nil {
			t.Fatal("not counted")
		}
		runtime.Gosched()
	}
}

func TestWrongServerKey(t *testing.T) {
	w := newWorld(t)
	c := w.client(w.a, func(cfg *client.Config) { cfg.ServerKey = public(w.b) })
	if _, err := c.Do(within(t), wire.Request{Op: wire.Status, Nonce: nonce()}); !errors.Is(err, client.ErrServerKey) {
		t.Fatalf("wrong server key: %v", err)
	}
}

// A node that was enrolled after its first knock comes in, and one that was revoked is out, without any restart.
func TestEnrolAndRevokeWhileServing(t *testing.T) {
	w := newWorld(t)
	a2 := newKey(t)
	c := w.client(a2)
	ask := wire.Request{Op: wire.Status, Nonce: nonce()}
	if _, err := c.Do(within(t), ask); !errors.Is(err, client.ErrKeyRefused) {
		t.Fatalf("not enrolled yet: %v", err)
	}
	if err := enrolment.Write(w.sites(), enrolment.Site{Name: "site-2", KeyA: public(a2), KeyB: public(newKey(t))}); err != nil {
		t.Fatal(err)
	}
	do(t, c, ask)
	if err := os.Remove(filepath.Join(w.sites(), "site-2.json")); err != nil {
		t.Fatal(err)
	}
	if got := do(t, c, wire.Request{Op: wire.Status}); got.Result != wire.UnknownSite {
		t.Fatalf("revoked: %+v", got)
	}
}

// Registers outlive the server, and the client finds the new one by itself.
func TestServerRestart(t *testing.T) {
	w := newWorld(t)
	a := w.client(w.a)
	rid := do(t, a, wire.Request{Op: wire.Create, Site: register.ID{1}}).RID
	do(t, a, wire.Request{Op: wire.Push, RID: rid, New: register.Content{Epoch: 5}})
	w.stopServer()
	short, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	n := nonce()
	if _, err := a.Do(short, wire.Request{Op: wire.Status, Nonce: n}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("with no server: %v", err)
	}
	w.start()
	if got := do(t, a, wire.Request{Op: wire.Status, Nonce: n}); len(got.RIDs) != 1 || got.RIDs[0] != rid {
		t.Fatalf("after the restart: %+v", got)
	}
	got := do(t, a, wire.Request{Op: wire.Push, RID: rid, New: register.Content{Epoch: 4}})
	if got.Result != wire.Failed || got.Content.Epoch != 5 {
		t.Fatalf("an older epoch after the restart: %+v", got)
	}
}

func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	a := w.client(w.a)
	rid := do(t, a, wire.Request{Op: wire.Create, Site: register.ID{1}}).RID
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			r := wire.Request{Op: wire.Push, RID: rid, New: register.Content{Epoch: 1}, Nonce: nonce()}
			if got, err := a.Do(within(t), r); err != nil || got.Result != wire.OK || got.Nonce != r.Nonce {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	all.Wait()
}

// A visit tells an address that works from one that is refused, before anything depends on it.
func TestVisit(t *testing.T) {
	w := newWorld(t)
	made := do(t, w.client(w.a), wire.Request{Op: wire.Create, Nonce: 7, Site: register.ID{1}})
	cfg := client.Config{Address: w.address, ServerKey: public(w.identity), Identity: w.b}
	got, err := client.Visit(within(t), cfg)
	if err != nil || len(got.RIDs) != 1 || got.RIDs[0] != made.RID || got.Connect <= 0 || got.RoundTrip <= 0 {
		t.Errorf("%+v, %v", got, err)
	}
	cfg.Identity = newKey(t)
	if _, err := client.Visit(within(t), cfg); !errors.Is(err, client.ErrKeyRefused) {
		t.Errorf("a stranger: %v", err)
	}
	cfg.Identity, cfg.ServerKey = w.b, public(w.a)
	if _, err := client.Visit(within(t), cfg); !errors.Is(err, client.ErrServerKey) {
		t.Errorf("another witness: %v", err)
	}
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	cfg.Address = deaf.Addr().String()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Visit(short, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody answers: %v", err)
	}
}
