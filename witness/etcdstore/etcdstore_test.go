package etcdstore

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"duet/witness/etcdstore/etcdtest"
	"duet/witness/register"
	"duet/witness/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal keeps what a store said.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// witness is one process's place: its memory and what it logged.
type witness struct {
	etcd   []*etcdtest.Server // members of one cluster
	memory string
	said   journal
}

func newWitness(t *testing.T, etcd ...*etcdtest.Server) *witness {
	return &witness{etcd: etcd, memory: filepath.Join(t.TempDir(), "etcd.json")}
}

func (w *witness) open(t *testing.T, fresh bool) *Store {
	t.Helper()
	var endpoints []string
	for _, member := range w.etcd {
		endpoints = append(endpoints, member.Endpoint)
	}
	s, err := Open(t.Context(), Config{
		Endpoints: endpoints, Memory: w.memory, Machine: [32]byte{1}, NewIdentity: fresh,
		Log: slog.New(slog.NewTextHandler(&w.said, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func push(t *testing.T, s *Store, rid register.ID, ep register.Epoch) error {
	t.Helper()
	_, _, err := s.Push(t.Context(), storetest.Owner, rid, ep)
	return err
}

func TestConformance(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	storetest.Run(t, func(t *testing.T) storetest.Medium {
		c := etcd.Client(t) // a new medium: what the test before left is removed
		defer c.Close()
		if _, err := c.Delete(t.Context(), prefix, clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		w := newWitness(t, etcd)
		open := func(t *testing.T, fresh bool) storetest.Opened {
			s := w.open(t, fresh)
			return storetest.Opened{Store: s, Close: func() { s.Close() }}
		}
		return storetest.Medium{
			Open:        func(t *testing.T) storetest.Opened { return open(t, false) },
			NewIdentity: func(t *testing.T) storetest.Opened { return open(t, true) },
		}
	})
}

// An etcd that hangs or is down is no answer, never "unknown"; when it is back, everything is as it was.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	s := newWitness(t, etcd).open(t, false)
	r := storetest.Create(t, s, storetest.Owner, storetest.Site, 1, storetest.Both(1))
	if err := etcd.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := s.CAS(short, storetest.Owner, r.RID, storetest.Both(1), storetest.OnlyA(2)); !errors.Is(err, register.ErrNoAnswer) {
		t.Errorf("etcd hangs: %v", err)
	}
	if s.Health() == nil {
		t.Error("healthy")
	}
	etcd.Stop()
	short, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.List(short, storetest.Owner); !errors.Is(err, register.ErrNoAnswer) || errors.Is(err, register.ErrUnknownRegister) {
		t.Errorf("etcd is down: %v", err)
	}
	etcd.Run(t)
	if after, done, err := s.CAS(t.Context(), storetest.Owner, r.RID, storetest.Both(1), storetest.OnlyA(2)); err != nil || !done || after.Content != storetest.OnlyA(2) {
		t.Errorf("the repeat: %+v %v %v", after, done, err)
	}
	if err := s.Health(); err != nil {
		t.Error(err)
	}
}

// A witness that starts before its etcd serves when etcd does.
func TestEtcdComesLater(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	etcd.Stop()
	s := newWitness(t, etcd).open(t, false)
	made := make(chan error, 1)
	go func() {
		for {
			_, err := s.Create(context.Background(), storetest.Owner, storetest.Site, 1, storetest.Both(1))
			if !errors.Is(err, register.ErrNoAnswer) {
				made <- err
				return
			}
		}
	}()
	etcd.Run(t)
	if err := <-made; err != nil {
		t.Error(err)
	}
}

// However long etcd was away, the next try is near: at the pace of gRPC's defaults these tries would take three quarters
// of a minute, and one more of them two minutes.
func TestRedials(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tried := make(chan struct{})
	go func() { // an etcd that is not there yet: whoever connects is sent away
		defer close(tried)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conn.Close()
			tried <- struct{}{}
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		for range tried { // until its goroutine has ended
		}
	})
	newWitness(t, &etcdtest.Server{Endpoint: ln.Addr().String()}).open(t, false)
	enough := time.After(20 * time.Second)
	for n := range 8 {
		select {
		case <-tried:
		case <-enough:
			t.Fatalf("only %d tries", n)
		}
	}
}

// A restored backup takes acknowledged changes back. The process that runs on notices by the revision.
func TestRestoredUnderARunningWitness(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	w := newWitness(t, etcd)
	s := w.open(t, false)
	r := storetest.Create(t, s, storetest.Owner, storetest.Site, 1, storetest.Both(1))
	etcd.Stop()
	saved := etcd.Save(t)
	etcd.Run(t)
	if err := push(t, s, r.RID, 7); err != nil {
		t.Fatal(err)
	}
	etcd.Stop()
	etcd.Restore(t, saved)
	etcd.Run(t)
	if err := push(t, s, r.RID, 2); !errors.Is(err, register.ErrUnknownRegister) {
		t.Errorf("a register that was taken back: %v", err)
	}
	if said := w.said.String(); !strings.Contains(said, "went back from revision") {
		t.Errorf("it said %q", said)
	}
	storetest.Create(t, s, storetest.Owner, storetest.Site, 2, storetest.Both(7))
}

// The same for a process that starts after the restore, and for one whose backup is from before its last start, with a
// revision that was raised again meanwhile.
func TestRestoredBetweenTwoStarts(t *testing.T) {
	t.Parallel()
	for _, raised := range []bool{false, true} {
		etcd := etcdtest.Start(t)
		w := newWitness(t, etcd)
		s := w.open(t, false)
		r := storetest.Create(t, s, storetest.Owner, storetest.Site, 1, storetest.Both(1))
		s.Close()
		etcd.Stop()
		saved := etcd.Save(t)
		etcd.Run(t)
		s = w.open(t, false)
		if err := push(t, s, r.RID, 7); err != nil {
			t.Fatal(err)
		}
		s.Close()
		etcd.Stop()
		etcd.Restore(t, saved)
		etcd.Run(t)
		want := "went back from revision"
		if raised {
			want = "last start of this witness"
			c := etcd.Client(t)
			for range 20 {
				if _, err := c.Put(t.Context(), "somebody", "else"); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
		}
		s = w.open(t, false)
		if err := push(t, s, r.RID, 2); !errors.Is(err, register.ErrUnknownRegister) {
			t.Errorf("raised %v: a register that was taken back: %v", raised, err)
		}
		if said := w.said.String(); !strings.Contains(said, want) {
			t.Errorf("raised %v: it said %q", raised, said)
		}
	}
}

// One process ends the generation; the other one, which runs, follows at its next call.
func TestNewIdentityReachesAll(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	first, second := newWitness(t, etcd), newWitness(t, etcd)
	s1, s2 := first.open(t, false), second.open(t, false)
	r := storetest.Create(t, s1, storetest.Owner, storetest.Site, 1, storetest.Both(1))
	if err := push(t, s2, r.RID, 2); err != nil {
		t.Fatal(err)
	}
	s1.Close()
	s1 = first.open(t, true)
	if err := push(t, s2, r.RID, 3); !errors.Is(err, register.ErrUnknownRegister) {
		t.Errorf("the other process serves what was set aside: %v", err)
	}
	made := storetest.Create(t, s2, storetest.Owner, storetest.Site, 2, storetest.Both(3))
	if err := push(t, s1, made.RID, 4); err != nil {
		t.Errorf("both serve the new generation: %v", err)
	}
}

// Starting and stopping, alone or beside others, is no reason for doubt.
func TestStartsAreNoRestore(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	first, second := newWitness(t, etcd), newWitness(t, etcd)
	s1 := first.open(t, false)
	r := storetest.Create(t, s1, storetest.Owner, storetest.Site, 1, storetest.Both(1))
	for ep := register.Epoch(2); ep < 5; ep++ {
		s2 := second.open(t, false)
		if err := push(t, s2, r.RID, ep); err != nil {
			t.Fatal(err)
		}
		s2.Close()
		s1.Close()
		s1 = first.open(t, false)
		if err := push(t, s1, r.RID, ep); err != nil {
			t.Fatal(err)
		}
		etcd.Stop()
		etcd.Run(t)
	}
	// killed between the two notes of a start: the memory names both markers
	s1.Close()
	m, err := readMemory(first.memory, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	m.Start, m.Pending = "of before", m.Start
	if err := m.write(first.memory); err != nil {
		t.Fatal(err)
	}
	if err := push(t, first.open(t, false), r.RID, 9); err != nil {
		t.Error(err)
	}
	if said := first.said.String() + second.said.String(); strings.Contains(said, "set aside") {
		t.Error(said)
	}
}

// A marker whose answer got lost may arrive when the next start has left its own, or between two looks of it. Neither is
// a restore.
func TestLateMarker(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	w := newWitness(t, etcd)
	s := w.open(t, false)
	r := storetest.Create(t, s, storetest.Owner, storetest.Site, 1, storetest.Both(1))
	state, err := s.look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := s.bound.Load()
	s.Close()
	late, err := readMemory(w.memory, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	late.Pending = "late"
	if err := late.write(w.memory); err != nil {
		t.Fatal(err)
	}
	s = w.open(t, false)
	if err := push(t, s, r.RID, 2); err != nil {
		t.Fatal(err)
	}
	if resp, err := s.mark(t.Context(), b, late, state.startAt); err != nil || resp.Succeeded {
		t.Errorf("a marker that came after its successor: %+v, %v", resp, err)
	}
	s.Close()
	s = w.open(t, false)
	if err := push(t, s, r.RID, 3); err != nil {
		t.Errorf("the start after it: %v", err)
	}

	s.binding <- struct{}{} // nobody else binds now
	defer func() { <-s.binding }()
	if state, err = s.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.memory.Pending = "lost"
	if resp, err := s.mark(t.Context(), s.bound.Load(), s.memory, state.startAt); err != nil || !resp.Succeeded {
		t.Fatal(resp, err)
	}
	if _, err := s.take(t.Context(), state); !errors.Is(err, errStaleHeader) {
		t.Errorf("the marker of before arrived between look and mark: %v", err)
	}
	if state, err = s.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if why := s.memory.doubt(state, s.seen.Load()); why != "" {
		t.Errorf("it doubts: %s", why)
	}
	if said := w.said.String(); strings.Contains(said, "set aside") {
		t.Error(said)
	}
}

// What etcd holds may come from another cluster, and the memory from another machine.
func TestCopies(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	w := newWitness(t, etcd)
	s := w.open(t, false)
	r := storetest.Create(t, s, storetest.Owner, storetest.Site, 1, storetest.Both(1))
	s.Close()
	if m, err := readMemory(w.memory, [32]byte{2}); err != nil || m.Start != "" {
		t.Errorf("a memory of another machine is believed: %+v %v", m, err)
	}
	c := etcd.Client(t)
	defer c.Close()
	resp, err := c.Get(t.Context(), headerKey)
	if err != nil {
		t.Fatal(err)
	}
	value := string(resp.Kvs[0].Value)
	origin := clusterText(resp.Header.ClusterId)
	if _, err := c.Put(t.Context(), headerKey, strings.Replace(value, origin, clusterText(resp.Header.ClusterId+1), 1)); err != nil {
		t.Fatal(err)
	}
	s = w.open(t, false)
	if err := push(t, s, r.RID, 2); !errors.Is(err, register.ErrUnknownRegister) {
		t.Errorf("registers of another cluster: %v", err)
	}
	s.Close()
	if _, err := c.Put(t.Context(), headerKey, `{"format":"of tomorrow"}`); err != nil {
		t.Fatal(err)
	}
	s = w.open(t, false)
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.List(short, storetest.Owner); !errors.Is(err, register.ErrNoAnswer) {
		t.Errorf("a header of another program: %v", err)
	}
	if health := s.Health(); health == nil || !strings.Contains(health.Error(), "of tomorrow") {
		t.Errorf("health: %v", health)
	}
}

func TestCorruptSite(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	s := newWitness(t, etcd).open(t, false)
	r := storetest.Create(t, s, storetest.Owner, storetest.Site, 1, storetest.Both(1))
	c := etcd.Client(t)
	defer c.Close()
	key := s.bound.Load().key("site", storetest.Owner.Name)
	resp, err := c.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	value := resp.Kvs[0].Value
	for _, damage := range []int{register.SiteRecordSize + 47, 5} {
		damaged := append([]byte(nil), value...)
		damaged[damage] ^= 1
		if _, err := c.Put(t.Context(), key, string(damaged)); err != nil {
			t.Fatal(err)
		}
		if err := push(t, s, r.RID, 2); !errors.Is(err, register.ErrCorrupt) {
			t.Errorf("byte %d: %v", damage, err)
		}
	}
}

func TestMemoryFile(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	w := newWitness(t, etcd)
	w.open(t, false)
	cfg := Config{Endpoints: []string{etcd.Endpoint}, Memory: w.memory}
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("two processes, one memory: %v", err)
	}
	cfg.Memory = filepath.Join(t.TempDir(), "etcd.json")
	if err := os.WriteFile(cfg.Memory, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "--new-identity") {
		t.Errorf("a damaged memory: %v", err)
	}
}
