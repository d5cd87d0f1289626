package vms

import (
	"slices"
	"sync"

	"duet/appliance/internal/boottime"
)

// gate holds the permission to run guests. Closing it is a memory write: the lease guard calls it at the deadline and
// nothing may make it wait. It also closes by itself at the deadline of its permission, because the guard kills what runs
// at that moment: a permission that is written a moment later, by a driver that was held up, must not open it again.
type gate struct {
	mu    sync.Mutex
	right Right
	until int64 // CLOCK_BOOTTIME; 0: no deadline
}

func (g *gate) set(r Right, until int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.right = Right{Epoch: r.Epoch, IDs: slices.Clone(r.IDs)}
	g.until = until
}

func (g *gate) permits(id string, epoch uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.right.Epoch == epoch && g.right.Has(id) && (g.until == 0 || boottime.Now() < g.until)
}

// withdraw closes the gate for some VMs.
func (g *gate) withdraw(ids []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.right.IDs = slices.DeleteFunc(g.right.IDs, func(id string) bool { return slices.Contains(ids, id) })
}
