package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/appliance/api"
	"duet/appliance/api/fakenode"
	"duet/appliance/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a real server on a real socket.
func serve(t *testing.T, cfg api.ServerConfig) (*api.Client, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "duetd.sock")
	ctx, cancel := context.WithCancel(context.Background())
	l, err := api.Listen(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Node = "a"
	if cfg.AllowUID == 0 {
		cfg.AllowUID = uint32(os.Getuid())
	}
	done := make(chan error, 1)
	go func() { done <- api.NewServer(cfg).Serve(ctx, l) }()
	c := api.NewClient(socket)
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c, socket
}

func code(err error) string {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return p.Code
	}
	return ""
}

func TestEveryObject(t *testing.T) {
	c, socket := serve(t, api.ServerConfig{Backend: fakenode.New()})
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	ctx := t.Context()
	st, err := c.Site(ctx)
	if err != nil || st.Word != "safe" || len(st.Losses) != 4 || st.Epoch != 7 {
		t.Fatalf("%+v %v", st, err)
	}
	if v, err := c.Volumes(ctx); err != nil || len(v) != 2 {
		t.Errorf("%+v %v", v, err)
	}
	if v, err := c.Volume(ctx, "disk1"); err != nil || v.UsedBy != "press" {
		t.Errorf("%+v %v", v, err)
	}
	if v, err := c.VMs(ctx); err != nil || len(v) != 2 {
		t.Errorf("%+v %v", v, err)
	}
	if f, err := c.Fence(ctx); err != nil || len(f.Paths) != 4 {
		t.Errorf("%+v %v", f, err)
	}
	if s, err := c.Setup(ctx); err != nil || s.State != "complete" || s.Peer == nil {
		t.Errorf("%+v %v", s, err)
	}
}

