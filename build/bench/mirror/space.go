package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// benchDirVariable names a folder on the disk to measure.
const benchDirVariable = "DUET_BENCH_DIR"

// isolated runs this program again in a network namespace of its own, which is node a's. The folders are made and
// removed here: whatever becomes of the other process, nothing is left. Sockets are apart: their paths must be short.
func isolated(ctx context.Context, o options, args []string, stdout, stderr io.Writer) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root, for network namespaces")
	}
	base := os.Getenv(benchDirVariable)
	if base == "" {
		base = "out"
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		return err
	}
	if base, err = filepath.Abs(base); err != nil {
		return err
	}
	legs, err := os.MkdirTemp(base, "bench-mirror-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(legs)) }()
	sockets, err := os.MkdirTemp("", "duet-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(sockets)) }()
	inner := append([]string{"-inside", legs, "-sockets", sockets}, args...)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append(inner, "-seed", strconv.FormatUint(o.seed, 10))...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return cmd.Run()
}

// The addresses of the veth. Both namespaces are ours alone, so they can be any.
var addresses = [2]string{"198.18.0.1", "198.18.0.2"}

// spaces are the two network namespaces: this process's, and b's, which lives as long as its file is open. They have no
// name in the file system and end with their last process: there is nothing to remove.
type spaces struct{ b *os.File }

func newSpaces(ctx context.Context) (*spaces, error) {
	b, err := newNetwork()
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	s := &spaces{b}
	for _, args := range [][]string{
		{"ip", "link", "add", "mirror0", "type", "veth", "peer", "name", "mirror0", "netns", s.path()},
		{"ip", "addr", "add", addresses[0] + "/24", "dev", "mirror0"},
		{"ip", "link", "set", "mirror0", "up"},
		s.in(1, "ip", "addr", "add", addresses[1]+"/24", "dev", "mirror0"),
		s.in(1, "ip", "link", "set", "mirror0", "up"),
		{"ip", "link", "set", "lo", "up"},
		s.in(1, "ip", "link", "set", "lo", "up"),
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return nil, errors.Join(fmt.Errorf("%v: %w: %s", args, err, out), b.Close())
		}
	}
	return s, nil
}

func (s *spaces) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.b.Fd()) }

// in is the command line that runs a program on a node.
func (s *spaces) in(node int, args ...string) []string {
	if node == 0 {
		return args
	}
	return append([]string{"nsenter", "--net=" + s.path(), "--"}, args...)
}

func newNetwork() (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is in the wrong namespace and ends with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{nil, err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		done <- result{f, err}
	}()
	r := <-done
	return r.f, r.err
}

// server is a program that runs as long as the benchmark.
type server struct {
	name string
	cmd  *exec.Cmd
	log  string
	over chan struct{}
}

// start runs a program; it is killed with this process, whatever ends that.
func start(name, log string, args []string) (*server, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &server{name: name, cmd: exec.Command(args[0], args[1:]...), log: log, over: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = f, f
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() { s.cmd.Wait(); close(s.over) }()
	return s, nil
}

func (s *server) pid() int { return s.cmd.Process.Pid } // nsenter replaces itself by the program

// stop asks, and then insists: what is measured is over.
func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.over:
	case <-time.After(stopLimit):
		s.cmd.Process.Kill()
		<-s.over
	}
}

// died is what the program said at its end.
func (s *server) died() error {
	text, _ := os.ReadFile(s.log)
	return fmt.Errorf("%s ended: %s", s.name, text[max(0, len(text)-1000):])
}

const (
	startLimit = 60 * time.Second // creating four legs is in it
	stopLimit  = 10 * time.Second
	lookEvery  = 20 * time.Millisecond
)

// await repeats until ready says so, the server ends, or the time is over.
func (s *server) await(ctx context.Context, what string, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.over:
			return s.died()
		case <-ctx.Done():
			return fmt.Errorf("%s: %s: %w (%w)", s.name, what, err, ctx.Err())
		}
	}
}

// listens waits until the server takes connections.
func (s *server) listens(ctx context.Context, network, address string) error {
	return s.await(ctx, "listens at "+address, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}
