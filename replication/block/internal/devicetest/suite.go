// Package devicetest is the conformance suite of block.Device. The file and the in-memory device both pass it;
// a further implementation (io_uring, LVM) is one when it does. It proves what can be seen through the
// interface: bytes, ranges, alignment, refusals, concurrent use, and the end of a closed device. What needs a
// look behind it (power cuts, the flags given to the kernel, dead devices) is tested beside each implementation.
package devicetest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"duet/replication/block"
)

// SizeBytes is the size of the device that Run wants.
const SizeBytes = 4 << 20

// Run runs the suite; open makes a fresh device of SizeBytes full of zeroes.
func Run(t *testing.T, open func(t *testing.T) block.Device) {
	for name, test := range map[string]func(*testing.T, block.Device){
		"fresh device reads zeroes":      fresh,
		"random operations match memory": model,
		"misuse is refused and harmless": misuse,
		"concurrent writers":             concurrent,
		"closed":                         closed,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func fresh(t *testing.T, d block.Device) {
	defer shut(t, d)
	if d.Size() != SizeBytes {
		t.Fatalf("size %d", d.Size())
	}
	p := filled(SizeBytes, 0xff)
	if err := d.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, make([]byte, SizeBytes)) {
		t.Fatal("not all zero")
	}
}

func model(t *testing.T, d block.Device) {
	defer shut(t, d)
	r := rand.New(rand.NewPCG(1, 2))
	want := make([]byte, SizeBytes)
	for i := range 300 {
		from := r.Int64N(SizeBytes / block.Unit)
		n := min(1+r.Int64N(300), SizeBytes/block.Unit-from) * block.Unit
		off := from * block.Unit
		durability := block.Cached + block.Durability(r.IntN(2))
		var err error
		switch r.IntN(4) {
		case 0:
			p := filled(int(n), byte(i))
			copy(want[off:], p)
			err = d.WriteAt(p, off, durability)
		case 1:
			clear(want[off : off+n])
			err = d.Zero(off, n, durability)
		case 2:
			err = d.Sync()
		case 3:
			p := filled(int(n), 0xee)
			if err = d.ReadAt(p, off); err == nil && !bytes.Equal(p, want[off:off+n]) {
				t.Fatalf("step %d: read at %d+%d differs", i, off, n)
			}
		}
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}

func misuse(t *testing.T, d block.Device) {
	defer shut(t, d)
	p := filled(2*block.Unit, 7)
	for _, c := range []struct {
		off, n int64
	}{
		{-block.Unit, block.Unit},
		{1, block.Unit},
		{512, block.Unit},
		{0, 1},
		{0, block.Unit + 512},
		{SizeBytes, block.Unit},
		{SizeBytes - block.Unit, 2 * block.Unit},
		{1<<63 - block.Unit, block.Unit},
	} {
		refused(t, "read", d.ReadAt(p[:c.n], c.off))
		refused(t, "write", d.WriteAt(p[:c.n], c.off, block.Cached))
		refused(t, "zero", d.Zero(c.off, c.n, block.Cached))
	}
	refused(t, "crooked memory", d.WriteAt(p[8:8+block.Unit], 0, block.Cached))
	refused(t, "crooked memory", d.ReadAt(p[8:8+block.Unit], 0))
	refused(t, "no durability", d.WriteAt(p[:block.Unit], 0, 0))
	refused(t, "no durability", d.Zero(0, block.Unit, 3))
	refused(t, "negative", d.Zero(0, -block.Unit, block.Cached))
	if err := d.ReadAt(p[:block.Unit], 0); err != nil {
		t.Fatalf("misuse must not kill: %v", err)
	}
	if p[0] != 0 {
		t.Fatal("a refused call wrote")
	}
	if err := d.WriteAt(p[:0], SizeBytes, block.Durable); err != nil {
		t.Fatalf("nothing at the end: %v", err)
	}
}

func refused(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, block.ErrInvalid) {
		t.Errorf("%s: %v, want ErrInvalid", what, err)
	}
}

// concurrent gives each of eight writers its own blocks, with syncs between, and looks for mixtures.
func concurrent(t *testing.T, d block.Device) {
	defer shut(t, d)
	const writers, rounds = 8, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				off := int64(w+writers*i) * block.Unit
				p := filled(block.Unit, byte(1+w))
				if err := d.WriteAt(p, off, block.Cached+block.Durability(i%2)); err != nil {
					t.Error(err)
				}
				if i%5 == 0 {
					if err := d.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	p := block.Alloc(writers * rounds * block.Unit)
	if err := d.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	for i := range writers * rounds {
		if want := filled(block.Unit, byte(1+i%writers)); !bytes.Equal(p[i*block.Unit:(i+1)*block.Unit], want) {
			t.Fatalf("block %d is not its writer's", i)
		}
	}
}

func closed(t *testing.T, d block.Device) {
	shut(t, d)
	p := block.Alloc(block.Unit)
	for what, err := range map[string]error{
		"read":  d.ReadAt(p, 0),
		"write": d.WriteAt(p, 0, block.Durable),
		"zero":  d.Zero(0, block.Unit, block.Cached),
		"sync":  d.Sync(),
		"close": d.Close(),
	} {
		if !errors.Is(err, block.ErrClosed) {
			t.Errorf("%s after close: %v", what, err)
		}
	}
}

func shut(t *testing.T, d block.Device) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func filled(n int, with byte) []byte {
	p := block.Alloc(n)
	for i := range p {
		p[i] = with
	}
	return p
}
