package membership

func (s *State) allowsMove(r ResourceID) Refusal {
	switch {
	case !s.resource(r):
		return RefusedUnknown
	case !s.together():
		return RefusedNotPaired
	case !s.Owns(r):
		return RefusedNotOwner
	case (s.Gives | s.Draining).Has(r) || r == PairResource && s.busy():
		return RefusedBusy
	case !s.holds(s.peer(), r):
		return RefusedLegMissing
	}
	for i := range s.Rec.Legs {
		l := &s.Rec.Legs[i]
		if l.Version != 0 && l.Resource == r && r != PairResource && (s.LegWork[i] != LegSteady || l.Pending) {
			return RefusedBusy
		}
	}
	for doc := range s.Writing {
		if s.Writing[doc].Version != 0 || s.Rec.Pending[doc].Version != 0 {
			return RefusedBusy
		}
	}
	return Granted
}

// r22Drain: what is to be handed over stops first, and nothing that it wrote may still be on its way: a write that arrives
// behind one of the new owner would lie over it (seed handover-in-flight). The pair itself has no writes.
func (t *turn) r22Drain(id ResourceID) {
	if id == PairResource {
		t.r22Give(id)
		return
	}
	t.stop(1 << id)
	if mutant("R22 drain") {
		t.r22Give(id)
		return
	}
	t.s.Draining |= 1 << id
	t.do(Drain{t.s.Draining})
}

// r22Drained: the guard is asked again, for much may have happened. Without success everything goes on here.
func (t *turn) r22Drained(e Drained) {
	s := &t.s
	if int(e.Resource) >= MaxResources || !s.Draining.Has(e.Resource) {
		return
	}
	s.Draining &^= 1 << e.Resource
	if !e.OK || s.allowsMove(e.Resource) != Granted {
		t.do(Drain{s.Draining})
		t.report(ReportNotGiven)
		return
	}
	t.r22Give(e.Resource)
}

// r22Give: R22, giver durable first (mutant N9): after a crash in between nobody runs r until the session returns or one
// side is solo. The hold of the drain ends with the grant that names another owner.
func (t *turn) r22Give(id ResourceID) {
	r := t.s.Rec
	r.Owners[id] = r.Owners[id].give(t.s.peer())
	t.persist(r)
	t.s.Gives |= 1 << id
	t.send(Give{id, r.Owners[id].Version})
	t.grant()
	t.arm(TimerRepeat, t.in.Now+t.s.Cfg.CommitAgain)
	t.report(ReportGiven)
}

// r22Take: the taker. A GIVE that is not above what it has is only answered.
func (t *turn) r22Take(g Give) {
	s := &t.s
	if !s.Committed() || !s.resource(g.Resource) {
		return
	}
	if o := s.Rec.Owners[g.Resource]; g.Version > o.Version {
		r := s.Rec
		r.Owners[g.Resource] = Owner{s.self(), g.Version}
		t.persist(r)
		t.send(Taken(g))
		t.grant()
		t.report(ReportTaken)
		return
	}
	t.send(Taken(g))
}

// r22Taken ends the repeats.
func (t *turn) r22Taken(m Taken) {
	s := &t.s
	if s.resource(m.Resource) && s.Gives.Has(m.Resource) && m.Version == s.Rec.Owners[m.Resource].Version {
		s.Gives &^= 1 << m.Resource
	}
}
