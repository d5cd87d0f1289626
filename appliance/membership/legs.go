package membership

// Legs that differ: R23 takes a leg out, R24 brings it back in. The owner of the volume alone decides, so that two legs
// that fail at once cannot each record that only the other is left (mutant N18).

// LegProof is a barrier of R24 that duet-mirrord has proved on this side; one volume at a time. The zero Digest: none.
type LegProof struct {
	Volume VolumeSlot
	Digest Digest
}

// LegOffer is a LEGPREP that came before this side's proof. Version 0: none.
type LegOffer struct {
	Proof   LegProof
	Version uint32
}

// ownsVolume says whether this node decides about the legs of v.
func (s *State) ownsVolume(v VolumeSlot) bool {
	r := s.Rec.Legs[v].Resource
	return s.Owns(r)
}

// r23Failed: a leg of this node has failed. R23 when both are committed and the other leg can go on, else R23s: the
// volume is held, and its last leg stays the last leg.
func (t *turn) r23Failed(v VolumeSlot) {
	s := &t.s
	s.BadLegs |= 1 << v
	switch {
	case !s.Rec.Legs[v].Set.Has(s.self()): // it is out already, and told again
	case !s.Committed():
		t.report(ReportLegHeld)
	case s.ownsVolume(v) || mutant("N18"):
		t.r23Decide(v, s.self())
	default:
		t.send(LegBad{v})
		t.arm(TimerRepeat, t.in.Now+s.Cfg.CommitAgain)
	}
}

// r23Bad: the peer's leg has failed.
func (t *turn) r23Bad(v VolumeSlot) {
	if t.s.Committed() && t.s.volume(v) && t.s.ownsVolume(v) {
		t.r23Decide(v, t.s.peer())
	}
}

// r23Decide: the owner takes out n's leg. duet-mirrord holds the acknowledgements until both have recorded it (mutant N10).
// Behind another change of the volume it waits: TimerRepeat decides again about an own leg (r23Again), and the peer repeats
// LEGBAD about its own.
func (t *turn) r23Decide(v VolumeSlot, out Node) {
	s := &t.s
	l := s.Rec.Legs[v]
	kept := out.Peer()
	switch {
	case !l.Set.Has(out):
		return
	case !l.Set.Has(kept) || kept == s.self() && s.BadLegs.Has(v):
		t.report(ReportLegHeld)
		return
	case s.legMoves(v):
		t.arm(TimerRepeat, t.in.Now+s.Cfg.CommitAgain)
		return
	}
	r := s.Rec
	r.Legs[v] = VolumeLegs{Set: Only(kept), Resource: l.Resource, Version: l.Version + 1}
	t.persist(r)
	s.LegWork[v] = LegOutSent
	t.send(LegOut{v, out, r.Legs[v].Version})
	if mutant("N10") {
		s.LegWork[v] = LegSteady
		t.grant()
	}
	t.arm(TimerRepeat, t.in.Now+s.Cfg.CommitAgain)
	t.report(ReportLegOut)
}

// legMoves: another change of the volume is under way on its owner's side, which a decision about its legs would cross.
func (s *State) legMoves(v VolumeSlot) bool {
	return s.LegWork[v] != LegSteady || (s.Gives | s.Draining).Has(s.Rec.Legs[v].Resource)
}

// r23Again: an own leg has failed while its volume was being changed, and that change has ended. One volume at a time, for a
// record precedes what is told.
func (t *turn) r23Again() {
	s := &t.s
	for v := range VolumeSlot(MaxVolumes) {
		if s.Committed() && s.legUnheard(v) && s.ownsVolume(v) && !s.legMoves(v) && !mutant("R23 again") {
			t.r23Decide(v, s.self())
			return
		}
	}
}

// r23Out: the peer of the owner. It refuses to keep a leg of its own that is bad too: the volume stays held.
func (t *turn) r23Out(m LegOut) {
	s := &t.s
	if !s.Committed() || !s.volume(m.Volume) {
		return
	}
	l := s.Rec.Legs[m.Volume]
	switch {
	case m.Version == l.Version && !l.Set.Has(m.Out): // answered before
	case m.Version != l.Version+1 || l.Pending:
		return
	case m.Out == s.peer() && s.BadLegs.Has(m.Volume):
		t.report(ReportLegHeld)
		return
	default:
		r := s.Rec
		r.Legs[m.Volume] = VolumeLegs{Set: Only(m.Out.Peer()), Resource: l.Resource, Version: m.Version}
		t.persist(r)
		t.report(ReportLegOut)
	}
	t.send(LegOutOK{m.Volume, m.Version})
	t.grant()
}

// r23OutOK: both have recorded it: writes go on with one leg.
func (t *turn) r23OutOK(m LegOutOK) {
	s := &t.s
	if !s.Committed() || !s.volume(m.Volume) || s.LegWork[m.Volume] != LegOutSent || m.Version != s.Rec.Legs[m.Volume].Version {
		return
	}
	s.LegWork[m.Volume] = LegSteady
	t.grant()
}

