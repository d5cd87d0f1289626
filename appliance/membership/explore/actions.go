package explore

import (
	"fmt"

	m "duet/appliance/membership"
)

// Kind of an action.
type Kind uint8

// The actions. One is one thing that happens somewhere; between two of them everything else may happen.
const (
	ActEffect Kind = iota // the next barrier of a node's queue, with what follows it up to the next
	ActCrash
	ActBoot
	ActRestart      // of duetd alone; Arg 1: the messages in flight are lost
	ActConnect      // a session begins; Arg 1, 2: the next message of a, of b in the last one will still arrive
	ActLearn        // a side is told of it
	ActSuspect      // a side gives the session up
	ActDeliver      // the next control message arrives; Arg 1: and stays (duplicate)
	ActBeat         // the 250 ms tick
	ActDeliverBeat  // Arg: slot, +beatMax: and stays
	ActTimer        // Arg: timer
	ActWitness      // a request reaches the register; Arg: slot, +packetMax: and stays
	ActReply        // a reply reaches its node; Arg: slot
	ActFenceHit     // the peer is off, and the fencing node will know
	ActFenceUnknown // Arg 1: the peer is off, yet the fencing node will not know
	ActFenceLate    // an order of a dead attempt hits
	ActVerdict      // evidence reaches the core
	ActCopy         // the copy completes, both mirror daemons have proved it
	ActProof        // a side's CopyDone reaches the core
	ActWant         // Arg: resource
	ActFound
	ActWrite   // a client writes; Arg: volume
	ActFrame   // a replicated write arrives; Arg: volume
	ActAck     // its ack arrives, the client is answered; Arg: volume
	ActAlone   // a solo owner answers the client; Arg: volume
	ActTick    // Arg 0: both clocks, 1: only a's, 2: only b's
	ActLeave   // an order: R18
	ActMove    // an order: R22; Arg: resource
	ActArbiter // an order: R19, R21a, R21d; Arg: kind
	ActEmpty   // the witness's store is emptied
	ActForce   // an order: R26; Arg 1: assert-off, 0: force-solo, both while the peer is really off
	ActDoc     // an order: R25
	ActCopies  // an order: R25 for the database record; Arg: its copies
	ActLegLoss // a leg takes no more writes from now on; Arg: volume
	ActFailed  // the core hears of it; Arg: volume
	ActRepair  // the leg's drive is replaced by one that works, with what was on it; Arg: volume
	ActSync    // duet-mirrord brings a leg that is out up to date and proves it at a barrier; Arg: volume
	ActSynced  // the core hears of it
	ActDrained // Arg: resource, +resources: it could not be, for its leg fails
	ActGhost   // a message of an earlier session arrives
	kindCount  // number of kinds
)

var kindNames = [kindCount]string{
	"effect", "crash", "boot", "restart", "connect", "learn", "suspect", "deliver", "beat", "deliver-beat", "timer", "witness",
	"reply", "fence-hit", "fence-unknown", "fence-late", "verdict", "copy", "proof", "want", "found", "write", "frame", "ack", "alone", "tick",
	"leave", "move", "arbiter", "empty", "force", "doc", "copies", "leg-loss", "failed", "repair", "sync", "synced", "drained", "ghost",
}

// Action is one thing that can happen.
type Action struct {
	Kind Kind
	Node m.Node
	Arg  uint8
}

// String is the action as seeds and traces write it.
func (a Action) String() string { return fmt.Sprintf("%v %s %d", a.Node, kindNames[a.Kind], a.Arg) }

// ParseAction reads what String wrote.
func ParseAction(s string) (Action, error) {
	var node, kind string
	var arg uint8
	if _, err := fmt.Sscanf(s, "%s %s %d", &node, &kind, &arg); err != nil {
		return Action{}, fmt.Errorf("action %q: %w", s, err)
	}
	for k, name := range kindNames {
		if name == kind && (node == "a" || node == "b") {
			return Action{Kind(k), m.Node(node[0] - 'a'), arg}, nil
		}
	}
	return Action{}, fmt.Errorf("action %q is unknown", s)
}

// Actions appends all that can happen in w, in a fixed order.
func (p *Params) Actions(w *World, out []Action) []Action {
	out = p.between(w, out)
	for _, id := range [2]m.Node{m.A, m.B} {
		out = p.machine(w, id, out)
		out = p.data(w, id, out)
		if w.N[id].idle() {
			out = p.core(w, id, out)
		}
	}
	return out
}

