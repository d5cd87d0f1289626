package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"duet/replication/control"
)

// Real processes: two daemons on two loopback addresses, fio through the NBD socket, SIGKILL.

const asDaemon = "DUET_MIRRORD_TEST_ARGS"

func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

const (
	site     = "00112233445566778899aabbccddeeff"
	volumeID = "0123456789abcdef0123456789abcdef"
	size     = 32 << 20
	patience = 30 * time.Second
)

type node struct {
	t        *testing.T
	slot     control.Node
	dir      string
	key      ed25519.PrivateKey
	peer     *node
	port     int
	cmd      *exec.Cmd
	listener *os.File // the NBD socket, as a service manager holds it
	client   *control.Client
	seq      uint64
	owner    control.Node // in its grants
	space    string       // network namespace; empty: this one
	paths    []control.Path
	size     int64 // of the volume
}

// pairedNodes are two that serve the volume, both legs in step.
func pairedNodes(t *testing.T) [2]*node {
	t.Helper()
	nodes := startNodes(t)
	for _, n := range nodes {
		n.start()
		n.pair()
	}
	for _, n := range nodes {
		n.awaitStage("paired")
	}
	return nodes
}

func startNodes(t *testing.T) [2]*node {
	t.Helper()
	base, err := os.MkdirTemp(poolBase(), "duet-mirrord") //nolint:usetesting // on a file system that can do O_DIRECT
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	var nodes [2]*node
	for i := range nodes {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		n := &node{t: t, slot: control.Node(i), dir: filepath.Join(base, strconv.Itoa(i)), key: key, port: port, size: size}
		for _, d := range []string{"run", "pool"} {
			if err := os.MkdirAll(filepath.Join(n.dir, d), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		u, err := net.Listen("unix", n.socket())
		if err != nil {
			t.Fatal(err)
		}
		if n.listener, err = u.(*net.UnixListener).File(); err != nil {
			t.Fatal(err)
		}
		u.(*net.UnixListener).SetUnlinkOnClose(false)
		u.Close()
		address := [2]string{"127.0.0.1", "127.0.0.2"}
		n.paths = []control.Path{{Name: "mirror0", Local: address[i], Peer: address[1-i]}}
		nodes[i] = n
	}
	nodes[0].peer, nodes[1].peer = nodes[1], nodes[0]
	return nodes
}

// poolBase needs O_DIRECT, which tmpfs does not have everywhere.
func poolBase() string {
	if d := os.Getenv("DUET_TEST_DISK"); d != "" {
		return d
	}
	return "/var/tmp"
}

func (n *node) socket() string { return filepath.Join(n.dir, "run", "nbd.sock") }

func (n *node) start() {
	n.t.Helper()
	n.cmd = exec.Command(os.Args[0], "--run", filepath.Join(n.dir, "run"), "--pool", filepath.Join(n.dir, "pool"))
	n.cmd.Env = append(os.Environ(), asDaemon+"=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=nbd")
	n.cmd.ExtraFiles = []*os.File{n.listener}
	log, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	n.cmd.Stderr = log
	// LISTEN_PID must be the daemon's own pid, which is known only after the fork: a shell that replaces itself.
	shell := []string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}
	if n.space != "" {
		shell = append(shell, "ip", "netns", "exec", n.space)
	}
	n.cmd.Args = append(shell, n.cmd.Args...)
	n.cmd.Path = "/bin/sh"
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	cmd := n.cmd
	n.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	n.connect()
}

// connect tells what exists, as duetd does after each start of the daemon.
func (n *node) connect() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := control.Dial(ctx, filepath.Join(n.dir, "run", "mirrord.sock"))
		if err == nil {
			n.client = c
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			n.t.Fatalf("daemon does not answer: %v\n%s", err, n.log())
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(n.key)
	if err != nil {
		n.t.Fatal(err)
	}
	err = n.client.Configure(ctx, control.Config{
		Site: site, Node: n.slot, BootID: n.boot(), Port: n.port,
		IdentityPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		PeerKey:     n.peer.key.Public().(ed25519.PublicKey),
		Paths:       n.paths,
		Volumes:     []control.VolumeConfig{{ID: volumeID, Name: "disk", SizeBytes: n.size}},
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) boot() string { return fmt.Sprintf("%032x", n.slot+1) }

func (n *node) log() []byte {
	b, err := os.ReadFile(filepath.Join(n.dir, "log"))
	if err != nil {
		return []byte(err.Error())
	}
	return b
}

func (n *node) grant(g control.Grant) {
	n.t.Helper()
	n.seq++
	g.BootID, g.Sequence = n.boot(), n.seq
	if g.Mode == control.Paired {
		g.Deadline = 1 << 62
	}
	g.Volumes = []control.VolumeGrant{{Volume: volumeID, Owner: n.owner, Legs: g.Members}}
	if err := n.client.Grant(context.Background(), g); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) pair() {
	n.t.Helper()
	n.grant(control.Grant{Mode: control.Paired, Epoch: 1, Session: 11, Members: 3})
}

func (n *node) awaitStage(want string) control.VolumeStatus {
	n.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := n.client.Status(context.Background())
		if err == nil && len(s.Volumes) == 1 && s.Volumes[0].Stage == want {
			return s.Volumes[0]
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("node %d never became %s: %+v, %v\n%s", n.slot, want, s, err, n.log())
		}
		<-tick.C
	}
}

func (n *node) kill() {
	n.t.Helper()
	n.cmd.Process.Kill()
	n.cmd.Wait()
	n.client.Close()
}

// stop is a planned stop and must end clean.
func (n *node) stop() {
	n.t.Helper()
	n.client.Close()
	n.cmd.Process.Signal(os.Interrupt)
	if err := n.cmd.Wait(); err != nil {
		n.t.Fatalf("planned stop of node %d: %v\n%s", n.slot, err, n.log())
	}
}

func (n *node) leg() string { return filepath.Join(n.dir, "pool", volumeID, "data") }

func TestFioSurvivesKills(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes")
	}
	fio := needFIO(t)
	nodes := pairedNodes(t)
	job := exec.Command(fio, "--name=verify", "--ioengine=nbd", "--uri=nbd+unix:///disk?socket="+nodes[0].socket(),
		"--rw=randwrite", "--bs=4k", "--iodepth=16", "--size=24m", "--io_size=96m", "--fsync=64", "--time_based=0",
		"--verify=crc32c", "--do_verify=1", "--randrepeat=0", "--max_latency=20s", "--rate_iops=6000")
	job.Dir = t.TempDir() // fio leaves its verify state where it runs
	var out bytes.Buffer
	job.Stdout, job.Stderr = &out, &out
	if err := job.Start(); err != nil {
		t.Fatal(err)
	}
	writes := uint64(0)
	for range 3 {
		writes += 500
		nodes[0].awaitWrites(writes)
		nodes[1].kill()
		nodes[1].start()
		nodes[1].pair()
		nodes[1].awaitStage("paired")
	}
	if err := job.Wait(); err != nil {
		t.Fatalf("fio: %v\n%s", err, out.Bytes())
	}
	for _, n := range nodes {
		n.stop()
	}
	if b, err := exec.Command("cmp", nodes[0].leg(), nodes[1].leg()).CombinedOutput(); err != nil {
		t.Fatalf("legs differ: %s", b)
	}
}

func (n *node) awaitWrites(want uint64) {
	n.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := n.client.Status(context.Background())
		if err == nil && s.Volumes[0].Writes >= want {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("writes do not go on: %+v, %v\n%s", s, err, n.log())
		}
		<-tick.C
	}
}

