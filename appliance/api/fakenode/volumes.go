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

// ScrubVolume is refused for disk1, which the other node serves.
func (n *Node) ScrubVolume(_ context.Context, volume string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.fail != nil:
		return n.fail
	case volume == "disk1":
		return event.New(event.OrderRefused, "what", "the scrub of volume disk1 by node a",
			"reason", "the volume is not coordinated here, or its legs are not both in sync",
			"next", "A volume is scrubbed by the node that serves it, while both legs are in sync: duet volume show disk1")
	}
	return nil
}
