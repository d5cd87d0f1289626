package nbd

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// qemu is a running qemu-io that takes commands one at a time.
type qemu struct {
	t    testing.TB
	in   io.Writer
	to   <-chan string
	quit func()
}

// do sends a command, after the answer to the last one: qemu-io loses sight of a second line in one read.
func (q *qemu) do(command string) {
	if _, err := io.WriteString(q.in, command+"\n"); err != nil {
		q.t.Fatal(err)
	}
}

// says waits for a line with want; a line that tells of a failure ends the test.
func (q *qemu) says(want string) {
	q.t.Helper()
	timeout := time.After(2 * patience)
	for {
		select {
		case line, ok := <-q.to:
			if !ok || strings.Contains(line, "failed") || strings.Contains(line, "rror") {
				q.t.Fatalf("qemu-io: %q (open: %v)", line, ok)
			}
			if strings.Contains(line, want) {
				return
			}
		case <-timeout:
			q.t.Fatalf("qemu-io never said %q", want)
		}
	}
}

func startQemu(t *testing.T, path string) *qemu {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	cmd := exec.CommandContext(ctx, "qemu-io", "--image-opts",
		"driver=nbd,server.type=unix,server.path="+path+",export=disk,reconnect-delay=30")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatalf("qemu-io is not installed (make deps): %v", err)
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	q := &qemu{t: t, in: in, to: lines}
	q.quit = sync.OnceFunc(func() {
		_, _ = io.WriteString(in, "quit\n")
		in.Close()
		for range lines {
		}
		_ = cmd.Wait()
		cancel()
	})
	t.Cleanup(q.quit)
	return q
}

// A restart of the server under QEMU: the listener stays open (socket activation), a held write is not answered,
// and QEMU repeats it to the new server. The guest sees no error (replication.md section 14).
func TestQemuRepeatsOverARestart(t *testing.T) {
	if testing.Short() {
		t.Skip("runs foreign programs; not with -short")
	}
	path := filepath.Join(t.TempDir(), "nbd.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := listener.(*net.UnixListener).File() // the init's copy
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	listener.Close()
	defer kept.Close()
	m := newMemory(t, map[string]int64{"disk": 1 << 20})
	disk := m.volumes["disk"]
	serve := func(kept *os.File) (stop func()) {
		l, err := net.FileListener(kept)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- Serve(ctx, l, m) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}

	stop := serve(kept)
	q := startQemu(t, path)
	q.do("write -P 1 0 64k")
	q.says("wrote 65536/65536")
	held := newGate()
	disk.hook(func(ctx context.Context, call string, _, _ int64) error {
		if strings.HasPrefix(call, "write") { // qemu-io writes through: with FUA
			return held.pass(ctx)
		}
		return nil
	})
	q.do("write -P 2 4096 4096")
	await(t, "the write is held", func() bool { return held.inside.Load() == 1 })
	stop() // the request is cancelled after stopTimeout, without a reply
	disk.hook(nil)
	stop = serve(kept)
	defer stop()
	q.says("wrote 4096/4096")
	q.do("read -P 2 4096 4096")
	q.says("read 4096/4096")
	q.do("read -P 1 0 4096")
	q.says("read 4096/4096")
	q.quit() // while there is a server: else it tries to connect for its whole delay
}
