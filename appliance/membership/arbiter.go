package membership

// Changing how a node may go on alone. The principle of R21: a node may use a method (this register, that register,
// fencing) only after the peer has durably given up every other one. So the peer is suspended, Arb none, in the middle
// of every change, and a change goes forward or starts over by PREPARE, never back.

func (s *State) allowsArbiter(k ArbKind) Refusal {
	switch {
	case k == ArbNone || s.Fresh():
		return RefusedUnknown
	case k == ArbFence && s.Rec.Arb.Kind == ArbFence:
		return RefusedAlready
	case s.Mode == Solo && s.Session != 0:
		return RefusedSession
	case s.Mode == Solo && s.Create.Nonce != 0:
		return RefusedBusy
	case s.Mode == Solo:
		return Granted
	case !s.together():
		return RefusedNotPaired
	case !s.pairOwner():
		return RefusedNotPairOwner
	case s.busy():
		return RefusedBusy
	}
	return Granted
}

// setArbiter is R21a, R21d, R19 and R19s. A fresh register is made first: nobody knows it before a record names it.
func (t *turn) setArbiter(k ArbKind) {
	s := &t.s
	switch {
	case k == ArbWitness:
		s.Create = Create{t.in.Fresh, s.Rec.Ep, s.Rec.Members}
		t.do(CreateRegister{s.Create.Nonce, RegisterContent{s.Create.Ep, s.Create.Set}})
		t.arm(TimerRepeat, t.in.Now+s.Cfg.AskAgain)
	case s.Mode == Solo:
		t.r21dSolo(t.fenceArb())
	default:
		t.r21aBegin(t.fenceArb())
	}
}

// fenceArb names no register (mutant N5 keeps it, to be able to ask it).
func (t *turn) fenceArb() Arb {
	arb := Arb{Kind: ArbFence}
	if mutant("N5") {
		arb.RID = t.s.Rec.Arb.RID
	}
	return arb
}

// r21dSolo: R21d, R19s. The peer is out already; it will take the arbiter from the next PREPARE.
func (t *turn) r21dSolo(arb Arb) {
	r := t.s.Rec
	r.Arb = arb
	t.persist(r)
	t.report(ReportArbiterSet)
}

// r19Created: the answer to a CREATE. Only while what was asked for is still true (mutant N22): the same session, or still
// solo without one, and the same epoch. Anything else leaves an unused register.
func (t *turn) r19Created(w WitnessReply) {
	s := &t.s
	c := s.Create
	s.Create = Create{}
	if w.Result != WitnessOK {
		t.report(ReportWitnessUnknown)
		return
	}
	target := Arb{ArbWitness, w.RID}
	same := c.Ep == s.Rec.Ep && c.Set == s.Rec.Members || mutant("N22")
	switch {
	case s.Mode == Solo && (s.Session == 0 || mutant("N22")) && same:
		t.r21dSolo(target)
	case s.together() && s.pairOwner() && same && !s.busy():
		t.r21aBegin(target)
	}
}

// r21aBegin: step 1. The old right stays until the peer has given up its own (mutant N1b).
func (t *turn) r21aBegin(target Arb) {
	s := &t.s
	s.Changes++
	s.Change = Change{Number: s.Changes, Target: target}
	if mutant("N1b") || mutant("N6") && target.Kind == ArbWitness {
		r := s.Rec
		r.Arb = target
		t.persist(r)
	}
	t.send(WDrop{s.Change.Number, target})
	t.arm(TimerRepeat, t.in.Now+s.Cfg.CommitAgain)
	t.report(ReportArbiterChanges)
}

// r21aDrop: step 2. From here on this node may do nothing alone.
func (t *turn) r21aDrop(m WDrop) {
	s := &t.s
	again := m.Number == s.Changes && s.Rec.Arb.Kind == ArbNone
	if !s.Committed() || m.Number <= s.Changes && !again && !mutant("N7a") {
		return
	}
	s.Changes = max(s.Changes, m.Number)
	arb := Arb{}
	switch {
	case mutant("N8b"):
		arb = m.Target
	case mutant("N1a"):
		arb = s.Rec.Arb
	}
	if s.Rec.Arb != arb {
		r := s.Rec
		r.Arb = arb
		t.persist(r)
	}
	t.send(WDropped{m.Number})
}

// r21aDropped: step 3. The target counts here, and WSET is repeated until the peer shows it.
func (t *turn) r21aDropped(m WDropped) {
	s := &t.s
	if !s.Committed() || s.Change.Number == 0 || m.Number != s.Change.Number && !mutant("N7a") || s.Change.Dropped {
		return
	}
	s.Change.Dropped = true
	if s.Rec.Arb != s.Change.Target {
		r := s.Rec
		r.Arb = s.Change.Target
		t.persist(r)
	}
	t.send(WSet{s.Change.Number, s.Change.Target})
	t.arm(TimerRepeat, t.in.Now+s.Cfg.CommitAgain)
}

// r21aSet: step 4.
func (t *turn) r21aSet(m WSet) {
	s := &t.s
	if !s.Committed() || m.Number != s.Changes && !mutant("N7a") {
		return
	}
	if s.Rec.Arb.Kind == ArbNone || mutant("N1a") {
		r := s.Rec
		r.Arb = m.Target
		t.persist(r)
		t.report(ReportArbiterSet)
	}
	t.beat() // shows it
}

// r21aShown: a beat shows the target on the peer: the change is complete.
func (t *turn) r21aShown(theirs Arb) {
	c := &t.s.Change
	if c.Number != 0 && c.Dropped && theirs == c.Target {
		*c = Change{}
		t.report(ReportArbiterSet)
	}
}

// mayFenceAlone is the guard of R21b: fencing is the arbiter, and this node has run without a break since it was paired,
// so it knows that nobody recorded the peer alone (mutant N2). A prepared node never has a right to fence (N8a).
func (s *State) mayFenceAlone() bool {
	r := &s.Rec
	unbroken := s.Mode == Frozen && s.PairedHere || mutant("N2") && s.waits()
	return r.Arb.Kind == ArbFence && r.Members == Both && (r.Prep.Ep == 0 || mutant("N8a")) && r.Consistent && unbroken && s.alone()
}

// r21bSurvive: the peer was read to be off, after this was asked.
func (t *turn) r21bSurvive() {
	t.report(ReportFenceConfirmed)
	t.becomeSolo(t.s.Rec.Ep+1, t.s.Rec.Ep+1, t.s.soloRecord())
}
