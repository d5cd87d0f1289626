package decide

import "duet/appliance/membership"

// s2Start starts the owner's server behind closed gates, after a clean stop (S2) and after a crash (S4, C3) alike: what
// clients may see of it is decided by open. A directory that is not on the record's timeline, or was a standby's, starts as
// a standby and is promoted (N3).
func (t *turn) s2Start() {
	l := &t.in.Local
	if l.Proc != ProcStopped || l.Dir != DirOurs || t.rec.Version == 0 || !t.mayStart() || t.s.Order >= OrderCompare {
		return
	}
	if t.in.Now < t.backoff() || t.s3Waits() {
		return
	}
	t.s.Patience = t.s.Cfg.BootPatience
	if t.s.Died {
		t.s.Patience = t.s.Cfg.DegradeAfter
	}
	if l.StandbyDir || l.Timeline != t.rec.Timeline {
		t.do(StartServer{})
		return
	}
	names := NamesNone
	if t.peerIn() {
		names = NamesPeer
	}
	t.do(StartServer{Primary: true, Names: names})
}

// s1Timeline: a primary on another timeline than the record's, because a promotion was planned elsewhere and did not come
// about, or is not known to. It goes down and comes back by N3, on a number of its own.
func (t *turn) s1Timeline() {
	l := &t.in.Local
	if l.Proc != ProcPrimary || !t.mayRun() || t.rec.Version == 0 || l.Timeline == t.rec.Timeline {
		return
	}
	t.s.Expected, t.s.Opened = true, 0
	t.do(SetGate{Gate: Write}, SetAddress{Gate: Write}, StopServer{})
}

// s3Compare: both are cold and both should hold everything. When the peer's log goes further on the same timeline, this
// node's disk has lost what it had called flushed, and the peer must go on. While the peer is expected and has not said
// where its log ends, nothing starts.
func (t *turn) s3Compare() {
	l := &t.in.Local
	if l.Proc != ProcStopped || l.Dir != DirOurs || t.rec.Version == 0 || !t.mayStart() || !t.peerIn() || t.s.NoMove {
		return
	}
	if t.peerAhead() {
		t.fault(FaultDiskLied, true)
		if t.in.Grant.Mode == membership.Paired {
			t.do(MoveOwner{})
		}
	}
}

// s3Waits: the peer takes part, should hold everything, and has not said yet where its log ends.
func (t *turn) s3Waits() bool {
	s, p := &t.s, &t.in.Peer
	said := t.peerFresh() && (p.Dir != DirOurs && p.Dir != DirUnseen || p.Proc == ProcStandby || p.Proc == ProcStopped && p.End != 0)
	if !t.peerIn() || said || s.Died || t.in.Grant.Mode != membership.Paired {
		s.BootAt = 0
		return false
	}
	if s.BootAt == 0 {
		s.BootAt = t.in.Now
	}
	return t.in.Now-s.BootAt < s.Cfg.BootPatience
}

// peerAhead compares positions where whole records end: a standby that runs has replayed what it has received.
func (t *turn) peerAhead() bool {
	l, p := &t.in.Local, &t.in.Peer
	if !t.peerIn() || !t.peerFresh() || p.Timeline != l.Timeline || p.Dir != DirOurs || l.End == 0 {
		return false
	}
	return p.Proc == ProcStopped && p.End > l.End || p.Proc == ProcStandby && p.Replay > l.End
}

// s8Lend: only the peer has the rows, and it can be given the database: a member, or a joiner under a lease (R29).
func (t *turn) s8Lend() {
	g := &t.in.Grant
	if t.rec.Version == 0 || t.rec.Copies.Has(t.self()) || t.in.Local.Proc == ProcPrimary || t.s.Resume || !t.peerFresh() {
		return
	}
	lend := g.Mode == membership.Solo && g.Joining && g.Lends || g.Mode == membership.Paired && g.Owner == t.self()
	if lend && !t.in.Docs.Writing {
		t.do(MoveOwner{})
	}
}

// open lets clients in: S2, S4, C3, N4 and P4 end here. With the peer in copies only after the marker, because until the
// server waits for the peer a commit could be acknowledged alone, and rows of commits that never were acknowledged could
// be read and vanish.
func (t *turn) open() {
	l := &t.in.Local
	// A gate that its deadline has closed is opened again when the lease is back, and an address that somebody took away is taken again.
	opened := t.s.Opened == t.s.Life && l.WriteOpen && l.WriteAddress
	if l.Proc != ProcPrimary || !t.mayRun() || opened || t.rec.Version == 0 || l.Timeline != t.rec.Timeline {
		return
	}
	if t.s.Order != OrderNone || t.in.Docs.Writing {
		return
	}
	if t.peerIn() && t.s.Proven != t.s.Life && !mutant("open unproven") || !t.peerIn() && l.Names != NamesNone {
		return
	}
	t.s.Opened, t.s.Died, t.s.NoMove, t.s.GateUntil = t.s.Life, false, false, t.in.Grant.Deadline
	t.fault(FaultWaitsHolder, false)
	t.do(SetGate{Write, true, t.in.Grant.Deadline}, SetAddress{Write, true})
}

// renew moves the deadline of open gates with the lease. It opens none that what was seen now has closed (C1).
func (t *turn) renew() {
	l, until := &t.in.Local, t.in.Grant.Deadline
	primary := l.Proc == ProcPrimary || l.Proc == ProcHung && l.AsPrimary
	if until == t.s.GateUntil || !t.member() || !primary && l.Proc != ProcStandby {
		return
	}
	write := l.WriteOpen && primary && t.mayRun() && t.s.Opened == t.s.Life && t.s.Order <= OrderCheckpoint
	if write {
		t.do(SetGate{Write, true, until})
	}
	if l.ReadOpen {
		t.do(SetGate{Read, true, until})
	}
	if write || l.ReadOpen {
		t.s.GateUntil = until
	}
}

// member: this node has a grant that is not over.
func (t *turn) member() bool {
	g := &t.in.Grant
	return g.Mode == membership.Solo || g.Mode != membership.Init && t.in.Now < g.Deadline
}

// readAddress: on the standby while it streams and is in copies, on the primary otherwise, never on both: it is dropped
// before the other side takes it.
func (t *turn) readAddress() {
	l := &t.in.Local
	want := false
	switch l.Proc {
	case ProcUnseen, ProcHung, ProcStopped: // slow is not gone (H1); of a dead one c1Closed has taken it
		return
	case ProcPrimary:
		mode := t.in.Grant.Mode
		known := mode == membership.Solo || mode == membership.Joining || mode == membership.Paired && t.peerFresh()
		want = t.s.Opened == t.s.Life && t.mayRun() && !(t.peerIn() && t.streaming()) && (known || l.ReadAddress)
	case ProcStandby:
		want = t.in.Grant.Owner == t.peer() && t.rec.Copies.Has(t.self()) && l.Receiving && t.in.Grant.Mode == membership.Paired && t.member()
	default:
	}
	switch {
	case !want && (l.ReadOpen || l.ReadAddress):
		t.do(SetGate{Gate: Read}, SetAddress{Gate: Read})
	case want && !(l.ReadAddress && l.ReadOpen) && !(t.peerFresh() && t.in.Peer.ReadAddress):
		t.s.GateUntil = t.in.Grant.Deadline
		t.do(SetAddress{Read, true}, SetGate{Read, true, t.in.Grant.Deadline})
	}
}
