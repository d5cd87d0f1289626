package main

import (
	"bytes"
	"context"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// give hands the volume to the other node as R22 orders it: drained first, then the taker's grant and the giver's.
func (n *node) give() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	drained, err := n.client.Drain(ctx, []string{volumeID})
	if err != nil {
		n.t.Fatal(err)
	}
	if ids, err := drained(ctx); err != nil || !slices.Equal(ids, []string{volumeID}) {
		n.t.Fatalf("drained: %v, %v\n%s", ids, err, n.log())
	}
	n.peer.owner, n.owner = n.peer.slot, n.peer.slot
	n.peer.pair()
	n.pair()
}

// fio writes and then verifies its own part of the volume through this node's export. While the other node owns the
// volume it waits there; an error would end it.
func (n *node) fio(program, offset string, out *bytes.Buffer) *exec.Cmd {
	n.t.Helper()
	job := exec.Command(program, "--name=verify", "--ioengine=nbd", "--uri=nbd+unix:///disk?socket="+n.socket(),
		"--rw=randwrite", "--bs=4k", "--iodepth=8", "--offset="+offset, "--size=12m", "--io_size=36m", "--fsync=32",
		"--verify=crc32c", "--do_verify=1", "--randrepeat=0", "--rate_iops=3000")
	job.Dir = n.t.TempDir()
	job.Stdout, job.Stderr = out, out
	if err := job.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = job.Process.Kill() })
	return job
}

// Proves: protocol.md R22 with real processes: the ownership goes back and forth under fio on both nodes until both have
// verified what they wrote, a request at the node that does not own the volume waits and is never failed, and the legs
// are equal at the end.
func TestFioSurvivesMoves(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes")
	}
	program := needFIO(t)
	nodes := pairedNodes(t)
	const wanted = 20 // moves; a job that ends before them begins again, however fast the machine is
	var out [2]bytes.Buffer
	type end struct {
		node int
		err  error
	}
	ended := make(chan end, len(nodes))
	start := func(i int) {
		out[i].Reset()
		job := nodes[i].fio(program, [2]string{"0", "12m"}[i], &out[i])
		go func() { ended <- end{i, job.Wait()} }()
	}
	running := 0
	for i := range nodes {
		start(i)
		running++
	}
	moves := 0
	turn := time.NewTicker(250 * time.Millisecond)
	defer turn.Stop()
	limit := time.After(2 * patience)
	for owner := nodes[0]; running > 0; {
		select {
		case e := <-ended:
			running--
			if e.err != nil {
				t.Fatalf("fio on node %d: %v\n%s\n%s", e.node, e.err, out[e.node].Bytes(), nodes[e.node].log())
			}
			if moves < wanted {
				start(e.node)
				running++
			}
		case <-turn.C:
			owner.give()
			moves++
			owner = owner.peer
		case <-limit:
			t.Fatalf("fio does not end, %d moves", moves)
		}
	}
	t.Logf("%d moves", moves)
	for _, n := range nodes {
		if k := bytes.Count(n.log(), []byte("legs agreed")); k != 1 {
			t.Errorf("node %d agreed %d times: the moves broke the lane\n%s", n.slot, k, n.log())
		}
		n.stop()
	}
	if b, err := exec.Command("cmp", nodes[0].leg(), nodes[1].leg()).CombinedOutput(); err != nil {
		t.Fatalf("legs differ: %s", b)
	}
}

// A daemon that is killed in a drain answers nothing, and the one after it holds nothing for it.
func TestDrainDiesWithTheDaemon(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes")
	}
	nodes := pairedNodes(t)
	n := nodes[0]
	drained, err := n.client.Drain(context.Background(), []string{volumeID})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := drained(context.Background()); err != nil {
		t.Fatal(err)
	}
	n.awaitStage("drained")
	again, err := n.client.Drain(context.Background(), []string{volumeID})
	if err != nil {
		t.Fatal(err)
	}
	n.kill()
	if ids, err := again(context.Background()); err == nil {
		t.Logf("answered before it died: %v", ids)
	}
	n.start()
	n.pair()
	n.awaitStage("paired")
	n.stop()
	nodes[1].stop()
}
