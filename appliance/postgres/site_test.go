package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
	"duet/appliance/site"
	"duet/build/testport"
)

// programs of the Debian package postgresql-15, used without its clusters and services.
const programs = "/usr/lib/postgresql/15/bin"

// needServer skips a short run; a judge that is missing must not look green.
func needServer(t *testing.T) (uid, gid int) {
	t.Helper()
	if testing.Short() {
		t.Skip("short: starts real servers")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root to become the user postgres")
	}
	if _, err := os.Stat(filepath.Join(programs, "postgres")); err != nil {
		t.Fatal("needs postgresql-15: make deps")
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	gid, err = strconv.Atoi(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	return uid, gid
}

// workFolder is on memory where there is any: the kills of these tests spare the kernel, so what was written is there.
func workFolder(t *testing.T, uid, gid int) string {
	t.Helper()
	base := "/dev/shm"
	if unix.Access(base, unix.W_OK) != nil {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "duet-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// node is one node of a site under test.
type node struct {
	t       *testing.T
	id      membership.Node
	dir     string
	cfg     Config
	m       *Manager
	gates   gates
	addr    *addresses
	stop    context.CancelFunc
	ended   chan struct{}
	enabled atomic.Bool
	faults  heard
	log     heard
}

// siteOf is two nodes with one script.
type siteOf struct {
	t      *testing.T
	script *script
	n      [2]*node
}

// newSite makes a site and waits until it is in sync: created on a (B1), copied to b (J6), counted in (G1 to G4).
func newSite(t *testing.T) *siteOf {
	uid, gid := needServer(t)
	s := &siteOf{t: t, script: newScript()}
	base := workFolder(t, uid, gid)
	ports := [2]int{testport.New(t), testport.New(t)}
	for i := range s.n {
		id := membership.Node(i)
		n := &node{t: t, id: id, dir: filepath.Join(base, id.String()), addr: &addresses{}}
		n.enabled.Store(true)
		for _, sub := range []string{"data", "run", "export"} {
			if err := os.MkdirAll(filepath.Join(n.dir, sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(filepath.Join(n.dir, "data"), uid, gid); err != nil {
			t.Fatal(err)
		}
		target := fmt.Sprintf("127.0.0.1:%d", ports[i])
		n.gates = gates{newForwarder(t, target), newForwarder(t, target)}
		timing := decide.Defaults()
		timing.GoodFor, timing.BootPatience, timing.ReturnBy = membership.Boottime(200*time.Millisecond), membership.Boottime(6*time.Second), membership.Boottime(10*time.Second)
		timing.DegradeAfter = membership.Boottime(2 * time.Second)
		log := testLog(t, n)
		n.cfg = Config{
			Self: id, Programs: programs, Root: filepath.Join(n.dir, "data"), Run: filepath.Join(n.dir, "run"), Export: filepath.Join(n.dir, "export"),
			UID: uid, GID: gid, Port: ports[i], Listen: "127.0.0.1", PeerHost: "127.0.0.1", PeerPort: ports[1-i], Networks: []string{"127.0.0.1/32"},
			Rules:    []Rule{{Networks: []string{"127.0.0.1/32"}, Users: []string{"app"}, Databases: []string{"app"}, Method: "scram"}},
			Settings: "shared_buffers = 16MB\nmax_connections = 40\n", Secret: site.Secret("of this test: only"), SegmentMiB: 4, KeepMiB: 64, SlotMiB: 256, Decide: timing, Authority: port{s.script, id}, Other: other{s.script, id}, Gates: n.gates,
			Addresses: n.addr, Log: log, Enabled: n.enabled.Load, LookEvery: 50 * time.Millisecond, StartTimeout: 30 * time.Second, CopyTimeout: 60 * time.Second, RewindTimeout: 60 * time.Second,
			Report: func(f *event.Fault, on bool) {
				word := "clear "
				if on {
					word = "raise "
				}
				n.faults.hear(word + string(f.Code))
			},
		}
		s.n[i] = n
		n.run(s)
		t.Cleanup(func() { n.halt(); n.killAll() })
	}
	s.inSync(membership.A)
	return s
}

// testLog writes the managers' log into the test's.
func testLog(t *testing.T, n *node) *slog.Logger {
	return slog.New(slog.NewTextHandler(logWriter{t, n}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.String("t", time.Now().Format("05.000"))
		}
		return a
	}}))
}

type logWriter struct {
	t *testing.T
	n *node
}

// heard is what was said so far.
type heard struct {
	mu   sync.Mutex
	text string
}

func (h *heard) hear(line string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text += line + "\n"
}

func (h *heard) has(part string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Contains(h.text, part)
}

func (w logWriter) Write(b []byte) (int, error) {
	w.n.log.hear(string(b))
	w.t.Logf("%v %s", w.n.id, b[:len(b)-1])
	return len(b), nil
}

// run begins a life of the manager; halt ends it, and the server goes on.
func (n *node) run(s *siteOf) {
	m, err := New(n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	s.script.mu.Lock()
	s.script.managers[n.id] = m
	s.script.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	n.m, n.stop, n.ended = m, stop, make(chan struct{})
	go func() {
		defer close(n.ended)
		if err := m.Run(ctx); err != nil {
			n.t.Error(err)
		}
	}()
}

func (n *node) halt() {
	n.stop()
	<-n.ended
}

// killAll is kill -9 of every process of the server.
func (n *node) killAll() {
	if dir := (layout{root: n.m.cfg.Root}).active(); dir != "" {
		if err := killServer(dir, 10*time.Second); err != nil {
			n.t.Error(err)
		}
	}
}

// await a state; a timing is never judged, a state is.
func await(t *testing.T, within time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline.C:
			t.Fatalf("not in %v: %s", within, what)
		case <-tick.C:
		}
	}
}

// patience is for states that come; the machine is shared and slow.
const patience = 40 * time.Second

// inSync waits until p is the primary, the other one holds everything, and the gates and addresses are where they belong.
func (s *siteOf) inSync(p membership.Node) {
	s.t.Helper()
	a, b := s.n[p], s.n[p.Peer()]
	await(s.t, patience, "in sync behind "+p.String(), func() bool {
		v, w := a.m.View(), b.m.View()
		return v.Status == "PRI" && v.Data == "LATEST" && v.Promotable && w.Status == "HS:sync" && w.Data == "STREAMING|SYNC" &&
			v.Record.Copies == membership.Both && w.Record.Version == v.Record.Version && a.gates.Open(decide.Write) && !b.gates.Open(decide.Write) &&
			!a.addr.Held(decide.Read) && b.addr.Held(decide.Read)
	})
}

// sql runs statements on the server of a node, on its socket.
func (n *node) sql(statements ...string) [][]string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	s, err := n.m.connect(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	defer s.close()
	var rows [][]string
	for _, sql := range statements {
		if rows, err = s.ask(ctx, sql); err != nil {
			n.t.Fatalf("%s: %v", sql, err)
		}
	}
	return rows
}

// withApp makes the site's user, database and table, as `duet db` will.
func (s *siteOf) withApp(p membership.Node) *writers {
	s.t.Helper()
	n := s.n[p]
	scram, err := verifier("secret")
	if err != nil {
		s.t.Fatal(err)
	}
	n.sql("CREATE ROLE app LOGIN PASSWORD '"+scram+"'", "CREATE DATABASE app OWNER app")
	conn := dial(n.gates[decide.Write].addr(), "app")
	if conn == nil {
		s.t.Fatal("nobody answers at the write gate")
	}
	defer conn.Conn().Close()
	if _, err := conn.Exec(s.t.Context(), "CREATE TABLE rows (writer int, n int)").ReadAll(); err != nil {
		s.t.Fatal(err)
	}
	w := startWriters(s.t, [2]string{s.n[0].gates[decide.Write].addr(), s.n[1].gates[decide.Write].addr()})
	s.t.Cleanup(func() {
		select {
		case <-w.stop:
		default:
			close(w.stop)
			w.wait.Wait()
		}
	})
	w.awaitMore(20, patience)
	return w
}
