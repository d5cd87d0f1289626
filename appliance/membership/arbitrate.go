package membership

// r4Arbitrate: R4. One attempt at the witness, from exactly the content that the register must have if
// nobody decided before us.
func (t *turn) r4Arbitrate() {
	s := &t.s
	if !s.waits() || !s.alone() || s.Fresh() || s.Ask.Nonce != 0 {
		return
	}
	if s.mayFenceAlone() { // R21b goes its own way
		return
	}
	if !s.mayAsk() {
		t.report(ReportWaitsForPeer)
		return
	}
	expected := s.Remembered
	switch {
	case expected.Ep != 0:
	case s.Rec.Members.Has(s.self()):
		expected = RegisterContent{s.Rec.Ep, Both}
	default:
		expected = RegisterContent{s.Rec.Prep.Ep, Both}
	}
	next := RegisterContent{max(s.epochs(), expected.Ep) + 1, Only(s.self())}
	s.Ask = Ask{s.Rec.Arb.RID, t.in.Fresh, expected, next}
	t.askAgain()
	t.report(ReportAsking)
}

// mayAsk is R4's guard on the record. A node that recorded itself as the only member has nothing to ask:
// it is in a wait mode only because a fault holds it.
func (s *State) mayAsk() bool {
	r := &s.Rec
	asks := r.Arb.Kind == ArbWitness || mutant("N5") && !r.Arb.RID.IsZero()
	return r.Consistent && asks && (r.Members == Both || r.Prep.Ep != 0)
}

// askAgain sends the pending attempt: same request, same nonce.
func (t *turn) askAgain() {
	t.do(AskWitness(t.s.Ask))
	t.arm(TimerRepeat, t.in.Now+t.s.Cfg.AskAgain)
}

// witnessReply sorts the answers. Only the answer to a live nonce, from the register of the present Arb, decides (M17). That to a
// claim (R26) comes from the register of before.
func (t *turn) witnessReply(w WitnessReply) {
	if w.Op == OpCreate {
		if t.s.Create.Nonce != 0 && w.Nonce == t.s.Create.Nonce {
			t.r19Created(w)
		}
		return
	}
	if c := t.s.Claim; w.Op == OpCAS && c.Nonce != 0 && w.Nonce == c.Nonce {
		if w.RID == c.RID {
			t.r26Claimed(w)
		}
		return
	}
	if w.RID != t.s.Rec.Arb.RID || t.s.Rec.Arb.Kind != ArbWitness && !mutant("N5") {
		return
	}
	switch {
	case w.Op == OpPush && t.s.Push.Nonce != 0 && w.Nonce == t.s.Push.Nonce:
		t.r16Pushed(w.Result)
	case w.Op == OpCAS && t.s.Ask.Nonce != 0 && (w.Nonce == t.s.Ask.Nonce || mutant("M17")) && t.s.waits():
		t.casAnswered(w)
	}
}

func (t *turn) casAnswered(w WitnessReply) {
	switch {
	case w.Result == WitnessOK:
		t.r5Won()
	case w.Result == WitnessFailed && t.r6Excluded(w.Register):
	case w.Result == WitnessFailed && t.r7Remember(w.Register):
	default: // never a grant: the attempt ends, asked again later
		t.s.Ask = Ask{}
		if w.Result == WitnessUnknown {
			t.report(ReportWitnessUnknown)
		} else {
			t.report(ReportWitnessMismatch)
		}
		t.armArbitrate(t.in.Now + t.s.Cfg.AskAgain)
	}
}

// r5Won: R5. The register named us at an epoch above everything we recorded.
func (t *turn) r5Won() {
	ep := t.s.Ask.New.Ep
	t.s.Ask = Ask{}
	t.becomeSolo(ep, 0, t.s.soloRecord())
}

// r6Excluded: R6. Only a register above everything we recorded says that we are out: a prepared node once
// believed an older one (mutant M24).
func (t *turn) r6Excluded(reg RegisterContent) bool {
	if reg.Set != Only(t.s.peer()) || reg.Ep <= t.s.epochs() && !mutant("M24") {
		return false
	}
	t.s.Ask = Ask{}
	t.stopAll()
	t.revoke()
	r := t.s.Rec
	r.Ep, r.Members, r.Prep = reg.Ep, Only(t.s.peer()), Prepared{}
	t.s.PairedHere = false
	t.persist(r)
	t.to(Init)
	t.report(ReportExcluded)
	return true
}

// r7Remember: R7. A failed answer is never a grant, also when it names us: it may be overwritten before
// it is read (mutant M26). It only tells what to expect next.
func (t *turn) r7Remember(reg RegisterContent) bool {
	mine := reg.Set == Both || reg.Set == Only(t.s.self())
	if !mine || !t.s.Rec.Members.Has(t.s.self()) || reg.Ep > t.s.epochs() && (!mutant("M26") || reg.Set == Both) {
		return false
	}
	if mutant("M26") && reg.Set == Only(t.s.self()) {
		t.s.Ask.New.Ep = max(reg.Ep, t.s.epochs()+1)
		t.r5Won()
		return true
	}
	t.s.Ask = Ask{}
	t.s.Remembered = reg
	t.r4Arbitrate()
	return true
}

// repeat sends again what has no answer yet: same content, same nonce.
func (t *turn) repeat() {
	s := &t.s
	t.r23Again()
	n := len(t.out)
	if s.Committing {
		t.send(Commit{s.Rec.Ep})
	}
	t.repeatOrders()
	talks := len(t.out) > n
	if s.Push.Nonce != 0 {
		t.do(PushWitness{s.Push.RID, s.Push.Nonce, s.Push.Ep})
	}
	if s.Create.Nonce != 0 {
		t.do(CreateRegister{s.Create.Nonce, RegisterContent{s.Create.Ep, s.Create.Set}})
	}
	if s.Claim.Nonce != 0 {
		t.do(AskWitness(s.Claim))
	}
	switch {
	case s.Ask.Nonce != 0:
		t.askAgain()
	case talks || s.Committed() && s.legsUnheard(): // writes of that volume are held meanwhile
		t.arm(TimerRepeat, t.in.Now+s.Cfg.CommitAgain)
	case s.outstanding():
		t.arm(TimerRepeat, t.in.Now+s.Cfg.AskAgain)
	}
}

// repeatOrders: what R21a-R25 have told the peer and not heard back.
func (t *turn) repeatOrders() {
	s := &t.s
	if !s.Committed() {
		return
	}
	if c := s.Change; c.Number != 0 && !c.Dropped {
		t.send(WDrop{c.Number, c.Target})
	} else if c.Number != 0 {
		t.send(WSet{c.Number, c.Target})
	}
	for r := range ResourceID(MaxResources) {
		if s.Gives.Has(r) {
			t.send(Give{r, s.Rec.Owners[r].Version})
		}
	}
	for doc := range docCount {
		if ref := s.Writing[doc]; ref.Version != 0 {
			t.send(DocPrepare{doc, ref})
		}
		if ref := s.Rec.Pending[doc]; ref.Version != 0 {
			t.send(DocPrepared{doc, ref})
		}
	}
	t.repeatLegs()
}

// outstanding says whether TimerRepeat has work.
func (s *State) outstanding() bool {
	return s.Committing || s.Push.Nonce != 0 || s.Ask.Nonce != 0 || s.Create.Nonce != 0 || s.Claim.Nonce != 0 ||
		s.Committed() && (s.busy() || s.legsUnheard())
}
