package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a daemon that remembers.
type recorder struct {
	mu       sync.Mutex
	calls    []string
	standing []Event
	block    chan struct{}
	drained  chan []string
}

func (r *recorder) note(s string) { r.mu.Lock(); r.calls = append(r.calls, s); r.mu.Unlock() }

func (r *recorder) Configure(c Config) error { r.note("configure " + c.Site); return nil }

func (r *recorder) Grant(g Grant) error {
	if r.block != nil {
		<-r.block
	}
	if g.Sequence == 0 {
		return errors.New("grant 0 is older than 1")
	}
	r.note(fmt.Sprint("grant ", g.Sequence))
	return nil
}

func (r *recorder) Revoke() error       { r.note("revoke"); return nil }
func (r *recorder) Copy(s uint64) error { r.note(fmt.Sprint("copy ", s)); return nil }
func (r *recorder) Drain(vs []string) (<-chan []string, error) {
	r.note("drain " + strings.Join(vs, "+"))
	if slices.Contains(vs, "unknown") {
		return nil, errors.New("unknown volume unknown")
	}
	return r.drained, nil
}

func (r *recorder) Readmit(volume string) error {
	if volume == "works" {
		return errors.New("the leg works")
	}
	return nil
}

func (r *recorder) Scrub(volume string) error { return r.Readmit(volume) }

func (r *recorder) Status() Status {
	return Status{LinkPath: "mirror0", Volumes: []VolumeStatus{{Name: "v"}}}
}
func (r *recorder) Standing() []Event { return r.standing }

