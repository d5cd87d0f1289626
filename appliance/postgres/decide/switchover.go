package decide

import "duet/appliance/membership"

// Refusal is the first line of P1 that does not hold.
type Refusal uint8

// The refusals, in the order in which they are asked.
const (
	Granted Refusal = iota
	RefusedNotHere
	RefusedNotPaired
	RefusedBusy
	RefusedCopies
	RefusedNotStreaming
	RefusedLag
	RefusedSpace
)

// String says what must hold.
func (r Refusal) String() string {
	return [...]string{
		"granted", "this node is not the primary", "the nodes are not paired", "something else is under way", "the standby does not hold everything",
		"the standby does not stream", "the standby is too far behind", "a node has no space for a rejoin",
	}[r&7]
}

// Allows says whether a switchover may begin (P1).
func (s *State) Allows(in Input) Refusal {
	t := turn{s: *s, in: in, rec: in.Docs.Newest()}
	l := &in.Local
	switch {
	case l.Proc != ProcPrimary || !t.mayStart() || s.Opened != s.Life:
		return RefusedNotHere
	case in.Grant.Mode != membership.Paired || !t.peerFresh():
		return RefusedNotPaired
	case s.Doing != Idle || s.Order != OrderNone || in.Docs.Writing || s.Checkpoint:
		return RefusedBusy
	case t.rec.Copies != membership.Both || s.Proven != s.Life:
		return RefusedCopies
	case !t.streaming() || in.Peer.Proc != ProcStandby || in.Peer.Timeline != l.Timeline:
		return RefusedNotStreaming
	case l.End > l.Sender.Flush+s.Cfg.LagMost:
		return RefusedLag
	case !in.Peer.SpaceClone || !l.SpaceClone:
		return RefusedSpace
	}
	return Granted
}

// order takes what a person asks for; whether it is carried out is for the rules.
func (t *turn) order(o Order) {
	switch o.Kind {
	case OrderSwitchover:
		if t.s.Allows(t.in) == Granted {
			t.s.Order, t.s.OrderSince = OrderCheckpoint, t.in.Now
			t.do(Checkpoint{}) // so that the shutdown writes little (P2)
		}
	case OrderResume:
		t.s.Resume = t.rec.Version != 0 && !t.rec.Copies.Has(t.self())
	case OrderReclone:
		t.s.Reclone = true
	}
}

// p1Order is P2: no client may see the stop; a switchover whose ground is gone ends here, before anything was stopped.
func (t *turn) p1Order() {
	s, l := &t.s, &t.in.Local
	if s.Order != OrderCheckpoint && s.Order != OrderStop {
		return
	}
	if l.Proc != ProcPrimary || !t.mayStart() || t.in.Grant.Mode != membership.Paired || !t.peerIn() || !t.streaming() {
		s.Order = OrderNone // P5
		return
	}
	if s.Order == OrderStop {
		s.Order, s.OrderSince, s.Expected, s.Opened = OrderCompare, t.in.Now, true, 0
		t.do(SetGate{Gate: Write}, SetAddress{Gate: Write}, StopServer{})
	}
}

// p3Compare: the standby must have received the end of our log, which a fast stop waits for. P4 moves the ownership; P5
// is every other end: the server starts again (S2), which is possible until the move.
func (t *turn) p3Compare() {
	s, l, p := &t.s, &t.in.Local, &t.in.Peer
	if s.Order != OrderCompare {
		return
	}
	switch {
	case t.in.Now-s.OrderSince >= s.Cfg.StopBy+s.Cfg.CompareBy || !t.mayStart() || t.in.Grant.Mode != membership.Paired:
		s.Order = OrderNone
	case l.Proc != ProcStopped:
	case !l.Clean:
		s.Order = OrderNone
	case t.peerFresh() && p.Proc == ProcStandby && p.Timeline == l.Timeline && l.End != 0 && p.End >= l.End && !t.in.Docs.Writing:
		s.Order = OrderMove
		t.do(MoveOwner{})
	}
}

// p4Follows: the new owner has everything that the old primary's clean stop wrote, so the old one can follow without a
// rewind, copies stay as they are, and no moment is unprotected.
func (t *turn) p4Follows() bool {
	l, p := &t.in.Local, &t.in.Peer
	return t.in.Grant.Mode == membership.Paired && t.rec.Copies == membership.Both && t.peerFresh() && p.Dir == DirOurs &&
		p.Proc == ProcStopped && p.Clean && p.Timeline == l.Timeline && p.End != 0 && l.End >= p.End && l.Replay >= p.End
}
