package drive

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"
)

const testBlocks = 16

func newDrive(t interface {
	Helper()
	Fatal(...any)
	Cleanup(func())
}, dir string,
) *Drive {
	t.Helper()
	d, err := Open(filepath.Join(dir, "medium"), testBlocks*BlockBytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	d.front = 1 // as Attach does
	return d
}

// TestModel: any sequence of writes, FUA writes, flushes and cuts against a model that keeps, per sector, what is
// durable and what may be there. A cut leaves each sector durable or latest, within a block of unsynced sectors any mix.
func TestModel(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		if err := os.RemoveAll(filepath.Join(dir, "medium")); err != nil {
			rt.Fatal(err)
		}
		d := newDrive(rt, dir)
		const sectors = testBlocks * sectorsPerBlock
		var durable, latest [sectors]byte
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"write", "fua", "flush", "cut", "reset"}).Draw(rt, "op") {
			case "write":
				at, n, v := drawRange(rt)
				expect(rt, d.write(d.front, int64(at)*SectorBytes, bytes.Repeat([]byte{v}, n*SectorBytes), false))
				fill(latest[at:at+n], v)
			case "fua":
				at, n, v := drawRange(rt)
				expect(rt, d.write(d.front, int64(at)*SectorBytes, bytes.Repeat([]byte{v}, n*SectorBytes), true))
				fill(latest[at:at+n], v)
				fill(durable[at:at+n], v)
			case "flush":
				expect(rt, d.flush(d.front))
				durable = latest
			case "reset":
				d.Hold()
				d.Reset()
				d.front++
			case "cut":
				d.Hold()
				if err := d.Cut(Random, rng); err != nil {
					rt.Fatal(err)
				}
				d.front++
				is := sectorsOf(rt, d)
				for i := range is {
					if is[i] != durable[i] && is[i] != latest[i] {
						rt.Fatalf("sector %d holds %d after a cut: neither durable %d nor latest %d", i, is[i], durable[i], latest[i])
					}
				}
				durable, latest = is, is
			}
			if is := sectorsOf(rt, d); is != latest {
				rt.Fatalf("reads %v, written %v", is, latest)
			}
		}
	})
}

func drawRange(rt *rapid.T) (at, n int, v byte) {
	at = rapid.IntRange(0, testBlocks*sectorsPerBlock-1).Draw(rt, "at")
	n = rapid.IntRange(1, min(20, testBlocks*sectorsPerBlock-at)).Draw(rt, "n")
	return at, n, rapid.Byte().Draw(rt, "v")
}

func expect(t interface{ Fatal(...any) }, e syscall.Errno) {
	if e != 0 {
		t.Fatal(e)
	}
}

func fill(s []byte, v byte) {
	for i := range s {
		s[i] = v
	}
}

// sectorsOf reads the drive, each sector of one byte repeated.
func sectorsOf(rt *rapid.T, d *Drive) (out [testBlocks * sectorsPerBlock]byte) {
	b := make([]byte, testBlocks*BlockBytes)
	expect(rt, d.read(d.front, 0, b))
	for i := range out {
		s := b[i*SectorBytes : (i+1)*SectorBytes]
		out[i] = s[0]
		if !bytes.Equal(s, bytes.Repeat(s[:1], SectorBytes)) {
			rt.Fatalf("sector %d is torn within itself", i)
		}
	}
	return out
}

