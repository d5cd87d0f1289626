package block

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"duet/replication/internal/batch"
)

// queuedFile is a file of eight blocks, of 0 to 7, with a queue.
func queuedFile(t *testing.T) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data")
	var content []byte
	for i := range byte(8) {
		content = append(content, bytes.Repeat([]byte{i}, Unit)...)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) //nolint:errcheck // perhaps closed already
	p, told, b := Get(Unit), make(chan error), batch.Batch{}
	if !f.begin(&b, opRead, p, 0, func(_ *batch.Batch, err error) { told <- err }) {
		t.Skip("this kernel has no asynchronous I/O, or not for this process")
	}
	b.End()
	if err := <-told; err != nil {
		t.Fatal(err)
	}
	Put(p)
	return f
}

// Whatever the kernel says to a request, its end is told once: what was not begun, or is short, is done the plain way, and a write or a sync
// that failed is not tried again and kills the device.
func TestQueueEnds(t *testing.T) {
	type plain struct{ reads, writes, syncs int }
	for name, c := range map[string]struct {
		op     uint16
		res    int64
		plain  plain
		fails  error
		deadly bool
	}{
		"read":              {op: opRead, res: 2 * Unit},
		"short read":        {op: opRead, res: Unit + 512, plain: plain{reads: 1}},
		"read, no room":     {op: opRead, res: -int64(unix.EAGAIN), plain: plain{reads: 1}},
		"bad sector":        {op: opRead, res: -int64(unix.EIO), fails: unix.EIO},
		"write":             {op: opWrite, res: 2 * Unit},
		"short write":       {op: opWrite, res: Unit, plain: plain{writes: 1}},
		"write, no room":    {op: opWrite, res: -int64(unix.EAGAIN), plain: plain{writes: 1}},
		"write error":       {op: opWrite, res: -int64(unix.EIO), fails: unix.EIO, deadly: true},
		"sync":              {op: opSync},
		"sync error":        {op: opSync, res: -int64(unix.EIO), fails: unix.EIO, deadly: true},
		"sync, tried again": {op: opSync, res: -int64(unix.EAGAIN), fails: unix.EAGAIN, deadly: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := queuedFile(t)
			var did plain
			f.sys.pread = func(fd int, p []byte, off int64) (int, error) { did.reads++; return unix.Pread(fd, p, off) }
			f.sys.pwrite = func(fd int, p []byte, off int64, _ int) (int, error) { did.writes++; return unix.Pwrite(fd, p, off) }
			f.sys.sync = func(fd int) error { did.syncs++; return unix.Fdatasync(fd) }
			told := make(chan error, 2)
			end := func(_ *batch.Batch, err error) { told <- err }
			p := Get(2 * Unit)
			defer Put(p)
			var b batch.Batch
			begun := false
			if c.op == opSync {
				begun = f.beginSync(&b, end)
			} else {
				begun = f.begin(&b, c.op, p, 4*Unit, end)
			}
			if !begun {
				t.Fatal("not begun")
			}
			f.queue.begun = nil // the test is the kernel
			i := uint64(0)
			for f.queue.slots[i].end == nil {
				i++
			}
			f.queue.completed(&b, completion{data: i, res: c.res})
			err := <-told
			if !errors.Is(err, c.fails) || errors.Is(err, ErrDead) != c.deadly {
				t.Errorf("told %v", err)
			}
			if did != c.plain {
				t.Errorf("the plain way: %+v, want %+v", did, c.plain)
			}
			if c.op == opRead && c.plain.reads > 0 && p[2*Unit-1] != 5 {
				t.Error("the rest was not read")
			}
			if err := f.ReadAt(p, 0); errors.Is(err, ErrDead) != c.deadly {
				t.Errorf("afterwards: %v", err)
			}
			if err := f.Close(); err != nil || len(told) > 0 {
				t.Errorf("close: %v; %d more ends", err, len(told))
			}
		})
	}
}

// More than the queue has slots for, in one batch: all are told, each once, also what went the plain way.
func TestMoreThanTheQueueHolds(t *testing.T) {
	f := queuedFile(t)
	w := NewWatch(f)
	const n = 3 * queueDepth
	told := make(chan byte, n+1)
	var b batch.Batch
	for i := range n {
		off := int64(i%8) * Unit
		w.BeginRead(&b, off, Unit, func(_ *batch.Batch, p []byte, err error) {
			if err != nil || p[0] != byte(off/Unit) {
				t.Errorf("block %d: %v", off/Unit, err)
			}
			told <- p[0]
			Put(p)
		})
	}
	b.End()
	for range n {
		<-told
	}
	if err := w.Close(); err != nil || len(told) > 0 {
		t.Errorf("close: %v; %d too many", err, len(told))
	}
}

// A request in the queue is given up like any other one, and its memory is nobody's until it has ended.
func TestAbandonInTheQueue(t *testing.T) {
	w := NewWatch(queuedFile(t))
	var b batch.Batch
	told := make(chan error, 3)
	w.BeginRead(&b, 0, Unit, func(_ *batch.Batch, _ []byte, err error) { told <- err })
	w.BeginWrite(&b, Get(Unit), Unit, Cached, func(_ *batch.Batch, err error) { told <- err })
	w.BeginSync(&b, func(_ *batch.Batch, err error) { told <- err })
	w.Abandon(errors.New("too slow"))
	for range 3 {
		if err := <-told; !errors.Is(err, ErrDead) {
			t.Errorf("told %v", err)
		}
	}
	if n := len(w.running); n != 3 {
		t.Errorf("%d requests are under way", n)
	}
	b.End()
	if err := w.Close(); err != nil || len(told) > 0 {
		t.Errorf("close: %v; %d told twice", err, len(told))
	}
}

// One sync at a time, whichever way: the kernel tells one caller only of a lost write-back.
func TestOneSyncAtATime(t *testing.T) {
	f := queuedFile(t)
	var b batch.Batch
	told := make(chan error, 1)
	if !f.beginSync(&b, func(_ *batch.Batch, err error) { told <- err }) {
		t.Fatal("not begun")
	}
	if f.beginSync(&b, nil) || f.syncing.TryLock() {
		t.Error("a second one began")
	}
	b.End()
	if err := <-told; err != nil {
		t.Error(err)
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
}
