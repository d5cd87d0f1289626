package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"duet/replication/control"
)

// judge runs a program that nobody here wrote and returns what it said.
func judge(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed (make deps): %v", name, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// dirtyMap is what nbdinfo makes of x-duet:dirty, without clean areas.
func (n *node) dirtyMap() (dirty [][2]int64) {
	n.t.Helper()
	var areas []struct{ Offset, Length, Type int64 }
	out := judge(n.t, "nbdinfo", "--map=x-duet:dirty", "--json", n.uri())
	if err := json.Unmarshal([]byte(out), &areas); err != nil {
		n.t.Fatalf("%v\n%s", err, out)
	}
	for _, a := range areas {
		if a.Type != 0 {
			dirty = append(dirty, [2]int64{a.Offset, a.Length})
		}
	}
	return dirty
}

func (n *node) uri() string { return "nbd+unix:///disk?socket=" + n.socket() }

// The NBD server of the real daemon, mirrored: copied full and read back over four connections, compared by QEMU,
// and asked for what the other leg lacks, before and after the other node is gone.
func TestJudgesOnAMirror(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes")
	}
	nodes := pairedNodes(t)
	a, b := nodes[0], nodes[1]
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	judge(t, "dd", "if=/dev/urandom", "of="+in, "bs=1M", "count=32")
	if err := os.Truncate(in, size-8<<20); err != nil { // and a hole at the end
		t.Fatal(err)
	}
	if err := os.Truncate(in, size); err != nil {
		t.Fatal(err)
	}
	judge(t, "nbdcopy", "--connections=4", "--requests=64", "--flush", in, a.uri())
	judge(t, "nbdcopy", "--connections=4", "--requests=64", a.uri(), out)
	judge(t, "cmp", in, out)
	judge(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", in, a.uri())
	for _, n := range nodes {
		judge(t, "cmp", in, n.leg())
	}
	if got := a.dirtyMap(); got != nil {
		t.Fatalf("dirty while paired: %v", got)
	}
	b.kill()
	a.grant(control.Grant{Mode: control.Solo, Epoch: 2, Members: 1})
	a.awaitStage("alone")
	judge(t, "qemu-io", "-f", "raw", "-c", "write -f -P 7 1M 64k", "-c", "write -z -u 20M 4k", "-c", "discard 4M 4M", a.uri())
	if got, want := a.dirtyMap(), [][2]int64{{1 << 20, 64 << 10}, {20 << 20, 4 << 10}}; !slices.Equal(got, want) {
		t.Fatalf("dirty while alone: %v, want %v", got, want)
	}
	a.stop()
}

// QEMU writes on while the daemon that serves it is killed and comes back: the socket stays open meanwhile, what was
// not answered is repeated, and no error reaches it (replication.md sections 14 and 15).
func TestJudgesQemuOverKills(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes")
	}
	nodes := pairedNodes(t)
	a := nodes[0]
	// Without an end of its own: an error ends it.
	bench := exec.Command("qemu-img", "bench", "-w", "-c", "1000000000", "-d", "8", "-s", "4096", "-S", "12288",
		"--flush-interval=64", "--pattern=7", "--image-opts",
		"driver=nbd,server.type=unix,server.path="+a.socket()+",export=disk,reconnect-delay=60")
	var said bytes.Buffer
	bench.Stdout, bench.Stderr = &said, &said
	if err := bench.Start(); err != nil {
		t.Fatalf("qemu-img is not installed (make deps): %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- bench.Wait() }()
	defer bench.Process.Kill()
	for range 3 {
		a.awaitWrites(300)
		a.kill()
		a.start()
		a.pair()
		a.awaitStage("paired")
	}
	a.awaitWrites(300)
	select {
	case err := <-ended:
		t.Fatalf("QEMU gave up: %v\n%s", err, said.Bytes())
	default:
	}
	if err := bench.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	for _, n := range nodes {
		n.stop()
	}
	judge(t, "cmp", a.leg(), nodes[1].leg())
}
