package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"duet/replication/control"
	"duet/replication/nbd"
)

var _ interface {
	nbd.Volume
	nbd.Beginner
	nbd.Guard
	nbd.Terms
	nbd.DirtyMap
} = export{}

// dirty is what an export says of its whole volume, as "from+length".
func (h *host) dirty() (runs []string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for at := int64(0); at < testSize; {
		from, n, err := export{h.vol().Volume}.NextDirty(ctx, at, testSize)
		if err != nil {
			h.t.Fatalf("dirty at %d: %v", at, err)
		}
		if n == 0 {
			break
		}
		runs = append(runs, fmt.Sprintf("%d+%d", from, n))
		at = from + n
	}
	return runs
}

// What the other leg lacks can be asked for: nothing while paired, what was written while alone, nothing again after
// the copy. A node that may not read holds the question, and going away is no error.
func TestExportTellsWhatTheOtherLegLacks(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	a, b := p.nodes[0], p.nodes[1]
	a.awaitStage("paired")
	b.awaitStage("paired")
	a.write(0, 1, 8192)
	a.flush()
	if got := a.dirty(); got != nil {
		t.Fatalf("paired: %q", got)
	}
	ask := func(h *host) <-chan error {
		asked := make(chan error, 1)
		go func() {
			_, _, err := export{h.vol().Volume}.NextDirty(context.Background(), 0, testSize)
			asked <- err
		}()
		return asked
	}
	asked := ask(b) // does not own the volume
	await(t, "the question is held", func() bool { return b.vol().Status().HeldOps == 1 })
	b.crash()
	if err := <-asked; !errors.Is(err, nbd.ErrGone) {
		t.Fatalf("a daemon that stops answered %v", err)
	}

	a.solo(2)
	a.write(4096, 3, 4096)
	a.write(1<<20, 4, 65536)
	if got, want := a.dirty(), []string{"4096+4096", "1048576+65536"}; !slices.Equal(got, want) {
		t.Fatalf("alone: %q, want %q", got, want)
	}
	a.grant(control.Grant{Mode: control.Revoked})
	asked = ask(a)
	await(t, "the question is held", func() bool { return a.vol().Status().HeldOps == 1 })
	a.solo(2)
	if err := <-asked; err != nil {
		t.Fatal(err)
	}
	b.start()
	p.rejoin(0, 2, 22)
	if got := a.dirty(); got != nil {
		t.Fatalf("after the copy: %q", got)
	}
}
