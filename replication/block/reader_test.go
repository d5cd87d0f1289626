package block

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func openReader(t *testing.T, path string) *Reader {
	t.Helper()
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// A Reader cannot write, keeps File out and lets other Readers in.
func TestReaderOnlyReads(t *testing.T) {
	path := newFile(t, 4*Unit)
	r := openReader(t, path)
	flags, err := unix.FcntlInt(uintptr(r.fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_NOATIME == 0 || r.Direct() != (flags&unix.O_DIRECT != 0) {
		t.Errorf("flags %#x, %v", flags, err)
	}
	if _, err := OpenFile(path); !errors.Is(err, ErrLocked) {
		t.Errorf("OpenFile beside a Reader: %v", err)
	}
	second := openReader(t, path)
	if err := errors.Join(r.Close(), second.Close()); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := OpenReader(path); !errors.Is(err, ErrLocked) {
		t.Errorf("OpenReader beside a File: %v", err)
	}
}

// A file that was cut off anywhere is read as far as whole blocks go.
func TestReaderOfACutFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, 2*Unit+100), 0o600); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, path)
	p := Alloc(2 * Unit)
	if err := r.ReadAt(p, 0); err != nil || r.Size() != 2*Unit+100 || p[len(p)-1] != 7 {
		t.Errorf("%v, size %d", err, r.Size())
	}
	if err := r.ReadAt(p[:Unit], 2*Unit); !errors.Is(err, ErrInvalid) {
		t.Errorf("beyond: %v", err)
	}
}

func TestOpenReaderRefuses(t *testing.T) {
	dir := t.TempDir()
	pipe, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.Symlink(newFile(t, Unit), link)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "none"): os.ErrNotExist,
		pipe:                       ErrInvalid,
		dir:                        ErrInvalid,
		link:                       unix.ELOOP,
	} {
		if _, err := OpenReader(path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
}

// A file system without O_DIRECT is read all the same, and that is said.
func TestReaderWithoutDirect(t *testing.T) {
	if r := openReader(t, "/proc/version"); r.Direct() || r.Size() != 0 {
		t.Errorf("direct %v, size %d", r.Direct(), r.Size())
	}
	if r := openReader(t, newFile(t, Unit)); !r.Direct() {
		t.Skip("the file system of the tests has no O_DIRECT")
	}
}
