package block

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needRing skips where the kernel has no io_uring for us: then nothing of it is used.
func needRing(t *testing.T) *ring {
	t.Helper()
	r := takeRing()
	if r == nil {
		t.Skip("this kernel has no io_uring, or not for this process")
	}
	return r
}

// A request that does not end is waited for no longer than wanted, ends later, and the ring is good for the next one.
func TestRingWaits(t *testing.T) {
	r := needRing(t)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	for range 3 {
		p := Get(Unit)
		r.begin(ringOpRead, pipe[0], p, -1)
		for range 5 {
			if n, done, err := r.wait(time.Millisecond); done || err != nil {
				t.Fatalf("%d bytes, %v, of an empty pipe", n, err)
			}
		}
		if _, err := unix.Write(pipe[1], []byte("late")); err != nil {
			t.Fatal(err)
		}
		if n, done, err := r.wait(0); !done || err != nil || string(p[:n]) != "late" {
			t.Fatalf("%d bytes, %v, %v", n, done, err)
		}
		Put(p)
	}
	r.begin(ringOpRead, -1, Get(Unit), 0)
	if _, done, err := r.wait(0); !done || !errors.Is(err, unix.EBADF) {
		t.Errorf("of no file: %v, %v", done, err)
	}
	giveRing(r)
}

// The file and the ring together: what a ring gives short or not at all is done the plain way, and a write that failed is not
// tried again.
func TestUnderWay(t *testing.T) {
	giveRing(needRing(t))
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, 8*Unit), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := Get(2 * Unit)
	defer Put(p)
	for _, err := range []error{nil, errNotIssued} { // nil: it did the first of two blocks
		clear(p)
		n := 0
		if err == nil {
			n = Unit
			copy(p, bytes.Repeat([]byte{7}, Unit))
		}
		if err := f.finish(ringOpRead, p[n:], int64(n), nil); err != nil || p[0] != 7 || p[len(p)-1] != 7 {
			t.Errorf("a read that ended after %d bytes: %v, %d %d", n, err, p[0], p[len(p)-1])
		}
	}
	u := f.beginWrite(p, 0)
	if done, err := u.wait(0); !done || err != nil {
		t.Fatal(done, err)
	}
	if f.beginRead(p, 7*Unit) != nil || f.beginRead(p[1:Unit], 0) != nil {
		t.Error("a call that makes no sense was begun")
	}
	if err := f.finish(ringOpRead, p, 0, unix.EIO); !errors.Is(err, unix.EIO) || f.alive() != nil {
		t.Errorf("a read error: %v, the device %v", err, f.alive())
	}
	wrote := 0
	f.sys.pwrite = func(_ int, p []byte, _ int64, _ int) (int, error) { wrote++; return len(p), nil }
	if err := f.finish(ringOpWrite, p, 0, unix.EIO); !errors.Is(err, ErrDead) || !errors.Is(err, unix.EIO) || wrote != 0 {
		t.Errorf("a write error: %v, then written %d times", err, wrote)
	}
	if f.beginRead(p, 0) != nil {
		t.Error("a dead device began a read")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// More at a time than there are rings.
func TestMoreThanRings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, make([]byte, 256*Unit), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w := NewWatch(f)
	var wg sync.WaitGroup
	for i := range 3 * ringsMax {
		wg.Go(func() {
			p := Get(Unit)
			defer Put(p)
			for round := range 20 {
				off := int64(i) * Unit
				copy(p, bytes.Repeat([]byte{byte(i + round)}, Unit))
				if err := w.WriteAt(p, off, Cached); err != nil {
					t.Error(err)
				}
				clear(p)
				if err := w.ReadAt(p, off); err != nil || p[0] != byte(i+round) || p[Unit-1] != byte(i+round) {
					t.Errorf("block %d: %v, %d", i, err, p[0])
				}
			}
		})
	}
	wg.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	rings.mu.Lock()
	defer rings.mu.Unlock()
	if rings.made != len(rings.free) || rings.made > ringsMax {
		t.Errorf("%d rings, %d of them free", rings.made, len(rings.free))
	}
}
