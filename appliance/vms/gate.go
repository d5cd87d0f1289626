package vms

import (
	"slices"
	"sync"
)

// gate holds the permission to run guests. Closing it is a memory write: the lease guard calls it at the deadline and
// nothing may make it wait.
type gate struct {
	mu    sync.Mutex
	right Right
}

func (g *gate) set(r Right) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.right = Right{Epoch: r.Epoch, IDs: slices.Clone(r.IDs)}
}

func (g *gate) permits(id string, epoch uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.right.Epoch == epoch && g.right.Has(id)
}

// withdraw closes the gate for some VMs.
func (g *gate) withdraw(ids []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.right.IDs = slices.DeleteFunc(g.right.IDs, func(id string) bool { return slices.Contains(ids, id) })
}
