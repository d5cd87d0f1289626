package vms

import (
	"slices"
	"sync"

	"duet/appliance/internal/boottime"
)

// gate holds the permission to run guests. Closing it is a memory write: the lease guard calls it at the deadline and
// nothing may make it wait. It also closes by itself at the deadline of its permission, because the guard kills what runs
// at that moment: a permission that is written a moment later, by a driver that was held up, must not open it again.
//
// A start begins under the epoch of its order and may end under a later one: a commit of the pair raises the epoch while the
// right goes on. What must not have happened in between is an interruption, so each permission has a number (ticket) that only
// an interruption changes.
type gate struct {
	mu      sync.Mutex
	right   Right
	until   int64             // CLOCK_BOOTTIME; 0: no deadline
	tickets map[string]uint64 // of the ids of right
	last    uint64
}

func (g *gate) set(r Right, until int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	goesOn := g.open()
	tickets := map[string]uint64{}
	for _, id := range r.IDs {
		if n, had := g.tickets[id]; had && goesOn && g.right.Has(id) {
			tickets[id] = n
			continue
		}
		g.last++
		tickets[id] = g.last
	}
	g.right = Right{Epoch: r.Epoch, IDs: slices.Clone(r.IDs)}
	g.until, g.tickets = until, tickets
}

// open: the caller holds mu.
func (g *gate) open() bool { return g.until == 0 || boottime.Now() < g.until }

// permits says whether a VM may be started under an epoch, and gives the ticket of that permission.
func (g *gate) permits(id string, epoch uint64) (ticket uint64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tickets[id], g.right.Epoch == epoch && g.right.Has(id) && g.open()
}

// holds says whether the permission of a ticket goes on, without an interruption since.
func (g *gate) holds(id string, ticket uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.right.Has(id) && g.tickets[id] == ticket && g.open()
}

// withdraw closes the gate for some VMs.
func (g *gate) withdraw(ids []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.right.IDs = slices.DeleteFunc(g.right.IDs, func(id string) bool { return slices.Contains(ids, id) })
}