// between: connections, the witness, time.
func (p *Params) between(w *World, out []Action) []Action {
	a, b := &w.N[m.A], &w.N[m.B]
	offered := w.Net.Session != 0 && !w.Net.Learned[m.A] && !w.Net.Learned[m.B]
	if p.Link && w.Left.Session > 0 && a.Up && b.Up && a.Core.Session == 0 && b.Core.Session == 0 && !offered {
		out = append(out, Action{Kind: ActConnect})
		for from := range w.Net.Q {
			if w.Left.Ghost > 0 && w.Net.Q[from][0] != nil && w.Ghost.Session == 0 {
				out = append(out, Action{Kind: ActConnect, Arg: uint8(from + 1)})
			}
		}
	}
	if p.Witness {
		for i, x := range w.Packets {
			if x.Kind == CASRequest || x.Kind == PushRequest || x.Kind == CreateRequest && w.RIDs < registers {
				out = append(out, Action{Kind: ActWitness, Node: x.From, Arg: uint8(i)})
				if w.Left.Dup > 0 {
					out = append(out, Action{Kind: ActWitness, Node: x.From, Arg: uint8(i + packetMax)})
				}
			}
		}
	}
	if w.Left.Empty > 0 && w.RIDs > 0 {
		out = append(out, Action{Kind: ActEmpty})
	}
	if p.Clocks {
		out = append(out, Action{Kind: ActTick})
		if w.Drift < int8(w.Left.Skew) {
			out = append(out, Action{Kind: ActTick, Arg: 1})
		}
		if -w.Drift < int8(w.Left.Skew) {
			out = append(out, Action{Kind: ActTick, Arg: 2})
		}
	}
	return out
}

// machine: power, fencing, effects.
func (p *Params) machine(w *World, id m.Node, out []Action) []Action {
	n, peer := w.node(id), w.node(id.Peer())
	if peer.Up && (n.Late == Dying || n.Late == Cancelled && w.Left.Late > 0) {
		out = append(out, Action{ActFenceLate, id, 0})
	}
	if !n.Up {
		return append(out, Action{ActBoot, id, 0})
	}
	if len(n.Queue) > 0 {
		out = append(out, Action{ActEffect, id, 0})
	}
	if w.Left.Crash > 0 {
		out = append(out, Action{ActCrash, id, 0})
	}
	if w.Left.Restart > 0 {
		out = append(out, Action{ActRestart, id, 0}, Action{ActRestart, id, 1})
	}
	if n.FenceOut != 0 && !p.NoFence {
		out = append(out, Action{ActFenceHit, id, 0})
		if w.Left.Unknown > 0 {
			out = append(out, Action{ActFenceUnknown, id, 0})
			if peer.Up {
				out = append(out, Action{ActFenceUnknown, id, 1})
			}
		}
	}
	if n.CopyOut != 0 && p.copyReady(w, id) {
		out = append(out, Action{ActCopy, id, 0})
	}
	return out
}

func (p *Params) copyReady(w *World, id m.Node) bool {
	n, t := w.node(id), w.node(id.Peer())
	if !t.Up || !n.Granted || !t.Granted || n.Grant.Session != n.CopyOut || t.Grant.Session != n.CopyOut {
		return false
	}
	from := n.Grant.Mode == m.Solo || n.Grant.Mode == m.Resolving
	to := t.Grant.Mode == m.Joining || t.Grant.Mode == m.Resolving
	return from && to && n.Proof.Session == 0 && t.Proof.Session == 0
}

// core: inputs of an idle node.
func (p *Params) core(w *World, id m.Node, out []Action) []Action {
	n := w.node(id)
	s := &n.Core
	if w.Net.Session != 0 && !w.Net.Learned[id] && s.Session == 0 {
		out = append(out, Action{ActLearn, id, 0})
	}
	if s.Session != 0 && (w.Left.Cut > 0 || !w.holds(id.Peer()) && (w.Net.Learned[id.Peer()] || s.Session != w.Net.Session)) {
		out = append(out, Action{ActSuspect, id, 0})
	}
	if w.holds(id) {
		out = p.hears(w, id, out)
	}
	for i, x := range w.Packets {
		if (x.Kind == CASReply || x.Kind == PushReply || x.Kind == CreateReply) && x.From == id {
			out = append(out, Action{ActReply, id, uint8(i)})
		}
	}
	if n.Verdict.Attempt != 0 {
		out = append(out, Action{ActVerdict, id, 0})
	}
	if n.Proof.Session != 0 {
		out = append(out, Action{ActProof, id, 0})
	}
	for r := m.ResourceID(1); r < resources; r++ {
		if n.Drain.Has(r) && s.Draining.Has(r) && n.Pend[r-1] == 0 && n.Out[r-1].Write == 0 {
			out = append(out, Action{ActDrained, id, uint8(r)})
		}
		if n.Drain.Has(r) && s.Draining.Has(r) && n.bad(int(r-1)) {
			out = append(out, Action{ActDrained, id, uint8(r + resources)})
		}
	}
	if n.Synced.Session != 0 {
		out = append(out, Action{ActSynced, id, 0})
	}
	if w.Ghost.Session != 0 && w.Ghost.To == id {
		out = append(out, Action{ActGhost, id, 0})
	}
	out = p.timers(w, id, out)
	out = p.orders(w, id, out)
	if p.Beats && s.Committed() && s.Lease < n.Clock+s.Cfg.Lease && (!p.OneBeat || s.Beats[0].Nonce == 0) && (!p.OneSide || id == m.A) {
		out = append(out, Action{ActBeat, id, 0})
	}
	if p.Start == FromFresh && w.RIDs < registers && id == m.A && s.Fresh() && s.Session != 0 && s.Peer.Fresh && s.Copy == m.CopyIdle {
		out = append(out, Action{ActFound, id, 0})
	}
	return p.wants(w, id, out)
}

