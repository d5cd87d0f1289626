package mirror

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"duet/replication/volume"
)

// Drain holds new requests to the named volumes, and to no others. Which of them have nothing under way any more comes
// within the limit of control.DrainLimit, or when the next Drain ends the wait. A volume that this node may not write just now is not
// drained: nobody knows then what its legs have.
func (m *Mirror) Drain(volumes []string) (<-chan []string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, volume.ErrClosed
	}
	for _, id := range volumes {
		if m.volumes[id] == nil {
			return nil, fmt.Errorf("unknown volume %s", id)
		}
	}
	if m.endWait != nil {
		m.endWait()
	}
	ctx, cancel := context.WithTimeout(m.ctx, m.drainLimit)
	m.endWait = cancel
	var held []*entry
	for id, e := range m.volumes {
		if slices.Contains(volumes, id) {
			e.vol.BeginDrain()
			held = append(held, e)
		} else {
			e.vol.EndDrain()
		}
	}
	result := make(chan []string, 1)
	m.spawn(func() {
		defer cancel()
		result <- drained(ctx, held)
	})
	return result, nil
}

// drained waits for all at once: each may take the whole time.
func drained(ctx context.Context, entries []*entry) []string {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var ids []string
	for _, e := range entries {
		wg.Go(func() {
			if e.vol.Drain(ctx) {
				mu.Lock()
				defer mu.Unlock()
				ids = append(ids, e.id)
			}
		})
	}
	wg.Wait()
	slices.Sort(ids)
	return ids
}
