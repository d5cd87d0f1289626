package fakenode

import (
	"context"

	"duet/appliance/api"
	"duet/appliance/event"
)

// MoveVM gives a VM of node a to node b.
func (n *Node) MoveVM(_ context.Context, name, _, _ string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.fail != nil:
		return n.fail
	case n.alone:
		return event.New(event.OrderRefused, "what", "the move of VM "+name, "reason", "the nodes are not paired, or not both committed",
			"next", "Wait until the status says paired, then order it again")
	case name == "press" || n.moved[name]:
		return &api.OtherNodeError{Object: "VM " + name, Node: "b"}
	}
	n.moved[name] = true
	return nil
}
