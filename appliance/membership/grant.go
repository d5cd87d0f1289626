package membership

// grant replaces the last grant of duet-mirrord whole by what the state allows.
func (t *turn) grant() { t.do(Grant{t.s.grantContent(t.in.Now)}) }

func (s *State) grantContent(now Boottime) GrantContent {
	r := &s.Rec
	g := GrantContent{
		Mode: s.Mode, Epoch: r.Ep, Session: s.Session, Members: r.Members,
		Owners: s.owners(), Legs: s.legs(), Deadline: s.deadline(now),
	}
	if mutant("M15") && s.Mode == Frozen {
		g.Mode = Solo
	}
	switch {
	case s.Prepared(): // frames of the tuple's epoch are taken; both legs count for the owner
		g.Prepared, g.Members, g.Legs = r.Prep.Ep, Both, r.Prep.Legs
	case s.Mode == Resolving: // the same on both sides of the lane: the coordinator's epoch, the merged tables
		g.Epoch, g.Members = max(r.Ep, s.Peer.Ep), Both
		g.Owners, g.Legs = s.Plan.Owners, s.Plan.Legs
	}
	return g
}

// deadline of reading and running. Only solo has none: nobody can become an authority without this node's own
// durable step.
func (s *State) deadline(now Boottime) Boottime {
	switch {
	case s.Mode == Solo:
		return 0
	case now < s.Lease:
		return s.Lease
	}
	return Expired
}
