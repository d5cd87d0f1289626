package explore

import (
	"fmt"

	m "duet/appliance/membership"
	"duet/witness/register"
)

// Kind of an action.
type Kind uint8

// The actions. One is one thing that happens somewhere; between two of them everything else may happen.
const (
	ActEffect Kind = iota // the next barrier of a node's queue, with what follows it up to the next
	ActCrash
	ActBoot
	ActRestart      // of duetd alone; Arg 1: the messages in flight are lost
	ActConnect      // a session begins
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
	ActWrite  // a client writes; Arg: volume
	ActFrame  // a replicated write arrives; Arg: volume
	ActAck    // its ack arrives, the client is answered; Arg: volume
	ActAlone  // a solo owner answers the client; Arg: volume
	ActTick   // Arg 0: both clocks, 1: only a's, 2: only b's
	kindCount // number of kinds
)

var kindNames = [kindCount]string{
	"effect", "crash", "boot", "restart", "connect", "learn", "suspect", "deliver", "beat", "deliver-beat", "timer", "witness",
	"reply", "fence-hit", "fence-unknown", "fence-late", "verdict", "copy", "proof", "want", "found", "write", "frame", "ack", "alone", "tick",
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
	}
	if p.Witness {
		for i, x := range w.Packets {
			if x.Kind == CASRequest || x.Kind == PushRequest {
				out = append(out, Action{Kind: ActWitness, Node: x.From, Arg: uint8(i)})
				if w.Left.Dup > 0 {
					out = append(out, Action{Kind: ActWitness, Node: x.From, Arg: uint8(i + packetMax)})
				}
			}
		}
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
		if (x.Kind == CASReply || x.Kind == PushReply) && x.From == id {
			out = append(out, Action{ActReply, id, uint8(i)})
		}
	}
	if n.Verdict.Attempt != 0 {
		out = append(out, Action{ActVerdict, id, 0})
	}
	if n.Proof.Session != 0 {
		out = append(out, Action{ActProof, id, 0})
	}
	out = p.timers(w, id, out)
	if p.Beats && s.Committed() && s.Lease < n.Clock+s.Cfg.Lease && (!p.OneBeat || id == m.A && s.Beats[0].Nonce == 0) {
		out = append(out, Action{ActBeat, id, 0})
	}
	if p.Start == FromFresh && id == m.A && s.Fresh() && s.Session != 0 && s.Peer.Fresh && s.Copy == m.CopyIdle {
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
		solo := s.Mode == m.Solo && (s.Owns(r) || s.PeerStopped(n.Clock))
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
	for t := m.TimerID(0); t < m.TimerCount; t++ {
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
	if s.Ask.Nonce != 0 && !flying(s.Ask.Nonce) || s.Push.Nonce != 0 && !flying(s.Push.Nonce) {
		return true
	}
	return s.Committing && w.Net.Q[id][0] == nil
}

// data: what clients and the two mirror daemons do.
func (p *Params) data(w *World, id m.Node, out []Action) []Action {
	n, peer := w.node(id), w.node(id.Peer())
	for v := range volumes {
		arg := uint8(v)
		if f := peer.Out[v]; f.Write != 0 && n.takes(f) {
			out = append(out, Action{ActFrame, id, arg})
		}
		if !n.live() || !n.ownsVolume(v) {
			continue
		}
		paired := n.Grant.Mode == m.Paired && n.Grant.Prepared == 0
		switch {
		case n.Pend[v] == 0:
			if (paired || n.Grant.Mode == m.Solo) && !n.Hold && w.Left.Write > 0 {
				out = append(out, Action{ActWrite, id, arg})
			}
		case n.Grant.Mode == m.Solo || mutant("M14"):
			out = append(out, Action{ActAlone, id, arg})
		case paired && n.Back[v].Write == n.Pend[v] && n.Back[v].Session == n.Grant.Session:
			out = append(out, Action{ActAck, id, arg})
		case paired && (n.Out[v].Write != n.Pend[v] || n.Out[v].Session != n.Grant.Session):
			out = append(out, Action{ActWrite, id, arg}) // issued again after a hold
		}
	}
	return out
}

// takes is section 8: a replicated write is taken iff epoch and session are those of the grant or of its prepared tuple.
func (n *Node) takes(f Frame) bool {
	if !n.Up || !n.Granted || n.Grant.Mode != m.Paired || f.Session != n.Grant.Session {
		return false
	}

	return f.Epoch == n.Grant.Epoch && n.Grant.Prepared == 0 || n.Grant.Prepared != 0 && f.Epoch == n.Grant.Prepared
}

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
		n.Up, n.Shot = true, false
		return p.input(w, a.Node, m.Boot{Record: n.Disk})
	case ActRestart:
		return p.restart(w, a.Node, a.Arg == 1)
	case ActConnect:
		w.Left.Session--
		w.Net = Net{Session: m.Session(w.Net.Count + 1), Count: w.Net.Count + 1}
		for i := range w.N {
			w.N[i].Out, w.N[i].Back = [volumes]Frame{}, [volumes]Frame{}
		}
	case ActLearn:
		w.Net.Learned[a.Node] = true
		return p.input(w, a.Node, m.Connected{Session: w.Net.Session})
	case ActSuspect:
		if w.holds(a.Node.Peer()) || !w.Net.Learned[a.Node.Peer()] && n.Core.Session == w.Net.Session {
			w.Left.Cut--
		}
		return p.input(w, a.Node, m.PeerLost{Session: n.Core.Session})
	case ActBeat:
		return p.input(w, a.Node, m.Beat{})
	case ActTimer:
		n.Armed &^= 1 << a.Arg
		return p.input(w, a.Node, m.Timer{Timer: m.TimerID(a.Arg)})
	case ActWant:
		return p.input(w, a.Node, m.Want{Resource: m.ResourceID(a.Arg)})
	case ActFound:
		if w.RID == 0 || !mutant("R27 register") {
			w.RID, w.Reg = w.RID+1, register.Content{} // CREATE(site, 0, {})
		}
		return p.input(w, a.Node, founding(w.RID))
	case ActTick:
		w.tick(a.Arg)
	case ActDeliver, ActDeliverBeat, ActWitness, ActReply:
		return p.arrives(w, a)
	case ActFenceHit, ActFenceUnknown, ActFenceLate, ActVerdict:
		return p.fencing(w, a)
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
	n.Queue, n.Armed, n.Verdict, n.Proof = nil, 0, m.FenceResult{}, m.CopyDone{}
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
		if x.RID == w.RID { // the answer of an older register would say only that it was never written
			w.ask(x)
		}
		return nil
	}
	x := w.Packets[a.Arg]
	w.Packets[a.Arg] = Packet{}
	op := m.OpCAS
	if x.Kind == PushReply {
		op = m.OpPush
	}
	return p.input(w, a.Node, m.WitnessReply{Op: op, Nonce: x.Nonce, RID: rid(x.RID), Result: x.Result, Register: x.Content})
}

