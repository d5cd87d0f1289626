package node

import (
	"context"
	"errors"
	"maps"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
)

// Orders about who is a member: a node leaves and returns, a person overrides (protocol.md R18, R26).

// byLeave is who latched a node that has left by order.
const byLeave = "leave"

// Leave lets this node leave the pair: the database is handed over, everything here stops, and the other node goes on alone at once.
// It stays away until Return, or until duetd or this node starts again.
func (n *Node) Leave(ctx context.Context, waiting bool, by, reason string) error {
	if why := n.driver.View().State.Allows(membership.Leave{Waiting: waiting}); why != membership.Granted {
		return refusal("leaving the pair", why)
	}
	if err := n.leaveDatabase(ctx, waiting, by, reason); err != nil {
		return err
	}
	// The latch is for the node that stays: it would switch this one on again when somebody switches it off (R10b).
	taken, err := n.latch(n.self, byLeave, by+": "+reason, false)
	if err != nil {
		return err
	}
	return n.orderThen(ctx, "leaving the pair", membership.Leave{Waiting: waiting}, func(err error) error {
		switch {
		case event.CodeOf(err) == event.OrderRefused:
			return errors.Join(err, taken())
		case err != nil: // it may have left: the latch stays, and a join lifts it
			return err
		}
		n.left.Store(true)
		n.driver.Note("left", by+": "+reason)
		return nil
	})
}

// Return ends a Leave: this node joins again.
func (n *Node) Return(_ context.Context, by string) error {
	if !n.left.Load() {
		return event.New(event.OrderRefused, "what", "the return of node "+n.self.String(),
			"reason", "it has not left by order", "next", "Nothing is to be done: it joins by itself when the other node is there")
	}
	n.left.Store(false)
	n.driver.Return()
	n.driver.Note("returns", by)
	return nil
}

// Override carries a person's word out: peer-off, that the other node is off and stays off, which counts once and for the
// present epoch; or force-solo, against the record. The latch comes first: a power-on by this node would make the word
// untrue.
func (n *Node) Override(ctx context.Context, kind, word, by, reason string) error {
	o := peerOffOverride
	if kind == api.ForceSoloOverride {
		o = forceSoloOverride
	}
	if _, founded := n.document(); !founded {
		return event.New(event.NotFounded, "node", n.self.String())
	}
	st := n.driver.View().State
	e := o.event(st, by+": "+reason)
	if why := st.Allows(e); why != membership.Granted {
		return refusal(o.what, why)
	}
	if !sameWord(word, n.word(o, st)) {
		return event.New(event.OverrideUnconfirmed, "what", o.what, "verb", o.name)
	}
	if n.testsPeer() {
		return event.New(event.OrderRefused, "what", o.what, "reason", testingReason, "next", testingNext)
	}
	taken, err := n.latch(n.peer(), by, reason, kind == api.ForceSoloOverride)
	if err != nil {
		return err
	}
	return n.orderThen(ctx, o.what, e, func(err error) error {
		switch {
		case event.CodeOf(err) == event.OrderRefused:
			return errors.Join(err, taken())
		case err != nil: // it may have been carried out: the peer stays latched
			return err
		}
		n.driver.Note(o.note, by+": "+reason)
		n.byPerson(by, reason)
		n.history.add(n.latchEntry("latch", n.peer().String(), reason, by))
		return nil
	})
}

// latch keeps a node off: when it returns, nothing that would give the peer power is under way. taken undoes it, unless
// another latch took its place. forced: this node goes on by force, which is shown until the other one has joined.
func (n *Node) latch(node membership.Node, by, reason string, forced bool) (taken func() error, err error) {
	was := n.store.Runtime().Forced
	before := maps.Clone(n.store.Runtime().Latched)
	latch := site.Latch{By: by, Reason: reason, Epoch: uint64(n.driver.View().State.Rec.Ep), At: time.Now()}
	if err := n.changeRuntime(func(r *site.Runtime) { r.Latched[node.String()], r.Forced = latch, r.Forced || forced }); err != nil {
		return nil, err
	}
	if f := n.fencerNow(); f != nil && node == n.peer() {
		f.keepOff()()
	}
	return func() error {
		return n.changeRuntime(func(r *site.Runtime) {
			if !r.Latched[node.String()].At.Equal(latch.At) {
				return
			}
			r.Forced = was
			delete(r.Latched, node.String())
			if old, was := before[node.String()]; was {
				r.Latched[node.String()] = old
			}
		})
	}, nil
}