// r24Synced: a barrier of the lane has proved that both legs of v are equal; the owner holds its writes since.
func (t *turn) r24Synced(e LegSynced) {
	s := &t.s
	v := e.Volume
	l := s.Rec.Legs[v]
	if !s.Committed() || e.Session != s.Session || l.Set == Both || l.Pending || s.LegWork[v] != LegSteady {
		return
	}
	s.LegProof = LegProof{v, e.Digest}
	s.BadLegs &^= 1 << v
	switch {
	case s.ownsVolume(v) && l.Set.Has(s.self()):
		s.LegWork[v] = LegInSent
		t.send(LegPrepare{v, l.Version + 1, e.Digest})
		t.arm(TimerRepeat, t.in.Now+s.Cfg.CommitAgain)
	case s.ownsVolume(v): // the owner's own leg comes back: it is the target, and says so
		t.r24Pend(v, l.Version+1)
	default:
		t.r24Take()
	}
}

// r24Prepare: the target. LEGPREP and its own proof come by different ways: whichever is first waits.
func (t *turn) r24Prepare(m LegPrepare) {
	s := &t.s
	if !s.Committed() || !s.volume(m.Volume) {
		return
	}
	if l := s.Rec.Legs[m.Volume]; l.Pending && l.Version == m.Version {
		t.send(LegPrepared{m.Volume, m.Version})
		return
	}
	s.LegOffer = LegOffer{LegProof{m.Volume, m.Digest}, m.Version}
	t.r24Take()
}

func (t *turn) r24Take() {
	s := &t.s
	o := s.LegOffer
	v := o.Proof.Volume
	proved := o.Proof == s.LegProof || mutant("N11")
	if o.Version == 0 || !proved || o.Version != s.Rec.Legs[v].Version+1 || s.Rec.Legs[v].Set.Has(s.self()) {
		return
	}
	t.r24Pend(v, o.Version)
}

// r24Pend: the target first. From here on it treats its leg as in sync when it becomes the only member (R5).
func (t *turn) r24Pend(v VolumeSlot, version uint32) {
	s := &t.s
	r := s.Rec
	r.Legs[v].Pending, r.Legs[v].Version = true, version
	t.persist(r)
	s.LegOffer = LegOffer{}
	t.send(LegPrepared{v, version})
	t.arm(TimerRepeat, t.in.Now+s.Cfg.CommitAgain)
}

// r24Prepared: the node whose leg was in. It has proved the barrier too, or it has committed it already.
func (t *turn) r24Prepared(m LegPrepared) {
	s := &t.s
	if !s.Committed() || !s.volume(m.Volume) {
		return
	}
	v, l := m.Volume, s.Rec.Legs[m.Volume]
	switch {
	case l.Set == Both && m.Version == l.Version:
	case l.Set != Only(s.self()) || m.Version != l.Version+1 || s.LegProof.Volume != v || s.LegProof.Digest == Digest{}:
		return
	default:
		r := s.Rec
		r.Legs[v] = VolumeLegs{Set: Both, Resource: l.Resource, Version: m.Version}
		t.persist(r)
		s.LegWork[v], s.LegProof = LegSteady, LegProof{}
		t.report(ReportLegIn)
	}
	t.send(LegCommit(m))
	t.grant()
}

// r24Commit: the target.
func (t *turn) r24Commit(m LegCommit) {
	s := &t.s
	if !s.Committed() || !s.volume(m.Volume) {
		return
	}
	l := s.Rec.Legs[m.Volume]
	if !l.Pending || m.Version != l.Version {
		return
	}
	r := s.Rec
	r.Legs[m.Volume] = VolumeLegs{Set: Both, Resource: l.Resource, Version: m.Version}
	t.persist(r)
	s.LegProof = LegProof{}
	t.grant()
	t.report(ReportLegIn)
}

// repeatLegs sends again what has no answer: the step each volume is at, and what this node's own legs have told.
func (t *turn) repeatLegs() {
	s := &t.s
	for i := range s.Rec.Legs {
		v, l := VolumeSlot(i), s.Rec.Legs[i]
		switch {
		case l.Version == 0:
		case s.LegWork[i] == LegOutSent:
			t.send(LegOut{v, l.Set.Other(), l.Version})
		case s.LegWork[i] == LegInSent:
			t.send(LegPrepare{v, l.Version + 1, s.LegProof.Digest})
		case l.Pending:
			t.send(LegPrepared{v, l.Version})
		case s.legUnheard(v) && !s.ownsVolume(v):
			t.send(LegBad{v})
		}
	}
}

// legUnheard: this node's leg has failed, the other can go on, and the volume's owner has not taken it out yet.
func (s *State) legUnheard(v VolumeSlot) bool {
	return s.BadLegs.Has(v) && s.Rec.Legs[v].Set == Both
}

func (s *State) legsUnheard() bool {
	for v := range VolumeSlot(MaxVolumes) {
		if s.legUnheard(v) {
			return true
		}
	}
	return false
}

// legs is the table that duet-mirrord may go by: a leg counts only while its node is a member, and one that is being
// taken out counts until both have recorded it.
func (s *State) legs() Legs {
	l := s.Rec.Legs.among(s.Rec.Members)
	for i := range l {
		if s.LegWork[i] == LegOutSent {
			l[i].Set, l[i].Version = Both, l[i].Version-1
		}
	}
	return l
}
