package nbd

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// guarded is a volume whose right to answer a test takes and gives.
type guarded struct {
	*ram
	live  atomic.Bool
	term  atomic.Uint64
	waits atomic.Int64
	back  chan struct{}
}

func (g *guarded) Live() bool   { return g.live.Load() }
func (g *guarded) Term() uint64 { return g.term.Load() }
func (g *guarded) Wait(ctx context.Context) error {
	g.waits.Add(1)
	select {
	case <-g.back:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// termless is a Guard without Terms.
type termless struct {
	Volume
	Guard
}

type guardedBackend struct {
	*memory
	v     *guarded
	terms bool
}

func (b guardedBackend) Open(context.Context, string) (Volume, error) {
	b.v.opened(1)
	if !b.terms {
		return termless{b.v, b.v}, nil
	}
	return b.v, nil
}

// Proves the reply half of replication.md section 7: no reply leaves after the deadline; when the right comes back,
// writes are answered and reads are done again.
func TestNoReplyWithoutTheRight(t *testing.T) {
	t.Run("terms", func(t *testing.T) { noReplyWithoutTheRight(t, true) })
	t.Run("no terms", func(t *testing.T) { noReplyWithoutTheRight(t, false) })
}

func noReplyWithoutTheRight(t *testing.T, terms bool) {
	m := newMemory(t, map[string]int64{"disk": 1 << 20})
	v := &guarded{ram: m.volumes["disk"], back: make(chan struct{})}
	v.live.Store(true)
	s := startOn(t, m, guardedBackend{m, v, terms})
	c := enter(t, s, "disk")
	c.send(cmdWrite, 0, 1, 0, 4096, block4(1))
	c.expect(1, eOK, 0)

	// The deadline passes after the volume answered and before the reply goes out.
	var expire sync.Once
	v.hook(func(context.Context, string, int64, int64) error {
		expire.Do(func() { v.live.Store(false) })
		return nil
	})
	c.send(cmdRead, 0, 2, 0, 4096, nil)
	await(t, "the server waits for the right", func() bool { return v.waits.Load() == 1 })
	c.send(cmdWrite, 0, 3, 4096, 4096, block4(3))
	c.silent(50 * time.Millisecond)
	v.mu.Lock()
	copy(v.data, block4(9)) // elsewhere somebody wrote
	v.mu.Unlock()
	v.term.Add(1)
	v.live.Store(true)
	close(v.back)
	for range 2 {
		switch cookie, err := c.reply(); {
		case cookie == 2 && err == eOK:
			if got := c.take(4096); !bytes.Equal(got, block4(9)) {
				t.Fatalf("a stale read was answered: %d", got[0])
			}
		case cookie != 3 || err != eOK:
			t.Fatalf("reply to %d: %d", cookie, err)
		}
	}

	if !terms {
		return
	}
	// A term that changed unseen, between read and reply, counts, too.
	var again atomic.Int64
	v.hook(func(context.Context, string, int64, int64) error {
		if again.Add(1) == 1 {
			v.term.Add(1)
		}
		return nil
	})
	c.send(cmdRead, 0, 4, 0, 4096, nil)
	c.expect(4, eOK, 4096)
	if again.Load() != 2 {
		t.Fatalf("read %d times", again.Load())
	}

	// So does what is said about blocks.
	c = enter(t, s, "disk", structured, both)
	again.Store(0)
	c.send(cmdBlockStatus, 0, 5, 0, 8192, nil)
	c.chunk()
	if got := c.chunk().extents(t, duetDirty); again.Load() != 2 || len(got) != 1 {
		t.Fatalf("asked %d times: %q", again.Load(), got)
	}
}
