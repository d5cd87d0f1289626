package node

import (
	"encoding/json"
	"fmt"
	"slices"

	"duet/appliance/membership"
	"duet/appliance/site"
)

// toldRuntime takes the peer's runtime document if it is newer and holds everything that was written here. Of two that
// were written side by side, in a cut or within the time that a message takes, the pair owner makes the next one: a latch
// that was acknowledged to a person is not lost because the other node wrote more often.
func (n *Node) toldRuntime(body []byte) error {
	if _, founded := n.document(); !founded {
		return nil // of a site that this node does not belong to; the next founding here would begin with it
	}
	r, err := site.ParseRuntime(body)
	if err != nil {
		return err
	}
	n.runtimeMu.Lock()
	mine := n.store.Runtime()
	apart := mine.Lacks(r) && r.Lacks(mine)
	if !apart && r.Newer(mine) {
		err = n.store.SaveRuntime(r)
	}
	n.runtimeMu.Unlock()
	if err != nil {
		return fmt.Errorf("runtime document: %w", err)
	}
	switch {
	case !apart && r.Newer(mine):
		n.runtimeChanged()
	case !apart && mine.Newer(r):
		n.tasks.Go(n.sendRuntime)
	case !sameRuntime(mine, r) && n.isPairOwner():
		n.tasks.Go(func() {
			if err := n.changeRuntime(func(next *site.Runtime) { uniteRuntime(next, r, n.ordersOf(mine, r)) }); err != nil {
				n.log.Error("runtime document", "error", err.Error())
			}
		})
	}
	return nil
}

func sameRuntime(a, b site.Runtime) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// ordersOf tells of which VMs the other document holds the newer orders: those that the peer owns, and all if it was
// written in a later epoch, in which this node could take none.
func (n *Node) ordersOf(mine, other site.Runtime) func(id string) bool {
	doc, _ := n.document()
	st := n.driver.View().State
	return func(id string) bool {
		if mine.Epoch != other.Epoch {
			return other.Epoch > mine.Epoch
		}
		i := slices.IndexFunc(doc.VMs, func(vm site.VM) bool { return vm.ID == id })
		return i >= 0 && !st.Owns(membership.ResourceID(doc.VMs[i].Slot)) //nolint:gosec // bounded by site.Check
	}
}

// uniteRuntime makes into, a next version, one that replaces the other document too. ordered: its orders about that VM are
// the newer ones.
func uniteRuntime(into *site.Runtime, other site.Runtime, ordered func(id string) bool) {
	into.Epoch, into.Version = max(into.Epoch, other.Epoch), max(into.Version, other.Version+1)
	for node, writes := range other.Writes {
		into.Writes[node] = max(into.Writes[node], writes)
	}
	for id := range into.StoppedVMs {
		if ordered(id) && !other.StoppedVMs[id] {
			delete(into.StoppedVMs, id)
		}
	}
	for id, stopped := range other.StoppedVMs {
		if ordered(id) && stopped {
			into.StoppedVMs[id] = true
		}
	}
	into.SetupComplete = into.SetupComplete || other.SetupComplete
	into.Forced = into.Forced || other.Forced
	for k, proven := range other.OutletsProven { // a proof that one side has taken back stays taken back
		if mine, known := into.OutletsProven[k]; !known || mine {
			into.OutletsProven[k] = proven
		}
	}
	for k, proven := range other.BMCProven {
		into.BMCProven[k] = into.BMCProven[k] || proven
	}
	for k, v := range other.Learned {
		if _, known := into.Learned[k]; !known {
			into.Learned[k] = v
		}
	}
	for k, v := range other.Latched { // of two, the one that keeps a node off is the safe one
		if _, is := into.Latched[k]; !is {
			into.Latched[k] = v
		}
	}
}

// changeRuntime writes the next version here, durably, and sends it to the peer.
func (n *Node) changeRuntime(change func(*site.Runtime)) error {
	n.runtimeMu.Lock()
	next := n.store.Runtime().Next(uint64(n.driver.View().State.Rec.Ep))
	next.Writes[n.self.String()]++
	change(&next)
	err := n.store.SaveRuntime(next) // drops what is not newer, without an error: hence the lock
	n.runtimeMu.Unlock()
	if err != nil {
		return fmt.Errorf("runtime document: %w", err)
	}
	n.runtimeChanged()
	n.sendRuntime()
	return nil
}

func (n *Node) runtimeChanged() {
	r := n.store.Runtime()
	n.mu.Lock()
	f := n.fencer
	n.mu.Unlock()
	if f != nil {
		f.proven(r)
		if _, latched := r.Latched[n.peer().String()]; latched {
			f.keepOff()
		}
	}
	n.tasks.Go(n.driver.Wake)
}

func (n *Node) sendRuntime() {
	r := n.store.Runtime()
	if r.Version == 0 {
		return
	}
	body, err := json.Marshal(r)
	if err != nil {
		n.log.Error("runtime document", "error", err.Error())
		return
	}
	n.driver.Tell(msgRuntime, body)
}

func (n *Node) isPairOwner() bool { return n.driver.View().State.Owns(membership.PairResource) }