// cable is a veth pair between two namespaces; pulled, the interfaces are gone.
type cable struct {
	t      *testing.T
	spaces [2]string
}

func (c *cable) ip(args ...string) {
	c.t.Helper()
	if b, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		c.t.Fatalf("ip %v: %v: %s", args, err, b)
	}
}

func (c *cable) plug() {
	c.t.Helper()
	c.ip("link", "add", "mirror0", "netns", c.spaces[0], "type", "veth", "peer", "name", "mirror0", "netns", c.spaces[1])
	for i, s := range c.spaces {
		c.ip("-n", s, "addr", "add", "fe80::"+string(rune('a'+i))+"/64", "dev", "mirror0", "nodad")
		c.ip("-n", s, "link", "set", "mirror0", "up")
	}
}

func (c *cable) pull() { c.ip("-n", c.spaces[0], "link", "del", "mirror0") }

// Two network namespaces, link-local addresses, a cable that is pulled and plugged under fio: the interfaces vanish
// with it and come back with other indexes.
func TestCableOutAndInUnderFio(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("real processes, needs root")
	}
	fio := needFIO(t)
	nodes := startNodes(t)
	c := &cable{t: t}
	for i, n := range nodes {
		c.spaces[i] = fmt.Sprintf("duet-%d-%d", os.Getpid(), i)
		c.ip("netns", "add", c.spaces[i])
		t.Cleanup(func() { c.ip("netns", "del", c.spaces[i]) })
		n.space = c.spaces[i]
		n.paths = []control.Path{{
			Name: "mirror0", Local: "fe80::" + string(rune('a'+i)) + "%mirror0", Peer: "fe80::" + string(rune('a'+1-i)) + "%mirror0",
		}}
	}
	c.plug()
	for _, n := range nodes {
		n.start()
		n.pair()
	}
	for _, n := range nodes {
		n.awaitStage("paired")
	}
	job := exec.Command(fio, "--name=verify", "--ioengine=nbd", "--uri=nbd+unix:///disk?socket="+nodes[0].socket(),
		"--rw=randwrite", "--bs=4k", "--iodepth=16", "--size=24m", "--io_size=48m", "--fsync=64",
		"--verify=crc32c", "--do_verify=1", "--randrepeat=0", "--max_latency=20s", "--rate_iops=4000")
	job.Dir = t.TempDir() // fio leaves its verify state where it runs
	var out bytes.Buffer
	job.Stdout, job.Stderr = &out, &out
	if err := job.Start(); err != nil {
		t.Fatal(err)
	}
	writes := uint64(0)
	for range 2 {
		writes += 500
		nodes[0].awaitWrites(writes)
		c.pull()
		nodes[0].awaitStage("held")
		nodes[1].awaitStage("held")
		c.plug()
		nodes[0].awaitStage("paired")
		nodes[1].awaitStage("paired")
	}
	if err := job.Wait(); err != nil {
		t.Fatalf("fio: %v\n%s", err, out.Bytes())
	}
	for _, n := range nodes {
		n.stop()
	}
	if b, err := exec.Command("cmp", nodes[0].leg(), nodes[1].leg()).CombinedOutput(); err != nil {
		t.Fatalf("legs differ: %s", b)
	}
}

// needFIO finds fio: a judge that is missing must not look green.
func needFIO(t *testing.T) string {
	t.Helper()
	fio, err := exec.LookPath("fio")
	if err != nil {
		t.Fatal("needs the Debian package fio: make deps")
	}
	return fio
}