// TestSeed: one seed, one outcome; all three outcomes occur.
func TestSeed(t *testing.T) {
	outcome := func() ([]byte, uint64, uint64, uint64) {
		d := newDrive(t, t.TempDir())
		for i := range testBlocks {
			expect(t, d.write(1, int64(i*BlockBytes), bytes.Repeat([]byte{byte(i + 1)}, BlockBytes), false))
		}
		if err := d.Cut(Random, rand.New(rand.NewPCG(7, 7))); err != nil {
			t.Fatal(err)
		}
		d.front++
		b := make([]byte, testBlocks*BlockBytes)
		expect(t, d.read(d.front, 0, b))
		s := d.State()
		return b, s.LostBlocks, s.TornBlocks, s.KeptBlocks
	}
	a, lost, torn, kept := outcome()
	b, _, _, _ := outcome()
	if !bytes.Equal(a, b) {
		t.Error("one seed gave two outcomes")
	}
	if lost == 0 || torn == 0 || kept == 0 || lost+torn+kept != testBlocks {
		t.Errorf("lost %d, torn %d, kept %d of %d", lost, torn, kept, testBlocks)
	}
}

func TestRefuses(t *testing.T) {
	d := newDrive(t, t.TempDir())
	for _, tc := range []struct{ off, n int }{{1, 512}, {0, 100}, {-512, 512}, {testBlocks * BlockBytes, 512}} {
		if e := d.write(1, int64(tc.off), make([]byte, tc.n), false); e != syscall.EINVAL {
			t.Errorf("write of %d at %d: %v, want EINVAL", tc.n, tc.off, e)
		}
	}
	d.SetFault(OpFlush, &Fault{Skip: 1, Once: true})
	for k, want := range []syscall.Errno{0, syscall.EIO, 0} {
		if e := d.flush(1); e != want {
			t.Errorf("flush %d: %v, want %v", k, e, want)
		}
	}
	d.Reset()
	if e := d.read(1, 0, make([]byte, 512)); e != syscall.EIO {
		t.Errorf("a request of a former life: %v, want EIO", e)
	}
}

// TestFUAThroughFUSE: a direct write with O_DSYNC is one WRITE with a flag and no fsync follows. This is the trap of
// lab.md section 6: without the flag the data would be lost here.
func TestFUAThroughFUSE(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a FUSE mount needs root")
	}
	dir := t.TempDir()
	d := newDrive(t, dir)
	front, err := d.Attach(filepath.Join(dir, "front"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := front.Detach(); err != nil {
			t.Error(err)
		}
	})
	buf := aligned(BlockBytes)
	for i, flags := range []int{syscall.O_DIRECT | syscall.O_DSYNC, syscall.O_DIRECT} {
		fd := openRaw(t, front.File(), flags)
		fill(buf, byte(i+1))
		if _, err := syscall.Pwrite(fd, buf, int64(i*BlockBytes)); err != nil {
			t.Fatal(err)
		}
		if _, err := syscall.Pwrite(fd, buf[:100], 0); err == nil {
			t.Error("a write of 100 bytes was taken")
		}
		syscall.Close(fd)
	}
	if s := d.State(); s.FUA != 1 || s.Flushes != 0 || s.Writes != 2 {
		t.Errorf("the drive saw %+v, want 2 writes, one of them FUA, and no flush", s)
	}
	fd := openRaw(t, front.File(), 0)
	defer syscall.Close(fd)
	d.Hold()
	answered := make(chan error, 1)
	go func() {
		_, err := syscall.Pwrite(fd, make([]byte, 512), 2*BlockBytes)
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("a held drive answered %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := d.Cut(Drop, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-answered:
		if err == nil {
			t.Error("a request held at the cut succeeded")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("a request held at the cut is still not answered")
	}
	medium := make([]byte, 2*BlockBytes)
	if _, err := d.medium.ReadAt(medium, 0); err != nil {
		t.Fatal(err)
	}
	if medium[0] != 1 || medium[BlockBytes] != 0 {
		t.Errorf("after the cut the medium has %d (FUA, want 1) and %d (unsynced, want 0)", medium[0], medium[BlockBytes])
	}
}

// openRaw opens without os.File: its registration with epoll asks the FUSE server, in this same process, to poll, and
// can block the runtime that would have to answer.
func openRaw(t *testing.T, path string, flags int) int {
	t.Helper()
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func aligned(n int) []byte {
	b := make([]byte, n+4096)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) & 4095)
	return b[skip : skip+n]
}
