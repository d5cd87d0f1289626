package decide

import "duet/appliance/membership"

// rejoin brings a node that is not the primary back behind it (J1 to J8). Nothing is started or touched before the
// record and the primary agree about the present timeline.
func (t *turn) rejoin() {
	l, g := &t.in.Local, &t.in.Grant
	if t.in.Docs.Current.Version == 0 { // a first record that is only pending may never have been
		return
	}
	if !t.in.Enabled || g.Owner == t.self() || l.Proc != ProcStopped || t.in.Now < t.backoff() {
		return
	}
	if t.in.Now < t.s.TryAt {
		return
	}
	if g.Mode == membership.Init || g.Mode == membership.Frozen || g.Mode == membership.Resolving { // S7
		return
	}
	if t.s.Rejoin != RejoinNone {
		if t.j4Appeared() {
			t.s.Rejoin = RejoinNone
			return
		}
		t.j5Rewind()
		return
	}
	switch l.Dir {
	case DirUnseen, DirCreating:
	case DirAbsent, DirEmpty, DirForeign: // B2 has spoken where this node alone held everything
		if t.rec.Copies != membership.Only(t.self()) {
			t.j6Copy()
		}
	case DirUnfinished:
		t.j8Unfinished()
	case DirOurs:
		t.j1Look()
	}
}

// j1Look compares the directory with the record's history.
func (t *turn) j1Look() {
	l, s := &t.in.Local, &t.s
	by, fork, same, known := t.rec.Left(l.Timeline)
	switch {
	case same && l.StandbyDir:
		t.j2Follow() // also without a primary: it may be needed itself (N2)
	case !t.peerServes() || same:
		t.s.Exported = false // wait: for the primary, or for a record that says where this directory was left
	case s.MustCopy:
		t.j6Copy()
	case !known || l.End == 0:
	case by.Version == 0:
		t.j6Unrelated()
	case l.End <= fork:
		t.j2Follow()
	case t.j4Keep(by):
	default:
		t.j3Tail(fork)
	}
}

// j2Follow: everything here is also on the primary's timeline.
func (t *turn) j2Follow() {
	if t.s.MustCopy && t.peerServes() {
		t.j6Copy()
		return
	}
	t.do(StartServer{})
}

// j4Keep: what lies beyond the fork was acknowledged by this node alone, or was given up by a person. Nobody but a person
// may throw it away.
func (t *turn) j4Keep(by Promotion) bool {
	only := by.Forced || by.CopiesBefore == membership.Only(t.self())
	if mutant("rewind the only copy") {
		only = false
	}
	keep := only && !t.s.Reclone
	t.fault(FaultDivergedKept, keep)
	return keep
}

// j4Appeared: while a copy was made the directory that it was to replace has come back into sight (a volume that was not
// mounted), and it is one to keep.
func (t *turn) j4Appeared() bool {
	l := &t.in.Local
	by, fork, same, known := t.rec.Left(l.Timeline)
	if l.Dir != DirOurs || same {
		return false
	}
	return !known || l.End == 0 || l.End > fork && by.Version != 0 && t.j4Keep(by) // where it was left is not recorded yet: look again
}

// j3Tail: it was never acknowledged. It is kept for the support bundle all the same, then the directory is rewound.
func (t *turn) j3Tail(fork LSN) {
	if !t.s.Exported {
		t.do(ExportTail{fork})
		return
	}
	t.j5Rewind()
}

// j5Rewind: on a clone, and only once the primary's control file shows the new timeline: before its first checkpoint
// pg_rewind takes both for equal.
func (t *turn) j5Rewind() {
	s, p := &t.s, &t.in.Peer
	if s.Rejoin == RejoinReady {
		t.do(SwitchCurrent{})
		return
	}
	if !t.peerServes() || p.CheckpointTimeline != t.rec.Timeline && !mutant("rewind early") {
		return
	}
	switch {
	case s.MustCopy:
		s.Rejoin = RejoinNone
		t.j6Copy()
	case s.Rejoin == RejoinCloned:
		t.do(Rewind{})
	case t.j7Space():
		t.do(Clone{})
	}
}

// j6Copy makes the directory anew from the primary's.
func (t *turn) j6Copy() {
	if t.peerServes() && t.j7Space() {
		t.do(Basebackup{})
	}
}

// j6Unrelated: the history does not reach back far enough to say what this directory had. Without any forced promotion
// it cannot have been the only copy of anything.
func (t *turn) j6Unrelated() {
	forced := false
	for _, p := range t.rec.History {
		forced = forced || p.Forced
	}
	if keep := forced && !t.s.Reclone; keep {
		t.fault(FaultDivergedKept, true)
		return
	}
	t.j6Copy()
}

// j7Space: neither copy fits. Which old directories may go is the driver's rule; the newest one never.
func (t *turn) j7Space() bool {
	t.fault(FaultNoSpace, !t.in.Local.SpaceClone)
	return t.in.Local.SpaceClone
}

// j8Unfinished: the server would take a half rewound directory for a clean one; it is never started.
func (t *turn) j8Unfinished() {
	if mutant("start marked") {
		t.do(StartServer{})
		return
	}
	t.j6Copy()
}

// rejoined is the end of one of the steps.
func (t *turn) rejoined(e Done) {
	s := &t.s
	switch {
	case e.Work == Switching:
		s.Rejoin = RejoinNone
		if e.OK {
			s.MustCopy, s.Exported, s.Reclone, s.Tries = false, false, false, 0
		}
	case !e.OK:
		s.Rejoin, s.MustCopy = RejoinNone, e.Work != Copying || s.MustCopy
		s.TryAt = t.in.Now + min(s.Cfg.BackoffLeast<<min(s.Tries, 8), s.Cfg.BackoffMost)
		s.Tries = min(s.Tries+1, 16)
	case e.Work == Cloning:
		s.Rejoin = RejoinCloned
	default:
		s.Rejoin = RejoinReady
	}
}

// j2Streams watches a standby: it clears what was said while it was away; one that has left the primary's timeline, or
// that cannot follow, is stopped and looked at again (J1).
func (t *turn) j2Streams() {
	s, l := &t.s, &t.in.Local
	if l.Proc != ProcStandby || t.in.Grant.Owner == t.self() || t.rec.Version == 0 {
		return
	}
	if l.Names != NamesNone {
		t.do(SetNames{NamesNone})
	}
	if l.Receiving {
		s.AloneSince = 0
		t.fault(FaultNoReturn, false)
		t.fault(FaultDivergedKept, false)
		t.fault(FaultNoSpace, false)
		return
	}
	if !t.peerServes() {
		s.AloneSince = 0
		return
	}
	if s.AloneSince == 0 {
		s.AloneSince = t.in.Now
	}
	_, fork, same, known := t.rec.Left(l.Timeline)
	left := !same && known && l.End > fork
	late := t.in.Now-s.AloneSince >= s.Cfg.ReturnBy && !t.rec.Copies.Has(t.self())
	if late {
		t.fault(FaultNoReturn, true)
		s.MustCopy = true
	}
	if left || late {
		s.Expected = true
		t.do(StopServer{})
	}
}
