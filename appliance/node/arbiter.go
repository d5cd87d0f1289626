package node

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/appliance/site"
)

// How a node may go on alone changes by itself: a witness that is gone is dropped for fencing, one that is back is
// admitted again (protocol.md R21a, R21d, R19, R19s; the times are those of section 5.3). The guards here are prudence:
// they keep a site from changing back and forth. What is safe is the core's business.
const (
	arbiterTick  = time.Second
	dropAfter    = 60 * time.Second // unreachable from every node that is here
	admitAfter   = 5 * time.Minute  // reachable from every node that is here
	admitSooner  = 10 * time.Second // nothing could go on alone until then
	arbiterAgain = time.Minute      // after an order that did not come about: a register more each time
	reachEvery   = 5 * time.Second  // the peer is told how the witness is seen from here
	reachStale   = 15 * time.Second
	reachBytes   = 256
)

// reach is how a node sees the witness.
type reach struct {
	Reached bool  `json:"reached"`
	ForMS   int64 `json:"for_ms"` // since when that has been so
}

// lasted says for how long the witness has been reached, or not, as of a moment later.
func (r reach) lasted(reached bool, later time.Duration) time.Duration {
	if r.Reached != reached {
		return 0
	}
	return time.Duration(r.ForMS)*time.Millisecond + later
}

// arbiterFacts is what the wish follows from.
type arbiterFacts struct {
	state      membership.State
	configured bool // the site document names a witness
	mine       reach
	peers      reach
	peersAge   time.Duration // since the peer told; < 0: nothing in this session
	proofFresh bool          // of fencing, in both directions
	inSync     bool          // every volume has both legs
	forgotten  time.Duration // for how long the witness has answered without knowing the register; 0: it knows it
}

// arbiterWish is what should be ordered now.
func arbiterWish(f arbiterFacts) (membership.ArbKind, bool) {
	st := f.state
	kind := st.Rec.Arb.Kind
	paired := st.Committed()
	if !paired && (st.Mode != membership.Solo || st.Session != 0) || paired && f.peersAge < 0 {
		return 0, false
	}
	lasted := func(reached bool) time.Duration {
		d := f.mine.lasted(reached, 0)
		if paired {
			d = min(d, f.peers.lasted(reached, f.peersAge))
		}
		return d
	}
	gone := !f.configured || lasted(false) >= dropAfter
	if kind != membership.ArbFence && gone && (!paired || f.proofFresh && f.inSync) {
		return membership.ArbFence, true
	}
	if kind == membership.ArbWitness && f.configured && f.forgotten >= admitSooner {
		return membership.ArbWitness, true // it lost its store: only a fresh register helps
	}
	wait := admitAfter
	if kind == membership.ArbNone {
		wait = admitSooner
	}
	if kind != membership.ArbWitness && f.configured && lasted(true) >= wait {
		return membership.ArbWitness, true
	}
	return 0, false
}

// arbiter carries the wish out.
type arbiter struct {
	node    *Node
	told    reach // by the peer
	toldAt  int64 // CLOCK_BOOTTIME; 0: nothing in this session
	since   int64 // when the witness began to be seen as it is
	reached bool
	saidAt  int64
	saidIn  membership.Session
	said    bool
	orderAt int64 // not before
	lostAt  int64 // since when the witness has not known the register; 0: it does
}

func (a *arbiter) run(ctx context.Context) error {
	tick := time.NewTicker(arbiterTick)
	defer tick.Stop()
	a.node.mu.Lock()
	a.since = boottime.Now()
	a.node.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			a.look(ctx)
		}
	}
}