func TestOrders(t *testing.T) {
	c, _ := serve(t, api.ServerConfig{Backend: fakenode.New()})
	ctx := t.Context()
	if a, err := c.StopVM(ctx, "counter"); err != nil || a.VM.State != "stopped" || a.ActedOn != "a" {
		t.Fatalf("%+v %v", a, err)
	}
	if a, err := c.StartVM(ctx, "counter"); err != nil || a.VM.State != "running" {
		t.Fatalf("%+v %v", a, err)
	}
	_, err := c.StopVM(ctx, "press")
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != http.StatusConflict || p.Code != "VM-6003" || p.Args["node"] != "b" || p.Next.Text == "" {
		t.Fatalf("%+v", err)
	}
	for name, want := range map[string]string{"nope": "VM-6001", "../site": "VM-6001", "a b": "VM-6001"} {
		if _, err := c.StartVM(ctx, name); code(err) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := c.Volume(ctx, "nope"); code(err) != "REPL-2041" {
		t.Errorf("%v", err)
	}
}

func TestErrorsHaveCodes(t *testing.T) {
	n := fakenode.New()
	c, _ := serve(t, api.ServerConfig{Backend: n})
	for _, e := range []struct {
		err    error
		code   string
		status int
	}{
		{errors.New("disk on fire"), "SYS-9000", 500},
		{event.New(event.FrozenWaits, "node", "a", "waits_for", "the witness"), "SITE-1007", 503},
		{context.DeadlineExceeded, "SYS-9009", 504},
	} {
		n.Fail(e.err)
		_, err := c.Site(t.Context())
		var p *api.Problem
		if !errors.As(err, &p) || p.Code != e.code || p.Status != e.status || p.What == "" || p.Why == "" || p.Next.Text == "" {
			t.Errorf("%v: %+v", e.err, err)
		}
	}
}

const goodAnswers = `{"format":1,"name":"demo","nodes":{"a":{},"b":{}},"volumes":[{"name":"v","size_bytes":4096}],"vms":[]}`

// awaitTask polls until the task is over.
func awaitTask(t *testing.T, c *api.Client, id string) api.Task {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-tick.C {
		task, err := c.Task(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if task.State != "running" {
			return task
		}
	}
	t.Fatal("the task does not end")
	return api.Task{}
}

func TestFoundingIsATask(t *testing.T) {
	n := fakenode.New().Fresh()
	release := n.Hold()
	c, _ := serve(t, api.ServerConfig{Backend: n})
	ctx := t.Context()
	if st, err := c.Site(ctx); err != nil || st.Word != "unknown" || st.Setup != "fresh" {
		t.Fatalf("%+v %v", st, err)
	}
	task, err := c.Answer(ctx, []byte(goodAnswers))
	if err != nil || task.State != "running" || task.Deadline.Before(task.Started) {
		t.Fatalf("%+v %v", task, err)
	}
	_, err = c.Answer(ctx, []byte(goodAnswers))
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != http.StatusLocked || p.Task != task.ID {
		t.Fatalf("%+v", err)
	}
	release()
	if task = awaitTask(t, c, task.ID); task.State != "done" || len(task.Steps) != 3 || task.Steps[2].State != "done" {
		t.Fatalf("%+v", task)
	}
	if task, err = c.Answer(ctx, []byte(goodAnswers)); err != nil {
		t.Fatal(err)
	}
	if task = awaitTask(t, c, task.ID); task.State != "failed" || task.Problem.Code != "SITE-1002" {
		t.Fatalf("%+v", task)
	}
	if _, err := c.Task(ctx, "none"); code(err) != "SYS-9004" {
		t.Fatalf("%v", err)
	}
}

func TestWrongAnswersNameFields(t *testing.T) {
	c, _ := serve(t, api.ServerConfig{Backend: fakenode.New().Fresh()})
	_, err := c.Answer(t.Context(), []byte(strings.Replace(goodAnswers, "4096", "4097", 1)))
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != 422 || p.Code != "SITE-1001" || len(p.Errors) != 1 || p.Errors[0].Field != "volumes[0].size_bytes" {
		t.Fatalf("%+v", err)
	}
	for _, body := range []string{"", "{", `{"format":1}{}`, `{"colour":1}`, strings.Repeat(" ", 2<<20)} {
		if _, err := c.Answer(t.Context(), []byte(body)); code(err) != "SYS-9006" && code(err) != "SITE-1001" {
			t.Errorf("%.20q: %v", body, err)
		}
	}
}

// A task ends with its server: duetd's stop does not hang on a founding.
func TestTaskEndsWithServer(t *testing.T) {
	n := fakenode.New().Fresh()
	n.Hold()
	socket := filepath.Join(t.TempDir(), "s")
	ctx, cancel := context.WithCancel(context.Background())
	l, err := api.Listen(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- api.NewServer(api.ServerConfig{Backend: n, AllowUID: uint32(os.Getuid())}).Serve(ctx, l)
	}()
	c := api.NewClient(socket)
	defer c.Close()
	if _, err := c.Answer(t.Context(), []byte(goodAnswers)); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the server does not stop")
	}
	_, err = c.Site(t.Context())
	if _, ok := errors.AsType[*api.ContactError](err); !ok {
		t.Fatalf("%v", err)
	}
}

func TestOnlyTheAllowedUser(t *testing.T) {
	c, _ := serve(t, api.ServerConfig{Backend: fakenode.New(), AllowUID: 4242})
	if _, err := c.Site(t.Context()); code(err) != "SYS-9007" {
		t.Fatalf("%v", err)
	}
}

func TestListen(t *testing.T) {
	_, socket := serve(t, api.ServerConfig{Backend: fakenode.New()})
	if _, err := api.Listen(t.Context(), socket); err == nil || !strings.Contains(err.Error(), "another duetd") {
		t.Fatalf("%v", err)
	}
	stale := filepath.Join(t.TempDir(), "stale")
	old, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	old.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = old.Close()
	l, err := api.Listen(t.Context(), stale)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

// Raw requests: unknown addresses, wrong methods, wrong bodies, an answer of another program.
func TestRawRequests(t *testing.T) {
	_, socket := serve(t, api.ServerConfig{Backend: fakenode.New()})
	h := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	defer h.CloseIdleConnections()
	for _, r := range []struct {
		method, path, kind, body string
		status                   int
		code                     string
	}{
		{"GET", "/", "", "", 404, "SYS-9005"},
		{"GET", "/docs", "", "", 404, "SYS-9005"},
		{"DELETE", "/api/v1/site", "", "", 404, "SYS-9005"},
		{"GET", "/api/v1/openapi.json", "", "", 200, ""},
		{"GET", "/api/v1/site", "", "", 200, ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), r.method, "http://x"+r.path, strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := h.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var p api.Problem
		err = json.NewDecoder(resp.Body).Decode(&p)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != r.status || r.code != "" && p.Code != r.code {
			t.Errorf("%s %s: %d %+v %v", r.method, r.path, resp.StatusCode, p, err)
		}
	}
}
