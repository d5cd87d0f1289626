package control

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// TestConn: messages with files in both directions, the end, and what is refused.
func TestConn(t *testing.T) {
	near, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	far, err := FromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := near.Send(Request{Verb: "exec", Args: []string{"a", "ls"}}, w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var got Request
	files, err := far.Receive(&got)
	if err != nil || got.Verb != "exec" || len(files) != 1 {
		t.Fatalf("%+v, %d files, %v", got, len(files), err)
	}
	if _, err := files[0].WriteString("through"); err != nil {
		t.Fatal(err)
	}
	files[0].Close()
	if b, err := io.ReadAll(r); err != nil || string(b) != "through" {
		t.Errorf("the passed file carried %q, %v", b, err)
	}
	if err := near.Send(Request{Verb: strings.Repeat("x", MessageBytesMax)}); err == nil {
		t.Error("a message beyond the limit was sent")
	}
	if err := near.Send(Reply{Error: strings.Repeat("x", MessageBytesMax-100)}); err != nil {
		t.Errorf("a message just below the limit: %v", err)
	}
	var reply Reply
	if _, err := far.Receive(&reply); err != nil || len(reply.Error) != MessageBytesMax-100 {
		t.Errorf("%d bytes, %v", len(reply.Error), err)
	}
	near.Close()
	if _, err := far.Receive(&got); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, want EOF", err)
	}
	far.Close()
}

// TestListenLongPath: a state folder deeper than a socket address is long.
func TestListenLongPath(t *testing.T) {
	dir := t.TempDir() + "/" + strings.Repeat("deep/", 30)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