func (a *arbiter) look(ctx context.Context) {
	n := a.node
	now := boottime.Now()
	st := n.driver.View().State
	doc, founded := n.document()
	if !founded {
		return
	}
	seen := n.watch.seen()
	n.mu.Lock()
	if seen.ok != a.reached {
		a.reached, a.since = seen.ok, now
	}
	n.mu.Unlock()
	switch forgets := seen.forgets(n.register()); {
	case !forgets:
		a.lostAt = 0
	case a.lostAt == 0:
		a.lostAt = now
	}
	mine := reach{a.reached, (now - a.since) / int64(time.Millisecond)}
	if st.Session != 0 && (now-a.saidAt >= int64(reachEvery) || st.Session != a.saidIn || seen.ok != a.said) {
		a.saidAt, a.saidIn, a.said = now, st.Session, seen.ok
		a.say(mine)
	}
	f := arbiterFacts{
		state: st, configured: doc.Witness != nil, mine: mine, peersAge: -1, proofFresh: n.proofFresh(), inSync: inSync(st),
	}
	if a.lostAt != 0 {
		f.forgotten = time.Duration(now - a.lostAt)
	}
	n.mu.Lock()
	if age := time.Duration(now - a.toldAt); a.toldAt != 0 && age < reachStale {
		f.peers, f.peersAge = a.told, age
	}
	n.mu.Unlock()
	if doc.Former != nil && seen.known && seen.rid == n.register() && now >= a.orderAt && n.replacing.CompareAndSwap(false, true) {
		a.orderAt = now + int64(arbiterAgain)
		a.forgetFormer(ctx, st)
		n.replacing.Store(false)
	}
	kind, wish := arbiterWish(f)
	if !wish || now < a.orderAt || st.Allows(membership.SetArbiter{Kind: kind}) != membership.Granted {
		return
	}
	a.orderAt = now + int64(arbiterAgain)
	if err := n.order(ctx, "the change of the arbiter", membership.SetArbiter{Kind: kind}); err != nil {
		n.log.Warn("the arbiter stays", "error", err.Error())
		return
	}
	n.driver.Note("arbiter", arbiterWord(kind))
}

// forgetFormer ends a change of the witness that was cut off behind its last step but one: no record names a register of
// the former one any more.
func (a *arbiter) forgetFormer(ctx context.Context, st membership.State) {
	n := a.node
	if st.Allows(membership.SetArbiter{Kind: membership.ArbWitness}) != membership.Granted {
		return
	}
	if err := n.changeDocument(ctx, func(d *site.Document) { d.Former = nil }); err != nil {
		n.log.Warn("the former witness stays in the document", "error", err.Error())
	}
}

// peerReaches says whether the peer told in this session, a moment ago, that it reaches the witness.
func (a *arbiter) peerReaches() bool {
	a.node.mu.Lock()
	defer a.node.mu.Unlock()
	return a.toldAt != 0 && time.Duration(boottime.Now()-a.toldAt) < reachStale && a.told.Reached
}

// reachFor is for how long the witness has been seen as it is.
func (a *arbiter) reachFor() time.Duration {
	a.node.mu.Lock()
	defer a.node.mu.Unlock()
	if a.since == 0 {
		return -1
	}
	return time.Duration(boottime.Now() - a.since)
}

func (n *Node) proofFresh() bool {
	f := n.fencerNow()
	return f != nil && f.ProofFresh()
}

func inSync(st membership.State) bool {
	for _, l := range st.Rec.Legs {
		if l.Version != 0 && l.Set != membership.Both {
			return false
		}
	}
	return true
}

func arbiterWord(k membership.ArbKind) string {
	return [...]string{"none", "witness", "fencing"}[k]
}

func (a *arbiter) say(r reach) {
	body, err := json.Marshal(r)
	if err != nil {
		a.node.log.Error("reach of the witness", "error", err.Error())
		return
	}
	a.node.driver.Tell(msgReach, body)
}

// toldReach is the peer's view of the witness.
func (n *Node) toldReach(body []byte) error {
	var r reach
	if len(body) > reachBytes {
		return fmt.Errorf("reach of the witness in %d bytes", len(body))
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("reach of the witness: %w", err)
	}
	if r.ForMS < 0 {
		return fmt.Errorf("reach of the witness for %d ms", r.ForMS)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.arbiter.told, n.arbiter.toldAt = r, boottime.Now()
	return nil
}