func (p *Params) wants(w *World, id m.Node, out []Action) []Action {
	n := w.node(id)
	s := &n.Core
	for r := m.ResourceID(1); r < resources && !p.NoRun; r++ {
		if n.Run.Has(r) || s.Rec.Owners[r].Version == 0 {
			continue
		}
		solo := s.Mode == m.Solo && (s.Owns(r) || s.PeerStopped(n.Clock)) && s.Rec.Legs[r-1].Set.Has(id)
		paired := s.Committed() && s.Owns(r) && s.MayRun(n.Clock)
		if solo || paired {
			out = append(out, Action{ActWant, id, uint8(r)})
		}
	}
	return out
}

func (p *Params) hears(w *World, id m.Node, out []Action) []Action {
	from := id.Peer()
	if w.Net.Q[from][0] != nil {
		out = append(out, Action{ActDeliver, id, 0})
		if w.Left.Dup > 0 {
			out = append(out, Action{ActDeliver, id, 1})
		}
	}
	for i, x := range w.Net.Beats[from] {
		if x == nil {
			continue
		}
		out = append(out, Action{ActDeliverBeat, id, uint8(i)})
		if w.Left.Dup > 0 {
			out = append(out, Action{ActDeliverBeat, id, uint8(i + beatMax)})
		}
	}
	return out
}

// timers that are armed and may fire. Bias, boot wait and repeats are liveness only, so those fire at any time; the
// two that guard a right only when it is over.
func (p *Params) timers(w *World, id m.Node, out []Action) []Action {
	n := w.node(id)
	s := &n.Core
	for t := range m.TimerCount {
		if n.Armed&(1<<t) == 0 {
			continue
		}
		ok := false
		switch t {
		case m.TimerArbitrate, m.TimerFence:
			ok = true
		case m.TimerRepeat:
			ok = w.repeatUseful(id)
		case m.TimerPrepare:
			ok = n.Clock >= s.PlanSent+s.Cfg.Lease
		case m.TimerLease:
			ok = n.Clock >= s.Lease && s.Lease != 0
		default: // nothing for the others
		}
		if ok {
			out = append(out, Action{ActTimer, id, uint8(t)})
		}
	}
	return out
}

// repeatUseful: repeating what is still on its way changes nothing.
func (w *World) repeatUseful(id m.Node) bool {
	s := &w.N[id].Core
	flying := func(nonce m.Nonce) bool {
		for _, x := range w.Packets {
			if x.Kind != NoPacket && x.From == id && x.Nonce == nonce {
				return true
			}
		}
		return false
	}
	for _, nonce := range [...]m.Nonce{s.Ask.Nonce, s.Push.Nonce, s.Create.Nonce, s.Claim.Nonce} {
		if nonce != 0 && !flying(nonce) {
			return true
		}
	}
	if w.Net.Q[id][0] != nil || !s.Committed() {
		return false
	}
	return s.Committing || s.Change.Number != 0 || s.Gives != 0 || s.Writing != m.Docs{} || s.Rec.Pending != m.Docs{} || w.legsWait(id)
}

// legsWait: something of R23, R24 waits for an answer of the peer.
func (w *World) legsWait(id m.Node) bool {
	s := &w.N[id].Core
	for v := range volumes {
		l := &s.Rec.Legs[v]
		unheard := s.BadLegs.Has(m.VolumeSlot(v)) && l.Set == m.Both
		if s.LegWork[v] != m.LegSteady || l.Pending || unheard {
			return true
		}
	}
	return false
}

