package volume

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
)

func granted(c *claim) bool {
	select {
	case <-c.granted:
		return true
	default:
		return false
	}
}

func TestLockIsFirstComeFirstServed(t *testing.T) {
	var l rangeLock
	w := l.enqueue(10, 10, true)
	r1 := l.enqueue(15, 1, false)
	r2 := l.enqueue(30, 5, false)
	w2 := l.enqueue(12, 20, true) // overlaps all three
	r3 := l.enqueue(12, 1, false) // behind w2, although only w holds its block
	if !granted(w) || granted(r1) || !granted(r2) || granted(w2) || granted(r3) {
		t.Fatal("first round")
	}
	l.release(w)
	if !granted(r1) || granted(w2) || granted(r3) {
		t.Fatal("second round")
	}
	l.release(r1)
	if granted(w2) {
		t.Fatal("a reader was passed")
	}
	l.release(r2)
	if !granted(w2) || granted(r3) {
		t.Fatal("third round")
	}
	l.release(w2)
	if !granted(r3) {
		t.Fatal("last round")
	}
}

func TestLockWithdrawnWaiterLetsOthersPass(t *testing.T) {
	var l rangeLock
	r := l.enqueue(0, 4, false)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.lock(ctx, 0, 4, true); err == nil && !granted(r) {
		t.Fatal("two holders")
	}
	if late := l.enqueue(0, 4, false); !granted(late) {
		t.Fatal("a withdrawn writer still blocks readers")
	}
}

// Against a model: no two overlapping holders of which one is exclusive, and everybody gets a turn.
func TestLockRace(t *testing.T) {
	var l rangeLock
	var mu sync.Mutex
	const blocks = 64
	var readers, writers [blocks]int
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for range 500 {
				first := r.Int64N(blocks)
				n := 1 + r.Int64N(blocks-first)
				exclusive := r.IntN(2) == 0
				c, err := l.lock(context.Background(), first, n, exclusive)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for b := first; b < first+n; b++ {
					if writers[b] > 0 || exclusive && readers[b] > 0 {
						t.Errorf("block %d: %d writers, %d readers", b, writers[b], readers[b])
					}
					if exclusive {
						writers[b]++
					} else {
						readers[b]++
					}
				}
				mu.Unlock()
				mu.Lock()
				for b := first; b < first+n; b++ {
					if exclusive {
						writers[b]--
					} else {
						readers[b]--
					}
				}
				mu.Unlock()
				l.release(c)
			}
		})
	}
	wg.Wait()
	if len(l.queue) != 0 {
		t.Errorf("%d claims left", len(l.queue))
	}
}
