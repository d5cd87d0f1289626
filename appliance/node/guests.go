package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
	"duet/appliance/vms"
)

// Times of the guests' manager.
const (
	guestRound    = 2 * time.Second  // how often libvirt is asked for paused or unwanted guests
	startPatience = 30 * time.Second // one start; under TCG on a busy machine QEMU alone took up to 6 s
)

// guests turns VMs and volumes into resources for the core: which are wanted, which run, start and stop them.
type guests struct {
	node *Node

	mu       sync.Mutex
	starting map[membership.ResourceID]bool
	seen     []vms.Seen
	seenAt   time.Time
}

// Permit opens the gate of the VM manager for the VMs among these resources, up to the grant's deadline.
func (g *guests) Permit(epoch membership.Epoch, rs membership.Resources, until membership.Boottime) {
	if rs == 0 {
		g.node.vms.Forbid()
		return
	}
	g.node.vms.Permit(uint64(epoch), g.ids(rs), int64(until))
}

func (g *guests) ids(rs membership.Resources) []string {
	doc, ok := g.node.document()
	if !ok {
		return nil
	}
	var ids []string
	for _, vm := range doc.VMs {
		if rs.Has(membership.ResourceID(vm.Slot)) { //nolint:gosec // bounded by site.Check
			ids = append(ids, vm.ID)
		}
	}
	return ids
}

// Start begins to run what a resource needs; an unattached volume needs nothing but its grant.
func (g *guests) Start(r membership.ResourceID, epoch membership.Epoch) {
	doc, ok := g.node.document()
	if !ok {
		return
	}
	vm, ok := doc.VMBySlot(int(r))
	if !ok || g.node.store.Runtime().StoppedVMs[vm.ID] {
		return // its volumes are served from here by the grant; nothing else is wanted
	}
	g.mu.Lock()
	busy := g.starting[r]
	g.starting[r] = true
	g.mu.Unlock()
	if busy {
		return
	}
	g.node.driver.Note("vm-starting", vm.Name)
	g.node.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(g.node.ctx, startPatience)
		defer cancel()
		err := g.node.vms.Start(ctx, vm, uint64(epoch))
		g.mu.Lock()
		delete(g.starting, r)
		g.mu.Unlock()
		if err != nil {
			g.node.log.Error("VM does not start", "vm", vm.Name, "error", err.Error())
			g.node.faults.raise(event.As(err))
			return
		}
		g.node.faults.clear(event.VMStartFailed)
		g.node.driver.Note("vm-running", vm.Name)
	})
}

// Stop kills the VMs among these resources.
func (g *guests) Stop(ctx context.Context, rs membership.Resources) error {
	ids := g.ids(rs)
	if len(ids) == 0 {
		return nil
	}
	return g.node.vms.Kill(ctx, ids)
}

// StopAll kills every VM of this node.
func (g *guests) StopAll(ctx context.Context) error { return g.node.vms.KillAll(ctx) }

// Idle: what cannot be looked at counts as running.
func (g *guests) Idle() bool {
	running, err := g.node.vms.Running()
	return err == nil && len(running) == 0
}

// Wanted is what should run and does not. Nothing is wanted before setup is complete: the live fence tests turn nodes
// off, and nothing may run there.
func (g *guests) Wanted() []membership.ResourceID {
	doc, ok := g.node.document()
	runtime := g.node.store.Runtime()
	if !ok || !runtime.SetupComplete {
		return nil
	}
	running, err := g.node.vms.Running()
	if err != nil {
		return nil
	}
	state := g.node.driver.View().State
	var wanted []membership.ResourceID
	for _, r := range doc.Resources() {
		id := membership.ResourceID(r.Slot) //nolint:gosec // bounded by site.Check
		if r.Database != nil {
			continue // its manager asks
		}
		if r.VM == nil {
			if !state.Owns(id) {
				wanted = append(wanted, id) // its export follows its owner
			}
			continue
		}
		runs := slices.ContainsFunc(running, func(p vms.Process) bool { return p.ID == r.VM.ID })
		if !runs && !runtime.StoppedVMs[r.VM.ID] && !g.isStarting(id) || !state.Owns(id) {
			wanted = append(wanted, id)
		}
	}
	return wanted
}

func (g *guests) isStarting(r membership.ResourceID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.starting[r]
}

// run looks at libvirt now and then: a guest that QEMU paused goes on, one that a person stopped is ended.
func (g *guests) run(ctx context.Context) error {
	tick := time.NewTicker(guestRound)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		doc, ok := g.node.document()
		if !ok || len(doc.VMs) == 0 {
			continue
		}
		g.round(ctx, doc)
	}
}

func (g *guests) round(ctx context.Context, doc site.Document) {
	seen, err := g.node.vms.List(ctx)
	if err != nil {
		g.node.faults.raise(event.New(event.LibvirtDown).Because(err))
		return
	}
	g.node.faults.clear(event.LibvirtDown)
	g.mu.Lock()
	g.seen, g.seenAt = seen, time.Now()
	g.mu.Unlock()
	view := g.node.driver.View()
	if view.State.Mode != membership.Solo && !view.State.Committed() {
		return // what runs is the lease guard's business now
	}
	for _, a := range vms.Decide(g.wishes(doc), seen, g.right(doc, view.State)) {
		g.act(ctx, doc, a)
	}
}

func (g *guests) wishes(doc site.Document) []vms.Wish {
	runtime := g.node.store.Runtime()
	var ws []vms.Wish
	for _, vm := range doc.VMs {
		ws = append(ws, vms.Wish{ID: vm.ID, Name: vm.Name, Run: !runtime.StoppedVMs[vm.ID]})
	}
	return ws
}

func (g *guests) right(doc site.Document, s membership.State) vms.Right {
	r := vms.Right{Epoch: uint64(s.Rec.Ep)}
	for _, vm := range doc.VMs {
		if s.Owns(membership.ResourceID(vm.Slot)) { //nolint:gosec // bounded by site.Check
			r.IDs = append(r.IDs, vm.ID)
		}
	}
	return r
}

func (g *guests) act(ctx context.Context, doc site.Document, a vms.Action) {
	var err error
	switch a.Verb {
	case vms.DoKill:
		g.node.log.Warn("VM is ended", "vm", a.Name, "why", a.Why)
		err = g.node.vms.Kill(ctx, []string{a.ID})
	case vms.DoResume:
		vm, ok := doc.VMByName(a.Name)
		if ok && !g.isStarting(membership.ResourceID(vm.Slot)) { //nolint:gosec // bounded by site.Check
			err = g.node.vms.Resume(ctx, vm, uint64(g.node.driver.View().State.Rec.Ep))
		}
	case vms.DoReport:
		g.node.faults.raise(event.New(event.VMOrphan, "vm", a.Name))
	case vms.DoWant: // the driver asks Wanted
	}
	if err != nil {
		g.node.faults.raise(event.As(err))
	}
}
