package nbd

import (
	"context"
	"sync"
)

// budget bounds what a connection has in flight. Only its reader takes, so there is one waiter at most.
type budget struct {
	mu       sync.Mutex
	requests int
	bytes    int64
	changed  chan struct{} // something was given back
}

func (b *budget) init() {
	b.requests, b.bytes = requestsMax, bytesMax
	b.changed = make(chan struct{}, 1)
}

// take waits until a request of so many bytes fits.
func (b *budget) take(ctx context.Context, bytes int64) error {
	for {
		if b.try(bytes) {
			return nil
		}
		select {
		case <-b.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// try is take without waiting.
func (b *budget) try(bytes int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	fits := b.requests > 0 && b.bytes >= bytes
	if fits {
		b.requests--
		b.bytes -= bytes
	}
	return fits
}

func (b *budget) give(bytes int64) {
	b.mu.Lock()
	b.requests++
	b.bytes += bytes
	b.mu.Unlock()
	select {
	case b.changed <- struct{}{}:
	default:
	}
}
