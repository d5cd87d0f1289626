package decide

import "duet/appliance/membership"

// Step is one decision. It is total: an input without a matching rule changes nothing.
func Step(s State, in Input) (State, []Effect) {
	t := turn{s: s, in: in, rec: in.Docs.Newest()}
	t.fold()
	t.c1Closed()
	if t.x3LeaseEnd() {
		return t.s, t.out
	}
	t.renew()
	t.l3Watch()
	for _, rule := range rules {
		if t.s.Doing != Idle || t.in.Now < t.s.Rest {
			break
		}
		rule(&t)
	}
	return t.s, t.out
}

// rules in order; each looks at everything it needs, and starts at most one long effect, which ends the round.
var rules = [...]func(*turn){
	(*turn).h2Hung,
	(*turn).b1Create, (*turn).b2Again,
	(*turn).s8Lend, (*turn).n5NotHolder, (*turn).n2Evidence,
	(*turn).c2HandOver, (*turn).s3Compare, (*turn).s2Start,
	(*turn).n3Promote, (*turn).s1Timeline,
	(*turn).l5Choice, (*turn).open, (*turn).l1Lost, (*turn).l3Release, (*turn).g2Arm, (*turn).g3Marker, (*turn).g4Count,
	(*turn).n4Serve, (*turn).p1Order, (*turn).p3Compare,
	(*turn).rejoin, (*turn).j2Streams, (*turn).readAddress,
}

// turn is one Step in progress.
type turn struct {
	s   State
	in  Input
	rec Record
	out []Effect
}

// do appends effects; a long one is under way from now on.
func (t *turn) do(effects ...Effect) {
	for _, e := range effects {
		t.out = append(t.out, e)
		t.assume(e)
		switch w := e.Work(); w {
		case Idle:
		case Checkpointing:
			t.s.Checkpoint = true
		case Moving:
			t.s.Doing, t.s.DoingSince, t.s.Offered = w, t.in.Now, t.owned()
		default:
			t.s.Doing, t.s.DoingSince = w, t.in.Now
		}
	}
}

// assume that what is done at once is done: later rules of this turn see it.
func (t *turn) assume(e Effect) {
	l := &t.in.Local
	switch e := e.(type) {
	case SetNames:
		l.Names = e.Names
	case SetGate:
		if e.Gate == Write {
			l.WriteOpen = e.Open
		} else {
			l.ReadOpen = e.Open
		}
	case SetAddress:
		if e.Gate == Write {
			l.WriteAddress = e.Add
		} else {
			l.ReadAddress = e.Add
		}
	default:
	}
}

func (t *turn) self() membership.Node { return t.in.Self }
func (t *turn) peer() membership.Node { return t.in.Self.Peer() }

func (t *turn) owned() given { return given{true, t.in.Grant.Epoch, t.in.Grant.Version} }

// mayRun: this node is the owner under a grant that is not over, and holds everything (S1). What runs may go on while the
// pair is frozen.
func (t *turn) mayRun() bool {
	g := &t.in.Grant
	switch {
	case g.Owner != t.self() || t.owned() == t.s.Gave || t.rec.Version != 0 && !t.rec.Copies.Has(t.self()) && !mutant("promote anyone"):
		return false
	case g.Mode == membership.Solo:
		return g.Deadline == 0 || t.in.Now < g.Deadline
	case g.Mode == membership.Init, g.Mode == membership.Joining && !g.Right: // a joiner runs only what was lent to it (R29)
		return false
	}
	return t.in.Now < g.Deadline
}

// together says whether records can be written and owners moved: both nodes take part, or this one is all there is.
func (t *turn) together() bool {
	g := &t.in.Grant
	return g.Mode == membership.Paired || g.Mode == membership.Solo || g.Mode == membership.Joining && g.Right
}

// mayStart: something new may begin here (R8, R9).
func (t *turn) mayStart() bool { return t.in.Enabled && t.mayRun() && t.in.Grant.Right && t.together() }

// mayWrite the record: one change at a time, and only by the owner.
func (t *turn) mayWrite() bool {
	g := &t.in.Grant
	return g.Owner == t.self() && t.owned() != t.s.Gave && t.together() && !t.in.Docs.Writing && (g.Mode == membership.Solo || t.in.Now < g.Deadline)
}