func serve(t *testing.T, r *recorder) (*Server, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mirrord.sock")
	s, err := Listen(path, "instance-1", r, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, path
}

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCalls(t *testing.T) {
	r := &recorder{}
	_, path := serve(t, r)
	c := dial(t, path)
	ctx := context.Background()
	if c.Instance() != "instance-1" {
		t.Errorf("instance %q", c.Instance())
	}
	for _, err := range []error{
		c.Configure(ctx, Config{Site: "x"}), c.Grant(ctx, Grant{Sequence: 3}), c.Copy(ctx, 9), c.Revoke(ctx),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := c.Grant(ctx, Grant{}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "older") {
		t.Errorf("refusal: %v", err)
	}
	st, err := c.Status(ctx)
	if err != nil || st.Instance != "instance-1" || st.LinkPath != "mirror0" || len(st.Volumes) != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	if got := strings.Join(r.calls, ", "); got != "configure x, grant 3, copy 9, revoke" {
		t.Error(got)
	}
}

func TestOnlyRootMayConnect(t *testing.T) {
	_, path := serve(t, &recorder{})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if unix.Geteuid() != 0 {
		t.Skip("not root")
	}
	if err := onlyRoot(&net.TCPConn{}); err == nil {
		t.Error("a TCP connection has no credentials")
	}
}

// A new client learns what holds, then gets events in order.
func TestStandingAndEvents(t *testing.T) {
	r := &recorder{standing: []Event{{Link: &LinkEvent{Session: 5, Up: true}}}}
	s, path := serve(t, r)
	c := dial(t, path)
	if e := <-c.Events(); e.Link == nil || !e.Link.Up || e.Link.Session != 5 {
		t.Fatalf("%+v", e)
	}
	for i := range uint64(100) {
		s.Emit(Event{CopyDone: &CopyDone{Session: i, Digest: [32]byte{byte(i)}}})
	}
	for i := range uint64(100) {
		if e := <-c.Events(); e.CopyDone == nil || e.CopyDone.Session != i || e.CopyDone.Digest[0] != byte(i) {
			t.Fatalf("%d: %+v", i, e)
		}
	}
}

func TestSecondClientTakesOver(t *testing.T) {
	r := &recorder{}
	_, path := serve(t, r)
	first, second := dial(t, path), dial(t, path)
	<-first.Done()
	if err := first.Revoke(context.Background()); err == nil {
		t.Error("the first client still speaks")
	}
	if err := second.Revoke(context.Background()); err != nil {
		t.Error(err)
	}
	if _, open := <-first.Events(); open {
		t.Error("events of a dead connection")
	}
}

func TestCallsAreBounded(t *testing.T) {
	r := &recorder{block: make(chan struct{})}
	_, path := serve(t, r)
	c := dial(t, path)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := c.Grant(ctx, Grant{Sequence: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	close(r.block)
	if err := c.Revoke(context.Background()); err != nil {
		t.Errorf("after a late answer: %v", err)
	}
}

func TestAClientThatDoesNotReadIsDropped(t *testing.T) {
	r := &recorder{}
	s, path := serve(t, r)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := readMessage(newReader(conn)); err != nil {
		t.Fatal(err)
	}
	gone := func() bool {
		s.Emit(Event{Fault: &Fault{Why: strings.Repeat("x", 1000)}})
		s.mu.Lock()
		defer s.mu.Unlock()
		select {
		case <-s.current.end:
			return true
		default:
			return false
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for !gone() {
		if time.Now().After(deadline) {
			t.Fatal("never dropped")
		}
	}
}

func TestRubbishEndsTheConnection(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "hello\n", "too long": strings.Repeat("x", maxMessageBytes+10), "empty": "\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{}
			_, path := serve(t, r)
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go io.WriteString(conn, text)
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("not closed: %v", err)
			}
			if len(r.calls) != 0 {
				t.Errorf("%v", r.calls)
			}
		})
	}
}

func TestOrdersForOneVolume(t *testing.T) {
	_, path := serve(t, &recorder{})
	c := dial(t, path)
	ctx := t.Context()
	for name, order := range map[string]func(context.Context, string) error{"readmit": c.Readmit, "scrub": c.Scrub} {
		if err := order(ctx, "dead"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := order(ctx, "works"); !errors.Is(err, ErrRefused) {
			t.Errorf("%s that is refused: %v", name, err)
		}
	}
}

func TestUnknownRequestIsRefused(t *testing.T) {
	_, path := serve(t, &recorder{})
	c := dial(t, path)
	if _, err := c.call(context.Background(), &message{Op: "format"}); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	if _, err := c.call(context.Background(), &message{Op: opGrant}); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"id":1,"op":"grant","grant":{"Mode":5}}` + "\n"))
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"id":1,"op":"copy","session":18446744073709551615}` + "\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		r := bufio.NewReaderSize(strings.NewReader(string(p)), 4096)
		for range 10 {
			m, err := readMessage(r)
			if err != nil {
				return
			}
			if err := (&Server{handler: &recorder{}}).do(m, &message{}); err == nil && m.Op == "" {
				t.Fatal("an empty request was carried out")
			}
		}
	})
}

// A drain takes seconds; a grant behind it must not wait for it, and the answer finds its call.
func TestDrainIsAnsweredLater(t *testing.T) {
	r := &recorder{drained: make(chan []string, 1)}
	_, path := serve(t, r)
	c := dial(t, path)
	ctx := context.Background()
	drained, err := c.Drain(ctx, []string{"v", "w"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Grant(ctx, Grant{Sequence: 1}); err != nil {
		t.Fatal(err)
	}
	r.drained <- []string{"w"}
	if got, err := drained(ctx); err != nil || !slices.Equal(got, []string{"w"}) {
		t.Errorf("%v, %v", got, err)
	}
	if drained, err = c.Drain(ctx, []string{"unknown"}); err != nil {
		t.Fatal(err)
	}
	if _, err = drained(ctx); !errors.Is(err, ErrRefused) {
		t.Errorf("not refused: %v", err)
	}
	if drained, err = c.Drain(ctx, []string{"v"}); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err = drained(ctx); err == nil {
		t.Error("a drain was answered without a connection")
	}
	if got := strings.Join(r.calls, ", "); !strings.HasPrefix(got, "drain v+w, grant 1, drain unknown") {
		t.Error(got)
	}
}
