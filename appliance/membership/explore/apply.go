package explore

import (
	"fmt"

	m "duet/appliance/membership"
	"duet/witness/register"
)

// Apply lets a happen. The error is a violated invariant.
func (p *Params) Apply(w *World, a Action) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	if err = p.apply(w, a); err != nil {
		return err
	}
	return p.Check(w)
}

func (p *Params) apply(w *World, a Action) error {
	n := w.node(a.Node)
	switch a.Kind {
	case ActEffect:
		return p.advance(w, a.Node)
	case ActCrash:
		w.Left.Crash--
		w.crash(a.Node)
	case ActBoot:
		n.Up, n.Shot, n.Failed = true, false, n.Bad
		return p.input(w, a.Node, m.Boot{Record: n.Disk})
	case ActRestart:
		return p.restart(w, a.Node, a.Arg == 1)
	case ActConnect:
		if !p.Endless {
			w.Left.Session--
		}
		if a.Arg > 0 {
			from := m.Node(a.Arg - 1)
			w.Left.Ghost--
			w.Ghost = Ghost{w.Net.Session, from.Peer(), w.Net.Q[from][0]}
		}
		w.Net = Net{Session: m.Session(w.Net.Count + 1), Count: w.Net.Count + 1}
	case ActLearn:
		w.Net.Learned[a.Node], n.Wire = true, w.Net.Session
		return p.input(w, a.Node, m.Connected{Session: w.Net.Session})
	case ActSuspect:
		if w.holds(a.Node.Peer()) || !w.Net.Learned[a.Node.Peer()] && n.Core.Session == w.Net.Session {
			w.Left.Cut--
		}
		n.Wire = 0
		return p.input(w, a.Node, m.PeerLost{Session: n.Core.Session})
	case ActBeat:
		return p.input(w, a.Node, m.Beat{})
	case ActTimer:
		n.Armed &^= 1 << a.Arg
		return p.input(w, a.Node, m.Timer{Timer: m.TimerID(a.Arg)})
	case ActWant:
		return p.input(w, a.Node, m.Want{Resource: m.ResourceID(a.Arg)})
	case ActFound:
		if w.RIDs == 0 || !mutant("R27 register") {
			w.RIDs++
			w.Store[w.RIDs-1] = Register{Known: true} // CREATE(site, 0, {})
		}
		return p.input(w, a.Node, founding(w.RIDs))
	case ActTick:
		w.tick(a.Arg)
	case ActDeliver, ActDeliverBeat, ActWitness, ActReply:
		return p.arrives(w, a)
	case ActFenceHit, ActFenceUnknown, ActFenceLate, ActVerdict:
		return p.fencing(w, a)
	case ActLeave, ActMove, ActArbiter, ActForce, ActDoc, ActCopies:
		return p.ordered(w, a)
	case ActDrained:
		return p.input(w, a.Node, m.Drained{Resource: m.ResourceID(a.Arg % resources), OK: a.Arg < resources})
	case ActEmpty:
		w.Left.Empty--
		for k := range w.Store {
			w.Store[k].Known = false
		}
	case ActGhost:
		g := w.Ghost
		w.Ghost = Ghost{}
		return p.input(w, a.Node, m.Received{Session: g.Session, Message: g.Message})
	case ActLegLoss, ActFailed, ActRepair, ActSync, ActSynced:
		return p.legChange(w, a)
	default:
		return p.replication(w, a)
	}
	return nil
}