// peerFresh: what the peer says of itself is not older than Cfg.PeerFresh.
func (t *turn) peerFresh() bool {
	p := &t.in.Peer
	return p.At != 0 && t.in.Now-p.At <= t.s.Cfg.PeerFresh
}

func (t *turn) peerIn() bool { return t.rec.Copies.Has(t.peer()) }

// streaming: the peer's walsender sends and is answered.
func (t *turn) streaming() bool { return t.in.Local.Sender.PID != 0 && t.in.Local.Sender.Streaming }

// peerServes: the peer is the primary of the record, by its own fresh word.
func (t *turn) peerServes() bool {
	return t.peerFresh() && t.in.Peer.Proc == ProcPrimary && t.in.Peer.Timeline == t.rec.Timeline && t.in.Grant.Owner == t.peer()
}

// write starts a change of the record by rule W.
func (t *turn) write(r Record, growth bool) {
	if r.Copies != t.rec.Copies || t.rec.Version == 0 {
		r.Since = t.in.Wall
	}
	if mutant("shrink owner-first") && !growth || mutant("grow peer-first") && growth {
		growth = !growth
	}
	t.do(WriteRecord{Record: r, Growth: growth})
}

// fault raises or clears a code once.
func (t *turn) fault(code uint16, on bool) {
	for i, f := range faults {
		if f != code {
			continue
		}
		if bit := uint16(1) << i; on != (t.s.Faults&bit != 0) {
			t.s.Faults ^= bit
			t.do(SetFault{code, on})
		}
	}
}

// fold takes what ended and what is new into the memory.
func (t *turn) fold() {
	switch e := t.in.Event.(type) {
	case Done:
		t.done(e)
	case Order:
		t.order(e)
	}
	s, l := &t.s, &t.in.Local
	if l.Proc == ProcUnseen {
		return
	}
	if !s.Looked && l.Proc == ProcPrimary && l.WriteOpen {
		// A process before this one has opened the gate: then the marker had proved it, or there was no one to wait for.
		s.Life, s.Was, s.Opened = l.Life, l.Proc, l.Life
		if t.peerIn() {
			s.Proven = l.Life
		}
	}
	s.Looked = s.Looked || l.Proc == ProcPrimary || l.Proc == ProcStandby || l.Proc == ProcStopped
	switch {
	case l.Proc == ProcStopped && s.Life != 0:
		if !s.Expected {
			t.c4Fail()
			s.Died = s.Was == ProcPrimary
		}
		s.Life, s.Expected, s.Checkpoint, s.AloneSince = 0, false, false, 0
	case l.Life != 0 && l.Life != s.Life:
		s.Life, s.Was, s.Armed, s.MarkAt = l.Life, l.Proc, 0, 0
		s.LostSince, s.GoodSince, s.FlushAt, s.ReleaseSince, s.AloneSince = 0, 0, 0, 0, 0
	}
	if l.Proc == ProcPrimary || l.Proc == ProcStandby {
		if s.Was != l.Proc {
			s.LostSince, s.GoodSince, s.AloneSince = 0, 0, 0 // promoted in this life
		}
		s.Was = l.Proc
	}
	t.watchStandby()
}

// done ends the long effect that is under way; a late word about another one changes nothing.
func (t *turn) done(e Done) {
	s := &t.s
	if e.Work == Checkpointing {
		s.Checkpoint = false
		if s.Order == OrderCheckpoint {
			s.Order = OrderStop
			if !e.OK {
				s.Order = OrderNone // P5
			}
		}
		return
	}
	if e.Work != s.Doing {
		return
	}
	s.Doing = Idle
	if !e.OK {
		s.Rest = t.in.Now + s.Cfg.MarkAgain
	}
	switch e.Work {
	case Creating:
		s.Created = e.OK
	case Starting:
		if !e.OK && s.Life == 0 { // one that was seen alive is counted when it is seen gone
			t.c4Fail()
		}
	case Stopping:
		s.Expected = s.Expected && e.OK
	case Marking:
		t.marked(e)
	case Moving:
		s.Died = s.Died && !e.OK
		s.NoMove = !e.OK
		if e.OK {
			s.Gave = s.Offered
		}
		s.Order = OrderNone
	case Exporting:
		s.Exported = e.OK
	case Cloning, Rewinding, Copying, Switching:
		t.rejoined(e)
	default: // what the others did is seen in the next look
	}
}
