package block

import (
	"testing"
)

func TestBuffersAreAlignedAndDistinct(t *testing.T) {
	seen := map[*byte]int{}
	var all [][]byte
	for _, n := range []int{1, Unit, Unit + 1, 3 * Unit, 64 << 10, BufferMax} {
		for range 3 {
			p := Get(n)
			if len(p) != n || !aligned(p) {
				t.Fatalf("Get(%d): %d bytes, aligned %v", n, len(p), aligned(p))
			}
			if other, twice := seen[&p[0]]; twice {
				t.Fatalf("buffer of %d is also one of %d", n, other)
			}
			seen[&p[0]] = n
			all = append(all, p)
		}
	}
	for _, p := range all {
		Put(p)
	}
	if p := Alloc(3 * Unit); !aligned(p) || len(p) != 3*Unit || cap(p) != 3*Unit {
		t.Fatal("Alloc")
	}
}

// A class that is used up goes on from the heap and takes only its own back.
func TestPoolIsBounded(t *testing.T) {
	var all [][]byte
	for range classBytesMax/BufferMax + 3 {
		all = append(all, Get(BufferMax))
	}
	for _, p := range all {
		if !aligned(p) {
			t.Fatal("crooked")
		}
		Put(p)
	}
	c := &pool[classOf(BufferMax)]
	if len(c.free) > classBytesMax/BufferMax {
		t.Fatalf("%d kept", len(c.free))
	}
}

func TestPutRefuses(t *testing.T) {
	p := Get(Unit)
	Put(p)
	panics(t, "twice", func() { Put(p) })
	q := Get(8 * Unit)
	panics(t, "a part of a buffer", func() { Put(q[Unit : 2*Unit : 2*Unit]); Put(q[Unit:]) })
	panics(t, "too large", func() { Get(BufferMax + 1) })
	panics(t, "empty", func() { Get(0) })
	panics(t, "nil", func() { Put(nil) })
	Put(q)
}

func panics(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	f()
}

func BenchmarkGetPut(b *testing.B) {
	for b.Loop() {
		Put(Get(Unit))
	}
}
