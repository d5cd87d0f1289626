package node

import (
	"context"
	"errors"

	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/replication/control"
)

// ScrubVolume has both legs of a volume read, compared and repaired by the node that coordinates it, which must be this one.
func (n *Node) ScrubVolume(ctx context.Context, volume string) error {
	doc, ok := n.document()
	if !ok {
		return event.New(event.NotFounded, "node", n.self.String())
	}
	v, ok := doc.VolumeByName(volume)
	if !ok {
		return event.New(event.UnknownVolume, "volume", volume)
	}
	err := n.driver.ScrubVolume(ctx, v.ID)
	if errors.Is(err, control.ErrRefused) {
		return event.New(event.OrderRefused, "what", "the scrub of volume "+volume+" by node "+n.self.String(), "reason", err.Error(),
			"next", "A volume is scrubbed by the node that serves it, while both legs are in sync: duet volume show "+volume)
	}
	if err == nil {
		n.driver.Note("scrub-ordered", volume)
	}
	return err
}

// ReadmitLeg gives this node a new leg of a volume in the place of its dead one (protocol.md R24): its disk was mended, or its
// error has passed. Only a leg that the record has taken out is thrown away, whatever duet-mirrord says of it.
func (n *Node) ReadmitLeg(ctx context.Context, volume string) error {
	doc, ok := n.document()
	if !ok {
		return event.New(event.NotFounded, "node", n.self.String())
	}
	v, ok := doc.VolumeByName(volume)
	if !ok {
		return event.New(event.UnknownVolume, "volume", volume)
	}
	what := "the readmission of the leg of volume " + volume + " on node " + n.self.String()
	refuse := func(reason, next string) error {
		return event.New(event.OrderRefused, "what", what, "reason", reason, "next", next)
	}
	st := n.driver.View().State
	switch set := st.Rec.Legs[v.Slot].Set; {
	case !st.Committed():
		return refuse("the nodes are not paired", "Bring the other node back first; a leg is made anew only beside one that serves")
	case set.Has(n.self):
		return refuse("the leg counts: it holds every acknowledged write, or may be the only one that does",
			"Nothing needs to be done; if its disk fails, the leg is taken out by itself")
	case set != membership.Only(n.self.Peer()):
		return refuse("no leg of the other node counts", "Collect a support bundle before anything else")
	}
	if err := n.driver.ReadmitLeg(ctx, v.ID); err != nil {
		if errors.Is(err, control.ErrRefused) {
			return refuse(err.Error(), "Look at the volume: duet volume show "+volume)
		}
		return err
	}
	n.driver.Note("leg-readmitted", volume)
	return nil
}