// ask runs the witness's own code.
func (w *World) ask(x Packet) {
	reg := register.Register{Content: w.Reg}
	reply := Packet{Kind: CASReply, From: x.From, RID: x.RID, Nonce: x.Nonce, Result: m.WitnessFailed}
	var done bool
	if x.Kind == CASRequest {
		expected := content(x.Expected)
		if mutant("M2") && uint64(x.Content.Ep) > uint64(w.Reg.Epoch) { // "newer epoch" is enough
			expected = w.Reg
		}
		reg, done, _ = reg.CAS(expected, content(x.Content))
	} else {
		reply.Kind = PushReply
		reg, done, _ = reg.Push(register.Epoch(x.Content.Ep))
	}
	if done {
		reply.Result = m.WitnessOK
	}
	w.Reg = reg.Content
	reply.Content = m.RegisterContent{Ep: m.Epoch(reg.Content.Epoch), Set: m.Set(reg.Content.Set)}
	w.packet(reply)
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
		if n.Grant.Mode == m.Paired {
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
		if n.Leg[v] < n.Pend[v] || peer.Leg[v] < n.Pend[v] {
			return fmt.Errorf("I6 paired-means-two: write %d of volume %d is on legs %d and %d", n.Pend[v], v, n.Leg[v], peer.Leg[v])
		}
		w.acknowledge(a.Node, v)
	case ActAlone:
		if n.Grant.Mode == m.Paired && peer.Leg[v] < n.Pend[v] {
			return fmt.Errorf("I6 paired-means-two: write %d of volume %d is on one leg", n.Pend[v], v)
		}
		w.acknowledge(a.Node, v)
	}
	return nil
}

func (w *World) acknowledge(id m.Node, v int) {
	n := w.node(id)
	w.Acked[v] = max(w.Acked[v], n.Pend[v])
	n.Pend[v], n.Out[v], n.Back[v] = 0, Frame{}, Frame{}
}

// copyLegs: from the solo node; between two members each volume from its owner, as the coordinator knows it.
func (w *World) copyLegs(id m.Node) {
	n, t := w.node(id), w.node(id.Peer())
	for v := range volumes {
		if mutant("M16") && n.Grant.Mode == m.Resolving {
			continue
		}
		if n.Grant.Mode == m.Solo || n.ownsVolume(v) {
			t.Leg[v] = n.Leg[v]
		} else {
			n.Leg[v] = t.Leg[v]
		}
	}
	proof := m.CopyDone{Session: n.CopyOut, Digest: m.Digest{n.Leg[0], n.Leg[1]}}
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
		f.Legs[v] = m.VolumeLegs{Set: m.Both, Version: 1}
	}
	return f
}
