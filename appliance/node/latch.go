package node

import (
	"context"
	"maps"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
	"duet/ipmi/fence"
	"duet/ipmi/fence/ledger"
)

// The latch: a node is off and stays off (hardware.md section 4.4). It is durable here, in the runtime document, and
// blocks the effect PowerOnPeer of R10b and R21c; its outlets stay as they are. No rule of the core relies on it.

func (n *Node) latchOf(node string) (site.Latch, bool) {
	l, is := n.store.Runtime().Latched[node]
	return l, is
}

// LatchNode keeps the other node off.
func (n *Node) LatchNode(_ context.Context, node, reason, by string) error {
	if err := n.aboutPeer(node); err != nil {
		return err
	}
	if n.testsPeer() {
		return event.New(event.OrderRefused, "what", "the latch of node "+node, "reason", testingReason, "next", testingNext)
	}
	if _, err := n.latch(n.peer(), by, reason, false); err != nil {
		return err
	}
	n.driver.Note("latched", node+": "+reason)
	n.history.add(n.latchEntry("latch", node, reason, by))
	return nil
}

// UnlatchNode lets the other node be switched on, and does it if it is not there.
func (n *Node) UnlatchNode(ctx context.Context, node, reason, by string) error {
	if err := n.aboutPeer(node); err != nil {
		return err
	}
	if _, is := n.latchOf(node); is {
		if err := n.changeRuntime(func(r *site.Runtime) { delete(r.Latched, node) }); err != nil {
			return err
		}
		n.driver.Note("unlatched", node+": "+reason)
		n.history.add(n.latchEntry("unlatch", node, reason, by))
	}
	f := n.fencerNow()
	if f == nil || !f.exists() || n.peerHere() {
		return nil
	}
	err := f.PowerOn(ctx)
	f.proof.watch.Soon() // what was seen of it while it was off is not shown any longer
	return reportedError(err)
}

// While a live test runs it switches the peer off and on, whatever anybody wishes: a latch would not be kept, and a VM
// that is given to it would be cut off.
const (
	testingReason = "a live fence test switches the other node off and on"
	testingNext   = "Wait until the test has ended"
)

func (n *Node) testsPeer() bool {
	f := n.fencerNow()
	return f != nil && f.held.Load()
}

// aboutPeer refuses an order about this node: it could not carry it out on itself.
func (n *Node) aboutPeer(node string) error {
	if _, founded := n.document(); !founded {
		return event.New(event.NotFounded, "node", n.self.String())
	}
	if node != n.peer().String() {
		return &api.OtherNodeError{Object: "the power of node " + node, Node: n.peer().String()}
	}
	return nil
}

func (n *Node) latchEntry(what, node, reason, by string) ledger.Entry {
	at := startOf()
	return ledger.Entry{
		What: what, Node: node, By: by, At: at.wall, BootMS: at.boot / int64(time.Millisecond),
		Epoch: uint64(n.driver.View().State.Rec.Ep), Why: reason,
	}
}

// unlatchJoined: a completed join lifts the latches that were set before it, and ends what was forced. It follows the
// report of the join, made at that time; the view shows the epoch of the join a moment later.
func (n *Node) unlatchJoined(reported membership.Boottime) {
	shown, cancel := context.WithTimeout(n.ctx, joinShown)
	defer cancel()
	if err := await(shown, func() (bool, error) { return n.driver.View().At >= reported, nil }); err != nil {
		n.log.Error("the latches stay: the join is not seen", "error", err.Error())
		return
	}
	n.liftJoined(uint64(n.driver.View().State.Rec.Ep))
}

// joinShown is how long the view of a join is waited for: the rest of one step of the driver.
const joinShown = 10 * time.Second

// liftJoined lifts what was latched before this epoch: a latch that a person has set since the join stays.
func (n *Node) liftJoined(ep uint64) {
	before := func(_ string, l site.Latch) bool { return l.Epoch < ep }
	now := n.store.Runtime()
	peer := n.peer().String()
	l, was := now.Latched[peer]
	was = was && before(peer, l)
	maps.DeleteFunc(now.Latched, func(node string, l site.Latch) bool { return !before(node, l) })
	if len(now.Latched) == 0 && !now.Forced {
		return
	}
	err := n.changeRuntime(func(r *site.Runtime) {
		maps.DeleteFunc(r.Latched, before)
		r.Forced = false
	})
	if err != nil {
		n.log.Error("latch", "error", err.Error())
		return
	}
	if was {
		n.driver.Note("unlatched", "it joined")
		n.history.add(n.latchEntry("unlatch", peer, "it joined", "core"))
	}
}

// beginFencing completes a fencer of a site: latches, ledger, standing proof. It is called once for each.
func (n *Node) beginFencing(f *fencer) {
	peer := n.peer().String()
	f.latched = func() (site.Latch, bool) { return n.latchOf(peer) }
	f.record = n.history.add
	f.proof.begin(f.runner, fence.DefaultRhythm(), n.peerHere, func() {
		if n.ctx.Err() == nil {
			n.tasks.Go(n.publishProof)
		}
	})
}

// fencePeerIsBack follows the begin of a session, on the driver's goroutine: what the peer told before is forgotten before
// its first message of this session can come.
func (n *Node) fencePeerIsBack() {
	f := n.fencerNow()
	if f == nil {
		return
	}
	f.proof.forget()
	n.tasks.Go(func() {
		n.publishProof()
		f.giveBack(n.ctx)
	})
}