// restart of duetd: VMs, grants and lanes go on; what it was about to do is lost. The snapshot counts only when no
// Persist was cut off (section 4).
func (p *Params) restart(w *World, id m.Node, lose bool) error {
	n := w.node(id)
	w.Left.Restart--
	var e m.Event = m.Resume{}
	for _, q := range n.Queue {
		if _, cut := q.(m.Persist); cut && !mutant("N23") {
			e = m.Boot{Record: n.Disk}
		}
	}
	n.strand(w)
	if n.Core.Session == 0 {
		n.Wire = 0
	}
	n.Queue, n.Armed, n.Verdict, n.Proof = nil, 0, m.FenceResult{}, m.CopyDone{}
	if e != (m.Event)(m.Resume{}) {
		n.Failed = n.Bad
	}
	if lose {
		w.Net.Q, w.Net.Beats = [2][queueMax]m.Message{}, [2][beatMax]m.Message{}
	}
	w.Net.Learned[id] = true
	return p.input(w, id, e)
}

func (w *World) tick(which uint8) {
	if which != 2 {
		w.N[m.A].Clock++
		w.Drift++
	}
	if which != 1 {
		w.N[m.B].Clock++
		w.Drift--
	}
	for i := range w.N { // the lease guard needs no core
		n := &w.N[i]
		if !n.live() {
			n.Run = 0
		}
	}
}

func (p *Params) arrives(w *World, a Action) error {
	from := a.Node.Peer()
	switch a.Kind {
	case ActDeliver:
		q := &w.Net.Q[from]
		msg := q[0]
		if a.Arg == 1 {
			w.Left.Dup--
		} else {
			copy(q[:], q[1:])
			q[queueMax-1] = nil
		}
		return p.input(w, a.Node, m.Received{Session: w.Net.Session, Message: msg})
	case ActDeliverBeat:
		lane := &w.Net.Beats[from]
		msg := lane[a.Arg%beatMax]
		if a.Arg >= beatMax {
			w.Left.Dup--
		} else {
			lane[a.Arg] = nil
			packBeats(lane)
		}
		return p.input(w, a.Node, m.Received{Session: w.Net.Session, Message: msg})
	case ActWitness:
		x := w.Packets[a.Arg%packetMax]
		if a.Arg >= packetMax {
			w.Left.Dup--
		} else {
			w.Packets[a.Arg] = Packet{}
		}
		w.ask(x)
		return nil
	default: // nothing for the others
	}
	x := w.Packets[a.Arg]
	w.Packets[a.Arg] = Packet{}
	op := m.OpCAS
	switch x.Kind {
	case PushReply:
		op = m.OpPush
	case CreateReply:
		op = m.OpCreate
	default: // the others as below
	}
	return p.input(w, a.Node, m.WitnessReply{Op: op, Nonce: x.Nonce, RID: rid(x.RID), Result: x.Result, Register: x.Content})
}

// ask runs the witness's own code.
func (w *World) ask(x Packet) {
	if x.Kind == CreateRequest {
		w.create(x)
		return
	}
	reply := Packet{Kind: CASReply, From: x.From, RID: x.RID, Nonce: x.Nonce, Result: m.WitnessFailed}
	if x.Kind == PushRequest {
		reply.Kind = PushReply
	}
	if x.RID == 0 || !w.Store[x.RID-1].Known {
		reply.Result = m.WitnessUnknown
		w.packet(reply)
		return
	}
	kept := &w.Store[x.RID-1].Content
	reg := register.Register{Content: *kept}
	var done bool
	if x.Kind == CASRequest {
		expected := content(x.Expected)
		if mutant("M2") && uint64(x.Content.Ep) > uint64(kept.Epoch) { // "newer epoch" is enough
			expected = *kept
		}
		reg, done, _ = reg.CAS(expected, content(x.Content))
	} else {
		reg, done, _ = reg.Push(register.Epoch(x.Content.Ep))
	}
	if done {
		reply.Result = m.WitnessOK
	}
	*kept = reg.Content
	reply.Content = m.RegisterContent{Ep: m.Epoch(reg.Content.Epoch), Set: m.Set(reg.Content.Set)}
	w.packet(reply)
}

