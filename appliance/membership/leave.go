package membership

func (s *State) allowsLeave(l Leave) Refusal {
	switch {
	case !s.together() && (!s.Committed() || !mutant("R18 committed")):
		return RefusedNotPaired
	case !s.pairOwner() && !mutant("M19"):
		return RefusedNotPairOwner
	case s.busy():
		return RefusedBusy
	}
	for i := range s.Rec.Legs {
		if v := &s.Rec.Legs[i]; v.Version != 0 && !v.Set.Has(s.peer()) && !l.Waiting {
			return RefusedLegMissing
		}
	}
	return Granted
}

// r18Leave: R18. This node gives everything up first and durably; only then does the peer hear of it. The token of the
// pair owner is what keeps two yields from crossing (mutant M19).
func (t *turn) r18Leave() {
	t.stopAll()
	t.revoke()
	r := t.s.Rec
	r.Ep, r.Members, r.Fenced = r.Ep+1, Only(t.s.peer()), 0
	for i := range r.Owners {
		if r.Owners[i].Version != 0 {
			r.Owners[i] = r.Owners[i].give(t.s.peer())
		}
	}
	t.persist(r)
	t.s.PairedHere = false
	t.send(Yield{t.s.Rec})
	t.dropSession()
	t.do(CloseSession{})
	t.to(Init)
	t.report(ReportLeft)
}

// r18Yield: the receiver of R18 is the only member, without a witness. A YIELD that is lost comes again as R20.
func (t *turn) r18Yield(h Record) {
	s := &t.s
	if !s.Committed() || h.Site != s.Rec.Site || h.Ep <= s.Rec.Ep || h.Members != Only(s.self()) {
		return
	}
	t.takenOver(h)
}

// takenOver: the peer has recorded that this node is the only member, and that it runs nothing itself (R18, R20).
func (t *turn) takenOver(h Record) {
	t.dropSession()
	t.do(CloseSession{})
	r := t.s.soloRecord()
	for i, theirs := range h.Owners {
		if theirs.Version > r.Owners[i].Version {
			r.Owners[i] = theirs
		}
	}
	t.becomeSolo(h.Ep, h.Ep, r)
}
