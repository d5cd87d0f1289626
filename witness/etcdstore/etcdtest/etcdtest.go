// Package etcdtest runs a real etcd on loopback ports for tests.
//
// It promises that the server is Debian's own program, that it serves when Start returns, and that it dies with the
// process that started it. Its data is a folder, which tests stop, copy and put back as a person would who restores a
// backup. It refuses to run without the program: a test that needs etcd fails and names the package. With
// -short such tests are skipped.
package etcdtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"duet/build/testport"
)

// Server is one etcd, a cluster of its own or a member of one.
type Server struct {
	Endpoint string // host:port of clients
	Dir      string // its data, while it does not run
	extra    []string
	name     string
	peer     string
	cluster  string // all members, as --initial-cluster
	beat     []string
	cmd      *exec.Cmd
	log      bytes.Buffer
	logLock  sync.Mutex
}

const startLimit = 30 * time.Second // a loaded machine with two cores

// Start starts an etcd with new data. extra are more arguments; https in "--advertise-client-urls" is the caller's.
func Start(t *testing.T, extra ...string) *Server {
	t.Helper()
	s := newServer(t, "one")
	s.extra, s.cluster = extra, s.member()
	s.beat = []string{"--heartbeat-interval", "10", "--election-timeout", "100"} // alone, it waits for nobody
	s.Run(t)
	return s
}

// StartCluster starts a cluster of new members.
func StartCluster(t *testing.T, members int) []*Server {
	t.Helper()
	var servers []*Server
	var cluster []string
	for i := range members {
		s := newServer(t, fmt.Sprint("member-", i))
		s.beat = []string{"--heartbeat-interval", "50", "--election-timeout", "500"} // a fifth of the wait at its defaults
		servers, cluster = append(servers, s), append(cluster, s.member())
	}
	for _, s := range servers {
		s.cluster = strings.Join(cluster, ",")
		s.launch(t)
	}
	for _, s := range servers {
		s.waitServing(t)
	}
	return servers
}

func newServer(t *testing.T, name string) *Server {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a real etcd")
	}
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Fatal("no etcd: apt-get install etcd-server (make deps)")
	}
	s := &Server{name: name, Endpoint: testport.Address(t, "127.0.0.1"), peer: testport.Address(t, "127.0.0.1"), Dir: filepath.Join(t.TempDir(), "etcd")}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("etcd %s:\n%s", s.name, s.tail())
		}
	})
	return s
}

func (s *Server) member() string { return s.name + "=http://" + s.peer }

// Write takes etcd's own log.
func (s *Server) Write(p []byte) (int, error) {
	s.logLock.Lock()
	defer s.logLock.Unlock()
	return s.log.Write(p)
}

func (s *Server) tail() string {
	s.logLock.Lock()
	defer s.logLock.Unlock()
	text := s.log.String()
	return text[max(0, len(text)-4000):]
}

// Run starts the server over its data, and waits until it serves.
func (s *Server) Run(t *testing.T) {
	t.Helper()
	s.launch(t)
	s.waitServing(t)
}

func (s *Server) launch(t *testing.T) {
	t.Helper()
	scheme := "http://"
	if len(s.extra) > 0 {
		scheme = "https://"
	}
	args := append([]string{
		"--name", s.name, "--data-dir", s.Dir,
		"--listen-client-urls", scheme + s.Endpoint, "--advertise-client-urls", scheme + s.Endpoint,
		"--listen-peer-urls", "http://" + s.peer, "--initial-advertise-peer-urls", "http://" + s.peer,
		"--initial-cluster", s.cluster, "--log-level", "warn", "--log-outputs", "stderr", "--logger", "zap",
	}, append(s.beat, s.extra...)...)
	s.cmd = exec.CommandContext(t.Context(), "etcd", args...)
	s.cmd.Env = os.Environ()
	if runtime.GOARCH == "arm64" {
		s.cmd.Env = append(s.cmd.Env, "ETCD_UNSUPPORTED_ARCH=arm64") // etcd 3.4 wants it said
	}
	s.cmd.Stdout, s.cmd.Stderr = s, s
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// waitServing waits until the server answers; one that wants certificates, until it listens.
func (s *Server) waitServing(t *testing.T) {
	t.Helper()
	s.waitListening(t)
	if len(s.extra) > 0 {
		return
	}
	c := s.Client(t)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	for {
		try, end := context.WithTimeout(ctx, time.Second)
		_, err := c.Get(try, "x")
		end()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("etcd does not serve: %v\n%s", err, s.tail())
		}
	}
}

func (s *Server) waitListening(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(startLimit); ; {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Endpoint)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("etcd does not listen: %v\n%s", err, s.tail())
		}
		<-time.After(20 * time.Millisecond)
	}
}

// Client is a plain client, to look and to meddle.
func (s *Server) Client(t *testing.T) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + s.Endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Stop kills the server.
func (s *Server) Stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() //nolint:errcheck // it may have died by itself
		_ = s.cmd.Wait()         //nolint:errcheck // it was killed
		s.cmd = nil
	}
}

// Signal is for a server that hangs: SIGSTOP and SIGCONT.
func (s *Server) Signal(sig syscall.Signal) error { return s.cmd.Process.Signal(sig) }

// Save copies the data of the server, which must not run.
func (s *Server) Save(t *testing.T) string {
	t.Helper()
	aside := filepath.Join(t.TempDir(), "saved")
	if err := os.CopyFS(aside, os.DirFS(s.Dir)); err != nil {
		t.Fatal(err)
	}
	return aside
}

// Restore puts data back that Save made. The server must not run.
func (s *Server) Restore(t *testing.T, saved string) {
	t.Helper()
	if err := os.RemoveAll(s.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(s.Dir, os.DirFS(saved)); err != nil {
		t.Fatal(fmt.Errorf("put the saved data back: %w", err))
	}
	for _, dir := range []string{s.Dir, filepath.Join(s.Dir, "member")} { // etcd wants its folders to itself
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}
