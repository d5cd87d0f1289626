package pool

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"duet/replication/block"
	"duet/replication/meta"
)

func id(b byte) meta.ID { return meta.ID(bytes.Repeat([]byte{b}, 16)) }

func spec(b byte, size int64) Spec {
	return Spec{Site: id(0xee), Volume: id(b), Node: 1, SizeBytes: size, Software: "test"}
}

func openDir(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func create(t *testing.T, d *Dir, s Spec) {
	t.Helper()
	if err := d.Create(t.Context(), s, nil); err != nil {
		t.Fatal(err)
	}
}

// whole checks everything a new leg promises.
func whole(t *testing.T, d *Dir, s Spec) {
	t.Helper()
	data, metadata, err := d.Open(s.Volume)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	defer metadata.Close()
	if data.Size() != s.SizeBytes {
		t.Fatalf("data has %d bytes", data.Size())
	}
	p := block.Alloc(int(s.SizeBytes))
	if err = data.ReadAt(p, 0); err != nil || !bytes.Equal(p, make([]byte, len(p))) {
		t.Fatalf("not zero: %v", err)
	}
	m, err := meta.Open(metadata)
	if err != nil {
		t.Fatal(err)
	}
	sb := m.Super()
	if sb.State != meta.New || sb.Site != s.Site || sb.Volume != s.Volume || sb.Node != s.Node || sb.Leg.IsZero() ||
		sb.Flags != meta.FlagZeroed || sb.VolumeBytes != uint64(s.SizeBytes) || m.BadPages() != 0 {
		t.Fatalf("%+v", sb)
	}
}

func TestCreateOpenListRemove(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	var last, calls int64
	s := spec(2, 9<<20)
	err := d.Create(t.Context(), s, func(done, total int64) {
		if done <= last || total != s.SizeBytes {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
		calls++
	})
	if err != nil || last != s.SizeBytes || calls < 3 {
		t.Fatalf("%v, progress %d in %d calls", err, last, calls)
	}
	create(t, d, spec(1, 4096))
	whole(t, d, s)
	whole(t, d, spec(1, 4096))
	if err = os.Mkdir(filepath.Join(path, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	list, err := d.List()
	if want := []Entry{{id(1), 4096}, {id(2), 9 << 20}}; err != nil || !slices.Equal(list, want) {
		t.Fatalf("%v %v", list, err)
	}
	for range 2 { // twice: the first trash stays
		if err := d.Remove(id(2)); err != nil {
			t.Fatal(err)
		}
		create(t, d, s)
	}
	for _, name := range []string{"", ".1"} {
		if _, err := os.Stat(filepath.Join(path, trashPrefix+id(2).String()+name, dataName)); err != nil {
			t.Error(err)
		}
	}
	if err := d.Purge(); err != nil {
		t.Fatal(err)
	}
	if left := names(t, path, trashPrefix); len(left) != 0 {
		t.Fatalf("left %v", left)
	}
	whole(t, d, s)
}

func TestRefusals(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	create(t, d, spec(1, 8192))
	free, err := d.Free()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		s    Spec
		want error
	}{
		{"odd size", spec(2, 4097), ErrSize},
		{"no size", spec(2, 0), ErrSize},
		{"negative", spec(2, -4096), ErrSize},
		{"exists", spec(1, 8192), ErrExists},
		{"exists with another size", spec(1, 4096), ErrExists},
		{"full", spec(2, free&^4095), ErrFull},
		{"absurd", spec(2, 1<<62), ErrFull},
	} {
		if err = d.Create(t.Context(), c.s, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, _, err = d.Open(id(9)); !errors.Is(err, ErrMissing) {
		t.Errorf("open: %v", err)
	}
	if err = d.Remove(id(9)); !errors.Is(err, ErrMissing) {
		t.Errorf("remove: %v", err)
	}
	if _, err = OpenDir(path); !errors.Is(err, ErrLocked) {
		t.Errorf("second user: %v", err)
	}
	if _, err = OpenDir(filepath.Join(path, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	data, _, err := d.Open(id(1))
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	if err := d.Remove(id(1)); !errors.Is(err, block.ErrLocked) {
		t.Errorf("remove while open: %v", err)
	}
}

func TestCancelledCreateLeavesNothing(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	err := d.Create(ctx, spec(1, 20<<20), func(done, total int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if left := names(t, path, ""); len(left) != 0 {
		t.Fatalf("left %v", left)
	}
}

// A crash before any step of Create or Remove: the next start finds no leg or a whole one, and can go on.
func TestCrashAtEveryStep(t *testing.T) {
	s := spec(1, 1<<20)
	order := []string{
		"make folder", "allocate data", "allocate meta", "write zeroes", "format meta", "sync folder", "rename", "sync pool",
	}
	for i := range order {
		path := t.TempDir()
		d := openDir(t, path)
		var seen []string
		d.step = func(what string) error {
			if seen = append(seen, what); len(seen) > i {
				return errCrash
			}
			return nil
		}
		if err := d.Create(t.Context(), s, nil); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		if !slices.Equal(seen, order[:i+1]) {
			t.Fatalf("steps %v", seen)
		}
		d.Close()
		d = openDir(t, path)
		if left := names(t, path, newPrefix); len(left) != 0 {
			t.Fatalf("crash before %q: %v left", order[i], left)
		}
		list, err := d.List()
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			create(t, d, s)
		}
		whole(t, d, s)
		if got := i == len(order)-1; got != (len(list) == 1) {
			t.Fatalf("crash before %q: %d legs", order[i], len(list))
		}
		crashInRemove(t, d, path, s, i%2)
	}
}

func crashInRemove(t *testing.T, d *Dir, path string, s Spec, at int) {
	n := 0
	d.step = func(string) error {
		if n++; n > at {
			return errCrash
		}
		return nil
	}
	if err := d.Remove(s.Volume); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	d.Close()
	d = openDir(t, path)
	list, err := d.List()
	if err != nil || len(list) != 1-at {
		t.Fatalf("crash in remove at %d: %v %v", at, list, err)
	}
	if at == 0 {
		whole(t, d, s)
	}
}

// A failed step cleans up behind itself.
func TestErrorLeavesNothing(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	boom := errors.New("boom")
	d.step = func(what string) error {
		if what == "rename" {
			return boom
		}
		return nil
	}
	if err := d.Create(t.Context(), spec(1, 4096), nil); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if left := names(t, path, ""); len(left) != 0 {
		t.Fatalf("left %v", left)
	}
}

func names(t *testing.T, path, prefix string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(path, prefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}