// data: what clients and the two mirror daemons do.
func (p *Params) data(w *World, id m.Node, out []Action) []Action {
	n, peer := w.node(id), w.node(id.Peer())
	for v := range volumes {
		arg := uint8(v)
		if f := peer.Out[v]; f.Write != 0 && n.takes(f) && !n.bad(v) {
			out = append(out, Action{ActFrame, id, arg})
		}
		out = p.legs(w, id, v, out)
		if !n.live() || !n.ownsVolume(v) || !n.legCounts(v, id) && n.Pend[v] == 0 {
			continue // without an own leg the owner would go through the peer, which is not built
		}
		paired := n.Grant.Mode == m.Paired && n.Grant.Prepared == 0
		held := n.Hold || n.HoldLeg.Has(m.VolumeSlot(v)) || n.Drain.Has(m.ResourceID(v+1)) && n.Pend[v] == 0
		here, there := n.Leg[v] >= n.Pend[v], n.Back[v].Write == n.Pend[v] && n.Back[v].Session == n.Grant.Session
		switch {
		case n.Pend[v] == 0:
			if (paired || n.Grant.Mode == m.Solo) && !held && w.Left.Write > 0 && !n.bad(v) {
				out = append(out, Action{ActWrite, id, arg})
			}
		case (n.Grant.Mode == m.Solo || paired && !n.legCounts(v, id.Peer())) && n.legCounts(v, id):
			if here && !held {
				out = append(out, Action{ActAlone, id, arg})
			} else if !n.bad(v) && !held {
				out = append(out, Action{ActWrite, id, arg})
			}
		case mutant("M14"):
			out = append(out, Action{ActAlone, id, arg})
		case paired && there && (here || !n.legCounts(v, id)):
			out = append(out, Action{ActAck, id, arg})
		case paired && (n.Out[v].Write != n.Pend[v] || n.Out[v].Session != n.Grant.Session) && !there && !held && !n.bad(v):
			out = append(out, Action{ActWrite, id, arg}) // issued again after a hold
		}
	}
	return out
}

// legs: what happens to the legs of one volume (R23, R24).
func (p *Params) legs(w *World, id m.Node, v int, out []Action) []Action {
	n, peer, arg := w.node(id), w.node(id.Peer()), uint8(v)
	slot := m.VolumeSlot(v)
	if w.Left.LegLoss > 0 && n.Up && !n.bad(v) && (w.bothIn(v) || w.legMoves(v)) {
		out = append(out, Action{ActLegLoss, id, arg})
	}
	if n.idle() && n.Failed.Has(slot) {
		out = append(out, Action{ActFailed, id, arg})
	}
	if n.Up && n.bad(v) && !n.Failed.Has(slot) && n.Granted && !n.legCounts(v, id) {
		out = append(out, Action{ActRepair, id, arg})
	}
	// The in-sync node's duet-mirrord drives: both are paired in one session, and the owner's holds the writes from here on.
	if n.Up && peer.Up && n.Granted && peer.Granted && n.Grant.Mode == m.Paired && peer.Grant.Mode == m.Paired &&
		n.Grant.Prepared == 0 && peer.Grant.Prepared == 0 && n.Grant.Session == peer.Grant.Session && n.Grant.Legs[v].Set == m.Only(id) &&
		n.Grant.Legs[v] == peer.Grant.Legs[v] && !n.bad(v) && !peer.bad(v) && n.Pend[v] == 0 && peer.Pend[v] == 0 && n.Synced.Session == 0 && peer.Synced.Session == 0 &&
		!n.HoldLeg.Has(slot) {
		out = append(out, Action{ActSync, id, arg})
	}
	return out
}

// bothIn: every copy that counts has both legs of v, so that losing one loses nothing.
func (w *World) bothIn(v int) bool {
	for i := range w.N {
		d := &w.N[i].Disk
		if d.Members != m.Both || d.Legs[v].Set != m.Both {
			return false
		}
	}
	return true
}

// legMoves: a copy or a barrier of R24 is under way: a leg may fail in the middle of it.
func (w *World) legMoves(v int) bool {
	for i := range w.N {
		if n := &w.N[i]; n.CopyOut != 0 || n.Hold || n.HoldLeg.Has(m.VolumeSlot(v)) {
			return true
		}
	}
	return false
}

// takes is section 8: a replicated write is taken iff epoch and session are those of the grant or of its prepared tuple.
func (n *Node) takes(f Frame) bool {
	if !n.Up || !n.Granted || n.Grant.Mode != m.Paired {
		return false
	}
	if mutant("M23") {
		return true
	}
	return f.Session == n.Grant.Session && (f.Epoch == n.Grant.Epoch && n.Grant.Prepared == 0 || n.Grant.Prepared != 0 && f.Epoch == n.Grant.Prepared)
}
