package node

import (
	"context"
	"errors"
	"time"

	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
)

// Orders about who is a member: a node leaves and returns, a person overrides (protocol.md R18, R26).

// Leave lets this node leave the pair: everything here stops, and the other node goes on alone at once. It stays away
// until Return, or until this node starts again.
func (n *Node) Leave(ctx context.Context, waiting bool) error {
	if why := n.driver.View().State.Allows(membership.Leave{Waiting: waiting}); why != membership.Granted {
		return refusal("leaving the pair", why)
	}
	// The latch is for the node that stays: it would switch this one on again when somebody switches it off (R10b).
	self := n.self.String()
	latch := site.Latch{By: "leave", Reason: "it left by order", Epoch: uint64(n.driver.View().State.Rec.Ep), At: time.Now()}
	if err := n.changeRuntime(func(r *site.Runtime) { r.Latched[self] = latch }); err != nil {
		return err
	}
	if err := n.order(ctx, "leaving the pair", membership.Leave{Waiting: waiting}); err != nil {
		return errors.Join(err, n.changeRuntime(func(r *site.Runtime) { delete(r.Latched, self) }))
	}
	n.driver.Stay()
	n.driver.Note("left", "by order")
	return nil
}

// Return ends a Leave: this node joins again.
func (n *Node) Return(context.Context) error {
	n.driver.Return()
	n.driver.Note("returns", "by order")
	return nil
}

// PeerOff is a person's word that the other node is off and stays off. It counts once, for the present epoch.
func (n *Node) PeerOff(ctx context.Context, by, reason string) error {
	st := n.driver.View().State
	if err := n.order(ctx, "taking over by a person's word", membership.PeerOff{Epoch: st.Rec.Ep}); err != nil {
		return err
	}
	n.driver.Note("peer-off-by-person", by+": "+reason)
	n.byPerson(by, reason)
	return n.keepOff(ctx, by, reason)
}

// ForceSolo lets this node go on alone against its record. What the other side wrote alone since is not here.
func (n *Node) ForceSolo(ctx context.Context, by, reason string) error {
	text := membership.MakeText(by + ": " + reason)
	if err := n.order(ctx, "going on alone by force", membership.ForceSolo{PeerOff: true, Text: text}); err != nil {
		return err
	}
	n.driver.Note("forced", by+": "+reason)
	n.byPerson(by, reason)
	return n.keepOff(ctx, by, reason)
}

// keepOff latches the node that a person called off: a power-on by this node would make the word untrue.
func (n *Node) keepOff(ctx context.Context, by, reason string) error {
	if _, founded := n.document(); !founded {
		return event.New(event.NotFounded, "node", n.self.String())
	}
	return n.LatchNode(ctx, n.peer().String(), reason, by)
}
