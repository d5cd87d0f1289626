package nbd

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"duet/replication/block"
	"duet/replication/internal/batch"
)

// memory is a backend of volumes in RAM, with the contract of Volume checked on every call.
type memory struct {
	t       testing.TB
	mu      sync.Mutex
	volumes map[string]*ram
}

func newMemory(t testing.TB, sizes map[string]int64) *memory {
	m := &memory{t: t, volumes: map[string]*ram{}}
	for name, size := range sizes {
		m.volumes[name] = &ram{t: t, data: make([]byte, size), dirty: make([]bool, size/block.Unit)}
	}
	return m
}

func (m *memory) Exports() []Export {
	return []Export{{Name: "disk", Description: "the test disk"}, {Name: "other"}}
}

func (m *memory) Open(ctx context.Context, name string) (Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.volumes[name]
	if v == nil {
		return nil, ErrUnknown
	}
	v.opened(1)
	return v, nil
}

// ram is one volume. before, if set, runs at the begin of each call.
type ram struct {
	t      testing.TB
	mu     sync.Mutex
	data   []byte
	dirty  []bool // by block
	open   int
	calls  []string
	record bool
	turn   int
	before func(ctx context.Context, call string, off, n int64) error
}

// hook sets before; watch begins to record; called is what was recorded.
func (r *ram) hook(before func(ctx context.Context, call string, off, n int64) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = before
}

func (r *ram) watch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record = true
}

func (r *ram) called() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.calls, ",")
}

func (r *ram) isOpen() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open > 0
}

func (r *ram) opened(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open += n
}

func (r *ram) enter(ctx context.Context, call string, off, n int64) error {
	r.mu.Lock()
	if r.record {
		r.calls = append(r.calls, call)
	}
	before := r.before
	if (off|n)%block.Unit != 0 || off < 0 || n < 0 || off+n > int64(len(r.data)) || n > PieceBytesMax {
		r.t.Errorf("%s %d+%d breaks the contract", call, off, n)
	}
	r.mu.Unlock()
	if before != nil {
		return before(ctx, call, off, n)
	}
	return nil
}

func (r *ram) buffer(p []byte) {
	if uintptr(unsafe.Pointer(&p[0]))%block.Unit != 0 {
		r.t.Error("crooked buffer")
	}
}

func (r *ram) Size() int64 { return int64(len(r.data)) }

func (r *ram) ReadAt(ctx context.Context, p []byte, off int64) error {
	r.buffer(p)
	if err := r.enter(ctx, "read", off, int64(len(p))); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	copy(p, r.data[off:])
	return nil
}

func (r *ram) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	r.buffer(p)
	call := "write"
	if fua {
		call = "write fua"
	}
	if err := r.enter(ctx, call, off, int64(len(p))); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	copy(r.data[off:], p)
	return nil
}

// asBeginner decides by turns how a request that could be begun goes: not at all, at once, or in a goroutine with a batch of its own.
// So the tests of this package are of each way. One with a hook may have to wait.
func (r *ram) asBeginner(b *batch.Batch, carryOut func(b *batch.Batch)) bool {
	r.mu.Lock()
	r.turn++
	turn, hooked := r.turn%3, r.before != nil
	r.mu.Unlock()
	switch {
	case turn == 0:
		return false
	case turn == 1 && !hooked:
		carryOut(b)
	default:
		go func() {
			var own batch.Batch
			carryOut(&own)
			own.End()
		}()
	}
	return true
}

func (r *ram) BeginRead(ctx context.Context, b *batch.Batch, off, n int64, done func(*batch.Batch, []byte, error)) bool {
	return r.asBeginner(b, func(b *batch.Batch) {
		p := block.Get(int(n))
		err := r.ReadAt(ctx, p, off)
		if err != nil {
			block.Put(p)
			p = nil
		}
		done(b, p, err)
	})
}

func (r *ram) BeginWrite(ctx context.Context, b *batch.Batch, p []byte, off int64, done func(*batch.Batch, error)) bool {
	return r.asBeginner(b, func(b *batch.Batch) { done(b, r.WriteAt(ctx, p, off, false)) })
}

func (r *ram) BeginFlush(ctx context.Context, b *batch.Batch, done func(*batch.Batch, error)) bool {
	return r.asBeginner(b, func(b *batch.Batch) { done(b, r.Flush(ctx)) })
}

func (r *ram) Flush(ctx context.Context) error { return r.enter(ctx, "flush", 0, 0) }

func (r *ram) Zero(ctx context.Context, off, n int64, fua bool) error {
	if err := r.enter(ctx, "zero", off, n); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.data[off : off+n])
	return nil
}

func (r *ram) Trim(ctx context.Context, off, n int64) error { return r.enter(ctx, "trim", off, n) }

// mark makes blocks dirty.
func (r *ram) mark(from, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range n {
		r.dirty[from+i] = true
	}
}

func (r *ram) NextDirty(ctx context.Context, off, end int64) (from, n int64, err error) {
	if (off|end)%block.Unit != 0 || off >= end || end > r.Size() {
		r.t.Errorf("dirty %d..%d breaks the contract", off, end)
	}
	if err := r.enter(ctx, "dirty", off, 0); err != nil {
		return 0, 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for at := off; at < end; at += block.Unit {
		switch {
		case r.dirty[at/block.Unit] && n == 0:
			from, n = at, block.Unit
		case r.dirty[at/block.Unit]:
			n += block.Unit
		case n > 0:
			return from, n, nil
		}
	}
	return from, n, nil
}

func (r *ram) Close() { r.opened(-1) }

func (r *ram) contents() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.data)
}

// running is a server under test on a unix socket.
type running struct {
	backend *memory
	path    string
	stop    func()
}

// start serves until the test ends, and then checks that every volume was closed.
func start(t testing.TB, b *memory) *running {
	t.Helper()
	return startOn(t, b, b)
}

// startOn serves what a backend makes of the volumes of b.
func startOn(t testing.TB, b *memory, as Backend) *running {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nbd.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, as) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Serve: %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("Serve does not return")
			}
			for name, v := range b.volumes {
				if v.isOpen() {
					t.Errorf("volume %s stayed open", name)
				}
			}
		})
	}
	t.Cleanup(stop)
	return &running{backend: b, path: path, stop: stop}
}
