package block

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newFile makes a file of n zero bytes on the disk of the temporary directory.
func newFile(t *testing.T, n int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, make([]byte, n), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func openFile(t *testing.T, n int64) *File {
	t.Helper()
	f, err := OpenFile(newFile(t, n))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestOpenFileRefuses(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "odd")
	if err := os.WriteFile(odd, make([]byte, Unit+1), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(newFile(t, Unit), link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "none"): os.ErrNotExist,
		odd:                        ErrInvalid,
		dir:                        unix.EISDIR,
		link:                       unix.ELOOP,
	} {
		if _, err := OpenFile(path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
}

func TestSecondOpenIsLockedOut(t *testing.T) {
	path := newFile(t, Unit)
	first, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = OpenFile(path); !errors.Is(err, ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
	if err = first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := OpenFile(path)
	if err != nil {
		t.Fatalf("after close: %v", err)
	}
	second.Close()
}

// Durable must be RWF_DSYNC and Cached must not: the difference is a power cut's.
func TestDurabilityReachesTheKernel(t *testing.T) {
	f := openFile(t, 4*Unit)
	var flags []int
	f.sys.pwrite = func(fd int, p []byte, off int64, fl int) (int, error) {
		flags = append(flags, fl)
		return kernel.pwrite(fd, p, off, fl)
	}
	p := Alloc(Unit)
	for _, err := range []error{
		f.WriteAt(p, 0, Cached), f.WriteAt(p, 0, Durable), f.Zero(0, Unit, Cached), f.Zero(0, Unit, Durable),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []int{0, unix.RWF_DSYNC, 0, unix.RWF_DSYNC}
	if fmt.Sprint(flags) != fmt.Sprint(want) {
		t.Fatalf("flags %v, want %v", flags, want)
	}
}

// The kernel may interrupt a call and may do less than asked; neither is an error, both must come out whole.
func TestShortAndInterruptedCalls(t *testing.T) {
	f := openFile(t, 64*Unit)
	interrupted := false
	crooked := func() error {
		interrupted = !interrupted
		if interrupted {
			return unix.EINTR
		}
		return nil
	}
	f.sys.pwrite = func(fd int, p []byte, off int64, fl int) (int, error) {
		if err := crooked(); err != nil {
			return -1, err
		}
		n, err := kernel.pwrite(fd, p[:min(len(p), 3*Unit)], off, fl)
		return min(n, max(n-512, Unit)), err // not a multiple of the block
	}
	f.sys.pread = func(fd int, p []byte, off int64) (int, error) {
		if err := crooked(); err != nil {
			return -1, err
		}
		return kernel.pread(fd, p[:min(len(p), 5*Unit)], off)
	}
	f.sys.sync = func(fd int) error {
		if err := crooked(); err != nil {
			return err
		}
		return kernel.sync(fd)
	}
	want := Alloc(64 * Unit)
	for i := range want {
		want[i] = byte(i / 100)
	}
	got := Alloc(len(want))
	if err := errors.Join(f.WriteAt(want, 0, Cached), f.Sync(), f.ReadAt(got, 0)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("read is not what was written")
	}
}

func TestNoProgressIsAnError(t *testing.T) {
	f := openFile(t, Unit)
	f.sys.pread = func(int, []byte, int64) (int, error) { return 0, nil }
	if err := f.ReadAt(Alloc(Unit), 0); err == nil {
		t.Fatal("a read of nothing succeeded")
	}
	f.sys.pwrite = func(int, []byte, int64, int) (int, error) { return 512, nil }
	if err := f.WriteAt(Alloc(Unit), 0, Cached); !errors.Is(err, ErrDead) {
		t.Fatalf("a write without progress: %v", err)
	}
}

// TestBug16: a sync that fails once must never be retried into success (replication.md section 16).
func TestBug16SyncErrorIsFinal(t *testing.T) {
	f := openFile(t, 4*Unit)
	calls := 0
	f.sys.sync = func(fd int) error {
		if calls++; calls == 2 {
			return unix.EIO
		}
		return kernel.sync(fd)
	}
	p := Alloc(Unit)
	if err := errors.Join(f.Sync(), f.WriteAt(p, 0, Cached)); err != nil {
		t.Fatal(err)
	}
	isDead(t, "sync", f.Sync())
	isDead(t, "sync again", f.Sync())
	isDead(t, "read", f.ReadAt(p, 0))
	isDead(t, "write", f.WriteAt(p, 0, Durable))
	isDead(t, "zero", f.Zero(0, Unit, Cached))
	if calls != 2 {
		t.Fatalf("the kernel was asked %d times to sync, want 2", calls)
	}
}

func TestWriteErrorIsFinalReadErrorIsNot(t *testing.T) {
	f := openFile(t, 4*Unit)
	p := Alloc(Unit)
	f.sys.pread = func(int, []byte, int64) (int, error) { return -1, unix.EIO }
	if err := f.ReadAt(p, 0); !errors.Is(err, unix.EIO) || errors.Is(err, ErrDead) {
		t.Fatalf("read: %v", err)
	}
	if err := f.WriteAt(p, 0, Durable); err != nil {
		t.Fatalf("write after a read error: %v", err)
	}
	f.sys.pwrite = func(int, []byte, int64, int) (int, error) { return -1, unix.EIO }
	isDead(t, "write", f.WriteAt(p, 0, Cached))
	f.sys = kernel
	isDead(t, "sync", f.Sync())
}

func isDead(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, ErrDead) || !errors.Is(err, unix.EIO) {
		t.Errorf("%s: %v, want ErrDead with its first cause", what, err)
	}
}

// A write-back error that the kernel tells a durable write must not leave a Sync that ran at the same time
// with success: the Sync waits for it and sees the death.
func TestSyncSeesTheErrorOfAnOverlappingDurableWrite(t *testing.T) {
	f := openFile(t, 4*Unit)
	inWrite, syncDone, fail := make(chan struct{}), make(chan struct{}), make(chan struct{})
	f.sys.pwrite = func(int, []byte, int64, int) (int, error) {
		close(inWrite)
		<-fail
		return -1, unix.EIO
	}
	f.sys.sync = func(int) error { close(syncDone); return nil }
	var wg sync.WaitGroup
	wg.Go(func() { isDead(t, "write", f.WriteAt(Alloc(Unit), 0, Durable)) })
	<-inWrite
	wg.Go(func() { isDead(t, "sync", f.Sync()) })
	<-syncDone
	close(fail)
	wg.Wait()
}

func TestCloseWaitsForCalls(t *testing.T) {
	f := openFile(t, 4*Unit)
	in, release := make(chan struct{}), make(chan struct{})
	var open atomic.Bool
	open.Store(true)
	f.sys.pread = func(int, []byte, int64) (int, error) {
		close(in)
		<-release
		if !open.Load() {
			t.Error("closed under a read")
		}
		return Unit, nil
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.ReadAt(Alloc(Unit), 0); err != nil {
			t.Error(err)
		}
	})
	<-in
	wg.Go(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		open.Store(false)
	})
	close(release)
	wg.Wait()
}

// A killed owner's last requests may keep the lock for a moment after it has gone.
func TestOpenWaitsForTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, make([]byte, Unit), 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		second, err := OpenFile(path)
		if err == nil {
			err = second.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("opened or refused while it is locked: %v", err)
	case <-time.After(20 * time.Millisecond): // cannot be waited for: nothing happens
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}
