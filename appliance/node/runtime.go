package node

import (
	"encoding/json"
	"fmt"

	"duet/appliance/membership"
	"duet/appliance/site"
)

// toldRuntime takes the peer's runtime document if it is newer. Two that claim the same version were written on both
// sides of a cut; the pair owner writes the next one, with what either side says to be true.
func (n *Node) toldRuntime(body []byte) error {
	if _, founded := n.document(); !founded {
		return nil // of a site that this node does not belong to; the next founding here would begin with it
	}
	r, err := site.ParseRuntime(body)
	if err != nil {
		return err
	}
	mine := n.store.Runtime()
	switch {
	case r.Newer(mine):
		n.runtimeMu.Lock()
		err := n.store.SaveRuntime(r)
		n.runtimeMu.Unlock()
		if err != nil {
			return fmt.Errorf("runtime document: %w", err)
		}
		n.runtimeChanged()
	case mine.Newer(r):
		n.tasks.Go(n.sendRuntime)
	case !sameRuntime(mine, r) && n.isPairOwner():
		n.tasks.Go(func() {
			if err := n.changeRuntime(func(next *site.Runtime) { uniteRuntime(next, r) }); err != nil {
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

func uniteRuntime(into *site.Runtime, other site.Runtime) {
	into.SetupComplete = into.SetupComplete || other.SetupComplete
	into.Forced = into.Forced || other.Forced
	for k, proven := range other.OutletsProven { // a proof that one side has taken back stays taken back
		if mine, known := into.OutletsProven[k]; !known || mine {
			into.OutletsProven[k] = proven
		}
	}
	for _, p := range []struct{ to, from map[string]bool }{{into.BMCProven, other.BMCProven}, {into.StoppedVMs, other.StoppedVMs}} {
		for k, v := range p.from {
			if v {
				p.to[k] = true
			}
		}
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