// create makes a register; a repeat of the same request gets the one that was made, unless it was forgotten since.
func (w *World) create(x Packet) {
	k := -1
	for i, reg := range w.Store {
		if reg.Nonce == x.Nonce && (reg.Known || mutant("N21") && reg.Nonce != 0) {
			k = i
		}
	}
	switch {
	case k >= 0 && w.Store[k].Known:
	case k >= 0: // N21: the node made the id, so an emptied store makes the same one again
		w.Store[k] = Register{true, x.Nonce, content(x.Content)}
	default:
		k = int(w.RIDs)
		w.RIDs++
		w.Store[k] = Register{true, x.Nonce, content(x.Content)}
	}
	w.packet(Packet{Kind: CreateReply, From: x.From, RID: uint8(k + 1), Nonce: x.Nonce, Result: m.WitnessOK})
}

func content(c m.RegisterContent) register.Content {
	return register.Content{Epoch: register.Epoch(c.Ep), Set: register.Set(c.Set)}
}

func (p *Params) fencing(w *World, a Action) error {
	n, peer := w.node(a.Node), a.Node.Peer()
	attempt := n.FenceOut
	switch a.Kind {
	case ActFenceHit:
		n.FenceOut, n.Verdict = 0, m.FenceResult{Attempt: attempt, Verdict: m.Confirmed}
		w.shoot(peer)
	case ActFenceUnknown:
		w.Left.Unknown--
		n.FenceOut, n.Verdict = 0, m.FenceResult{Attempt: attempt, Verdict: m.Unknown}
		if a.Arg == 1 {
			w.shoot(peer)
		}
	case ActFenceLate:
		if n.Late == Cancelled {
			w.Left.Late--
		}
		n.Late = NoStray
		w.shoot(peer)
	case ActVerdict:
		v := n.Verdict
		n.Verdict = m.FenceResult{}
		return p.input(w, a.Node, v)
	default: // the others as below
	}
	return nil
}

func (w *World) shoot(id m.Node) {
	n := w.node(id)
	if !n.Up {
		return
	}
	dying := n.FenceOut != 0
	w.crash(id)
	n.Shot = true
	if dying {
		n.Late = Dying
	}
}

func (p *Params) ordered(w *World, a Action) error {
	e := w.order(a)
	switch a.Kind {
	case ActLeave:
		w.Left.Leave--
	case ActMove:
		w.Left.Move--
	case ActArbiter:
		if m.ArbKind(a.Arg) == m.ArbFence {
			w.Left.Arbiter--
		} else {
			w.Left.Witness--
		}
	case ActDoc:
		w.Left.Doc--
	case ActCopies:
		w.Left.Copies--
	case ActForce:
		w.Left.Force--
		w.Forced = w.Forced || a.Arg == 0
	default: // nothing for the others
	}
	return p.input(w, a.Node, e)
}

func (p *Params) legChange(w *World, a Action) error {
	n, peer, v := w.node(a.Node), w.node(a.Node.Peer()), m.VolumeSlot(a.Arg)
	switch a.Kind {
	case ActLegLoss:
		w.Left.LegLoss--
		n.Bad |= 1 << v
		n.Failed |= 1 << v
	case ActFailed:
		n.Failed &^= 1 << v
		return p.input(w, a.Node, m.LegFailed{Volume: v})
	case ActRepair:
		n.Bad &^= 1 << v
	case ActSync:
		if !mutant("N11") {
			peer.Leg[v] = n.Leg[v]
		}
		done := m.LegSynced{Session: n.Grant.Session, Volume: v, Digest: m.Digest{1 + n.Leg[v], uint8(v)}}
		n.Synced, peer.Synced = done, done
		n.Out[v], peer.Out[v] = Frame{}, Frame{} // the lane keeps order: what was sent before the barrier has come or is lost
		n.HoldLeg |= 1 << v
		peer.HoldLeg |= 1 << v
	case ActSynced:
		e := n.Synced
		n.Synced = m.LegSynced{}
		return p.input(w, a.Node, e)
	default: // nothing for the others
	}
	return nil
}

