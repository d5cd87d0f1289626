package nbd

import (
	"context"
	"slices"
	"sync"
)

// rangeLock keeps the read-modify-write of ragged requests apart from all other changes of the same blocks, over
// all connections of an export. Requests of whole blocks share: their order is the volume's business. Waiting
// is first come, first served, and each request takes one range once, so there is no cycle.
type rangeLock struct {
	mu    sync.Mutex
	spans []*span // held and waiting, in order of arrival
	alone int     // of them, how many are alone
}

// span is one request's range.
type span struct {
	from, to int64
	alone    bool
	ahead    int // earlier spans it waits for
	ready    chan struct{}
}

func (s *span) conflicts(o *span) bool {
	return (s.alone || o.alone) && s.from < o.to && o.from < s.to
}

// lock returns when every earlier conflicting span is unlocked, or when ctx ends, without the lock.
func (l *rangeLock) lock(ctx context.Context, s *span) error {
	if l.enter(s) {
		return nil
	}
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		l.unlock(s)
		return ctx.Err()
	}
}

// try is lock of a span of whole blocks without waiting: false while any span is alone.
func (l *rangeLock) try(s *span) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.alone > 0 {
		return false
	}
	l.spans = append(l.spans, s)
	return true
}

// enter queues s and says whether it holds its range already.
func (l *rangeLock) enter(s *span) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.alone {
		l.alone++
	}
	if l.alone > 0 {
		for _, o := range l.spans {
			if s.conflicts(o) {
				s.ahead++
			}
		}
	}
	l.spans = append(l.spans, s)
	if s.ahead == 0 {
		return true
	}
	s.ready = make(chan struct{})
	return false
}

// unlock removes s, held or waiting, and lets those go that waited for it last.
func (l *rangeLock) unlock(s *span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.Index(l.spans, s)
	l.spans = slices.Delete(l.spans, at, at+1)
	if l.alone > 0 {
		for _, o := range l.spans[at:] {
			if s.conflicts(o) {
				if o.ahead--; o.ahead == 0 {
					close(o.ready)
				}
			}
		}
	}
	if s.alone {
		l.alone--
	}
}
