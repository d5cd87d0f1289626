package batch

import (
	"slices"
	"testing"
)

type noted struct {
	name string
	at   *[]string
	owes func()
}

func (n *noted) Flush() {
	*n.at = append(*n.at, n.name)
	if n.owes != nil {
		n.owes()
	}
}

// Each is flushed once a batch, in the order in which it was owed first; what a flush owes belongs to the same batch.
func TestEachOnce(t *testing.T) {
	var b Batch
	var done []string
	x, y := &noted{name: "x", at: &done}, &noted{name: "y", at: &done}
	x.owes = func() { b.Owe(y); x.owes = nil }
	for _, n := range []*noted{x, x, x} {
		b.Owe(n)
	}
	b.End()
	b.End()
	b.Owe(y)
	b.Owe(x)
	b.End()
	if want := []string{"x", "y", "y", "x"}; !slices.Equal(done, want) {
		t.Errorf("flushed %q, want %q", done, want)
	}
}
