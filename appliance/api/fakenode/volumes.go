package fakenode

import (
	"context"

	"duet/appliance/event"
)

// ReadmitLeg is refused for disk1, whose leg works.
func (n *Node) ReadmitLeg(_ context.Context, volume string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.fail != nil:
		return n.fail
	case volume == "disk1":
		return event.New(event.OrderRefused, "what", "the readmission of the leg of volume disk1 on node a",
			"reason", "the leg counts: it holds every acknowledged write, or may be the only one that does",
			"next", "Nothing needs to be done; if its disk fails, the leg is taken out by itself")
	}
	return nil
}
