package volume

import (
	"context"
	"slices"
	"sync"
)

// rangeLock is the overlap lock of replication.md 9.2: intervals of 4 KiB blocks, first come first served.
// Writes are exclusive, reads and resync pieces shared. A waiter queues behind every earlier overlapping one,
// so nobody starves, and enqueue never blocks, so the peer's frames lock in the order of their lane.
type rangeLock struct {
	mu    sync.Mutex
	queue []*claim // holders and waiters in order of arrival
}

// claim is one interval, waiting or held.
type claim struct {
	first, end int64
	exclusive  bool
	blockers   int
	behind     []*claim // later claims that wait for this one
	granted    chan struct{}
}

func (c *claim) conflicts(o *claim) bool {
	return c.first < o.end && o.first < c.end && (c.exclusive || o.exclusive)
}

// enqueue takes a place in the queue.
func (l *rangeLock) enqueue(first, blocks int64, exclusive bool) *claim {
	c := &claim{first: first, end: first + blocks, exclusive: exclusive, granted: atOnce}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.queue {
		if c.conflicts(o) {
			c.blockers++
			o.behind = append(o.behind, c)
		}
	}
	if c.blockers > 0 {
		c.granted = make(chan struct{})
	}
	l.queue = append(l.queue, c)
	return c
}

// atOnce is granted to who need not wait.
var atOnce = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// try is enqueue of an interval that nobody has or waits for; nil: somebody does.
func (l *rangeLock) try(first, blocks int64, exclusive bool) *claim {
	c := &claim{first: first, end: first + blocks, exclusive: exclusive, granted: atOnce}
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.ContainsFunc(l.queue, c.conflicts) {
		return nil
	}
	l.queue = append(l.queue, c)
	return c
}

// held says that a claim has its turn.
func (c *claim) held() bool {
	select {
	case <-c.granted:
		return true
	default:
		return false
	}
}

// lock waits for its turn, or leaves the queue when ctx ends.
func (l *rangeLock) lock(ctx context.Context, first, blocks int64, exclusive bool) (*claim, error) {
	c := l.enqueue(first, blocks, exclusive)
	select {
	case <-c.granted:
		return c, nil
	case <-ctx.Done():
		l.release(c)
		return nil, ctx.Err()
	}
}

// release gives a held claim back, or withdraws a waiting one.
func (l *rangeLock) release(c *claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.queue, c); i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
	}
	for _, w := range c.behind {
		if w.blockers--; w.blockers == 0 {
			close(w.granted)
		}
	}
	c.behind = nil
}
