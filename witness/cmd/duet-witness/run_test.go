package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"duet/witness/client"
	"duet/witness/pinned"
	"duet/witness/register"
	"duet/witness/wire"
)

func call(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	var out, errs bytes.Buffer
	status := run(t.Context(), args, &out, &errs)
	return status, out.String(), errs.String()
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct {
		args   []string
		status int
		says   string
	}{
		{nil, 2, ""},
		{[]string{"help"}, 0, ""},
		{[]string{"dance"}, 2, "no such command"},
		{[]string{"serve", "--data", dir}, 2, "--listen is missing"},
		{[]string{"key"}, 2, "--data is missing"},
		{[]string{"key", "--data", dir, "more"}, 2, `"more" is too much`},
		{[]string{"key", "--date", dir}, 2, "flag provided but not defined"},
		{[]string{"enroll", "--data", dir, "--name", "s", "--key-a", "x", "--key-b", "y"}, 1, "not base64"},
		{[]string{"version"}, 0, ""},
		{[]string{"unit"}, 0, ""},
		{[]string{"status", "--data", dir}, 1, "no witness serves from"},
		{[]string{"status", "--data", dir, "-o", "xml"}, 2, "text or json"},
		{[]string{"serve", "--data", dir, "--listen", ":0", "--store", "http://x"}, 2, "--store is"},
		{[]string{"serve", "--data", dir, "--listen", ":0", "--store", "etcd://x"}, 2, `"x" is not HOST:PORT`},
		{[]string{"serve", "--data", dir, "--listen", ":0", "--etcd-ca", "x"}, 2, "without --store"},
		{[]string{"serve", "--data", dir, "--listen", ":0", "--store", "etcd://127.0.0.1:1", "--etcd-ca", dir + "/none"}, 1, "--etcd-ca"},
	} {
		status, _, errs := call(t, test.args...)
		if status != test.status || !strings.Contains(errs, test.says) {
			t.Errorf("%q: status %d, %q", test.args, status, errs)
		}
	}
}

// The whole of it: key, enroll, serve, a vote, the end by signal.
func TestServe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "witness")
	_, text, _ := call(t, "key", "--data", dir)
	key, err := pinned.ParseKey(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	if _, again, _ := call(t, "key", "--data", dir); again != text {
		t.Error("another key each time")
	}
	pubA, a, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pubB, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if status, _, errs := call(t, "enroll", "--data", dir, "--name", "s", "--key-a", pinned.FormatKey(pubA), "--key-b", pinned.FormatKey(pubB)); status != 0 {
		t.Fatal(errs)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	logs, logsIn := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"serve", "--data", dir, "--listen", "127.0.0.1:0"}, io.Discard, logsIn)
		logsIn.Close()
	}()
	address := ""
	lines := bufio.NewScanner(logs)
	for address == "" && lines.Scan() {
		if found := regexp.MustCompile(`address=(\S+)`).FindStringSubmatch(lines.Text()); found != nil {
			address = found[1]
		}
	}
	go func() { _, _ = io.Copy(io.Discard, logs) }()
	c, err := client.New(client.Config{Address: address, ServerKey: key, Identity: a})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	within, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	if got, err := c.Do(within, wire.Request{Op: wire.Create, Nonce: 1, Site: register.ID{1}}); err != nil || got.Result != wire.OK {
		t.Fatalf("%+v, %v", got, err)
	}
	if status, _, errs := call(t, "serve", "--data", dir, "--listen", "127.0.0.1:0"); status != 1 || !strings.Contains(errs, "in use") {
		t.Errorf("a second one: %d, %q", status, errs)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if status, _, errs := call(t, "serve", "--data", t.TempDir(), "--listen", ln.Addr().String()); status != 1 || !strings.Contains(errs, "another") {
		t.Errorf("a port that is taken: %d, %q", status, errs)
	}
	cancel()
	if status := <-ended; status != 0 {
		t.Errorf("ended with %d", status)
	}
}

// The reference says what the program says.
func TestReference(t *testing.T) {
	page, err := os.ReadFile("../../../docs/reference/duet-witness.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```\n"+usage+"```") {
		t.Error("docs/reference/duet-witness.md has another usage than the program")
	}
}