func (p *Params) replication(w *World, a Action) error {
	n, peer, v := w.node(a.Node), w.node(a.Node.Peer()), int(a.Arg)
	switch a.Kind {
	case ActCopy:
		w.copyLegs(a.Node)
	case ActProof:
		e := n.Proof
		n.Proof = m.CopyDone{}
		return p.input(w, a.Node, e)
	case ActWrite:
		if n.Pend[v] == 0 {
			w.Left.Write--
			w.Writes++
			n.Pend[v] = w.Writes
		}
		if n.Leg[v] > n.Pend[v] {
			return fmt.Errorf("I3b in-order: write %d over %d on leg %v of volume %d", n.Pend[v], n.Leg[v], a.Node, v)
		}
		n.Leg[v] = n.Pend[v]
		if n.Grant.Mode == m.Paired && n.legCounts(v, a.Node.Peer()) {
			n.Out[v], n.Back[v] = Frame{n.Pend[v], n.Grant.Session, n.Grant.Epoch}, Frame{}
		}
	case ActFrame:
		f := peer.Out[v]
		if n.Leg[v] > f.Write {
			return fmt.Errorf("I3b in-order: write %d over %d on leg %v of volume %d", f.Write, n.Leg[v], a.Node, v)
		}
		n.Leg[v] = f.Write
		peer.Out[v], peer.Back[v] = Frame{}, f
	case ActAck:
		if n.legCounts(v, a.Node) && n.Leg[v] < n.Pend[v] || peer.Leg[v] < n.Pend[v] {
			return fmt.Errorf("I6 paired-means-two: write %d of volume %d is on legs %d and %d", n.Pend[v], v, n.Leg[v], peer.Leg[v])
		}
		w.acknowledge(a.Node, v)
		n.Out[v] = Frame{}
	case ActAlone:
		if n.Grant.Mode == m.Paired && n.legCounts(v, a.Node.Peer()) && peer.Leg[v] < n.Pend[v] {
			return fmt.Errorf("I6 paired-means-two: write %d of volume %d is on one leg", n.Pend[v], v)
		}
		w.acknowledge(a.Node, v)
	default: // the others as below
	}
	return nil
}

func (w *World) acknowledge(id m.Node, v int) {
	n := w.node(id)
	w.Acked[v] = max(w.Acked[v], n.Pend[v])
	n.Pend[v], n.Back[v] = 0, Frame{} // what was sent may still arrive
}

// copyLegs: from the leg that is in where only one is; between two that are, from the solo node, or from the volume's
// owner, as the coordinator knows it. A leg that takes no more writes is neither copied to nor from: it stays out.
func (w *World) copyLegs(id m.Node) {
	n, t := w.node(id), w.node(id.Peer())
	proof := m.CopyDone{Session: n.CopyOut}
	for v := range volumes {
		broken := false
		for k := range w.N {
			if w.N[k].bad(v) {
				proof.Out[k] |= 1 << v
				broken = true
			}
		}
		if broken {
			continue
		}
		if mutant("M16") && n.Grant.Mode == m.Resolving {
			continue
		}
		from, to := n, t
		switch {
		case !n.legCounts(v, id), n.legCounts(v, id.Peer()) && n.Grant.Mode != m.Solo && !n.ownsVolume(v):
			from, to = t, n
		}
		to.Leg[v] = from.Leg[v]
	}
	proof.Digest = m.Digest{n.Leg[0], n.Leg[1]} // whatever it is, both sides have the same
	n.Proof, t.Proof = proof, proof
	n.Hold, t.Hold = true, true
	n.CopyOut = 0
}

func founding(k uint8) m.Found {
	f := m.Found{Site: theSite, Arb: m.Arb{Kind: m.ArbWitness, RID: rid(k)}}
	for r := range resources {
		f.Owners[r] = m.Owner{Node: m.A, Version: 1}
	}
	for v := range volumes {
		f.Legs[v] = m.VolumeLegs{Set: m.Both, Resource: m.ResourceID(v + 1), Version: 1}
	}
	return f
}
