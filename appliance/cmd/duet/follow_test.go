package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"duet/appliance/api"
	"duet/appliance/api/fakenode"
)

// start serves a backend at a socket until the returned function is called.
func start(t *testing.T, socket string, b api.Backend) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l, err := api.Listen(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- api.NewServer(api.ServerConfig{Backend: b, Node: "a", AllowUID: uint32(os.Getuid())}).Serve(ctx, l)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// lines is output that a test waits for.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) await(t *testing.T, part string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(l.String(), part); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never printed %q:\n%s", part, l.String())
		}
	}
}

func answersFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "answers.json")
	text := `{"format":1,"name":"demo","nodes":{"a":{},"b":{}},"volumes":[],"vms":[]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// duetd restarts in the middle of founding and has forgotten the task: the durable progress is followed to its end.
func TestAnswerSurvivesARestartOfDuetd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	before := fakenode.New().Fresh()
	before.Hold()
	stop := start(t, socket, before)
	var out, steps lines
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), []string{"--socket", socket, "setup", "answer", answersFile(t)}, strings.NewReader(""), &out, &steps)
	}()
	steps.await(t, "running  witness register")
	stop()
	start(t, socket, fakenode.New())
	if got := <-code; got != exitDone || !strings.Contains(out.String(), "setup: complete") {
		t.Fatalf("exit code %d\n%s%s", got, out.String(), steps.String())
	}
}

// ... and if nothing durable came of it, that is said.
func TestAnswerLostWithDuetd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	before := fakenode.New().Fresh()
	before.Hold()
	stop := start(t, socket, before)
	var out, steps lines
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), []string{"--socket", socket, "setup", "answer", answersFile(t)}, strings.NewReader(""), &out, &steps)
	}()
	steps.await(t, "running  witness register")
	stop()
	start(t, socket, fakenode.New().Fresh())
	if got := <-code; got != exitRefused || !strings.Contains(steps.String(), "SITE-1018") {
		t.Fatalf("exit code %d\n%s%s", got, out.String(), steps.String())
	}
}

func TestAnswerHasADeadline(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	n := fakenode.New().Fresh()
	n.Hold()
	start(t, socket, n)
	var out, steps lines
	if got := run(t.Context(), []string{"--socket", socket, "setup", "answer", "--timeout", "300ms", answersFile(t)}, strings.NewReader(""), &out, &steps); got != exitRefused ||
		!strings.Contains(steps.String(), "SYS-9010") {
		t.Fatalf("exit code %d\n%s", got, steps.String())
	}
}

// A watch prints a line for each change, goes on while duetd is away, and ends without an error when it is interrupted.
func TestWatch(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	n := fakenode.New()
	stop := start(t, socket, n)
	ctx, cancel := context.WithCancel(t.Context())
	var out lines
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"--socket", socket, "status", "--watch"}, strings.NewReader(""), &out, io.Discard)
	}()
	out.await(t, "demo: safe.")
	n.PeerOff()
	out.await(t, "demo: at risk.")
	stop()
	out.await(t, "no answer: no contact with duetd")
	start(t, socket, fakenode.New())
	cancel()
	if got := <-code; got != exitDone {
		t.Fatalf("exit code %d", got)
	}
	if got := strings.Count(out.String(), "demo: safe."); got > 2 {
		t.Fatalf("the same line %d times:\n%s", got, out.String())
	}
}

// -o json is the API's object, whole; and every operation of the API has its command.
func TestOutputIsTheObject(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	start(t, socket, fakenode.New())
	h := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	fetch := func(path string) (v any) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/api/v1"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := h.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	commands := map[string]string{
		"site": "status", "volume-list": "volume list", "volume-show": "volume show disk0", "vm-list": "vm list", "vm-show": "vm show counter",
		"fence-status": "fence status", "setup-show": "setup show", "vm-start": "", "vm-stop": "", "vm-move": "", "volume-readmit": "", "volume-scrub": "", "setup-answer": "", "task-show": "", "task-cancel": "",
		"fence-test": "", "fence-test-live": "", "witness-status": "witness status", "witness-test": "", "witness-add": "", "witness-replace": "",
		"node-leave": "", "node-return": "", "override-show": "", "override-peer-off": "", "override-force-solo": "", "fence-history": "fence history", "node-latch": "", "node-on": "", "db-status": "db status", "db-switchover": "", "db-set": "",
	}
	paths := fetch("/openapi.json").(map[string]any)["paths"].(map[string]any)
	seen := 0
	for path, methods := range paths {
		for method, op := range methods.(map[string]any) {
			seen++
			command, known := commands[op.(map[string]any)["operationId"].(string)]
			if !known {
				t.Errorf("%s %s has no command", method, path)
			}
			if command == "" {
				continue
			}
			path := strings.TrimPrefix(path, "/api/v1")
			path = strings.ReplaceAll(path, "{name}", command[strings.LastIndex(command, " ")+1:])
			var out bytes.Buffer
			if code := run(t.Context(), append([]string{"--socket", socket, "-o", "json"}, strings.Fields(command)...), nil, &out, io.Discard); code != 0 {
				t.Fatalf("%s: %d", command, code)
			}
			var got any
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if want := fetch(path); !reflect.DeepEqual(got, want) {
				t.Errorf("%s:\n%v\n%v", command, got, want)
			}
		}
	}
	if seen != len(commands) {
		t.Errorf("%d operations, %d commands", seen, len(commands))
	}
}
