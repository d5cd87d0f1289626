package membership

// Overrides by people, R26. They are evidence and a mark, never a shortcut: the other side is not erased.

func (s *State) allowsPeerOff(ep Epoch) Refusal {
	switch {
	case ep != s.Rec.Ep:
		return RefusedEpoch
	case s.Session != 0:
		return RefusedSession
	case s.Mode == Solo && s.Rec.Fenced == s.Rec.Ep:
		return RefusedAlready
	case s.Mode != Solo && !s.mayFenceAlone():
		return RefusedNotSolo
	}
	return Granted
}

// r26PeerOff counts as confirmed evidence once, for this epoch: the peer is off and stays off.
func (t *turn) r26PeerOff() {
	t.cancelFence()
	if t.s.Mode != Solo {
		t.r21bSurvive()
		return
	}
	r := t.s.Rec
	r.Fenced = r.Ep
	t.persist(r)
	t.report(ReportPeerOffByPerson)
}

func (s *State) allowsForce(peerOff bool) Refusal {
	switch {
	case s.Fresh():
		return RefusedUnknown
	case !s.waits():
		return RefusedAlready
	case !s.alone():
		return RefusedSession
	case !s.Rec.Consistent:
		return RefusedNotHolding
	case s.Rec.Members == Only(s.self()):
		return RefusedAuthority // a fault holds it: two sides; force would not choose
	case !peerOff:
		return RefusedPeerNotOff
	}
	return Granted
}

// r26Force: force-solo. The epoch lies so far above everything recorded that no change of the other side, which may have
// gone on unseen, comes near it.
func (t *turn) r26Force(text Text) {
	old := t.s.Rec
	r := t.s.soloRecord()
	r.Forced = Force{Counter: old.Forced.Counter + 1, Ep: old.Ep, Members: old.Members, Prep: old.Prep.Ep, Text: text}
	t.s.Ask = Ask{}
	if t.s.Session != 0 {
		t.dropSession()
		t.do(CloseSession{})
	}
	ep := old.High + t.s.Cfg.ForceGap
	t.becomeSolo(ep, ep, r)
	t.report(ReportForced)
	t.r26Claim(RegisterContent{max(old.Ep, old.Prep.Ep), Both})
}

// r26Claim tells the register of before what was forced, so that the other side cannot win it later. What it answers
// decides nothing here; that it names the peer is a fault.
func (t *turn) r26Claim(expected RegisterContent) {
	if t.s.Rec.Arb.Kind == ArbWitness {
		t.claim(t.s.Rec.Arb.RID, expected)
	}
}

func (t *turn) claim(rid ID, expected RegisterContent) {
	s := &t.s
	s.Claim = Ask{rid, t.in.Fresh, expected, RegisterContent{s.Rec.Ep, Only(s.self())}}
	t.do(AskWitness(s.Claim))
	t.arm(TimerRepeat, t.in.Now+s.Cfg.AskAgain)
}

// disarmRepeat: what the repeats were for has ended. A claim has not: it lives from the override to the next pairing, over
// sessions that come and go (mutant "R26 repeat").
func (t *turn) disarmRepeat() {
	if t.s.Claim.Nonce != 0 && !mutant("R26 repeat") {
		t.arm(TimerRepeat, t.in.Now+t.s.Cfg.AskAgain)
		return
	}
	t.do(Arm{TimerRepeat, 0})
}

// r26Claimed is about the register that the claim names, which need not be the arbiter any more: a solo node whose witness
// is away for long drops it (R21d), and it is then that the other side must not win there.
func (t *turn) r26Claimed(w WitnessReply) {
	s := &t.s
	rid := s.Claim.RID
	s.Claim = Ask{}
	switch {
	case w.Result == WitnessOK:
		t.report(ReportClaimed)
	case w.Result == WitnessUnknown:
		t.report(ReportWitnessUnknown)
	case w.Register.Set == Only(s.peer()):
		t.report(ReportDiverged)
	case w.Register.Ep < s.Rec.Ep:
		t.claim(rid, w.Register)
	default:
		t.report(ReportRegisterAhead)
	}
}

// forcedAlone says whether this node goes on by an override that the pair has not taken over yet.
func (s *State) forcedAlone() bool { return s.Mode == Solo && s.Rec.Forced.Counter != 0 }

// r26Diverged: two sides went on alone. The one with the higher mark serves on; without a difference both hold. Neither
// is erased: a person picks.
func (t *turn) r26Diverged(h Record) {
	if t.s.Rec.Forced.Counter > h.Forced.Counter {
		t.report(ReportDiverged)
		return
	}
	t.hold(ReportDiverged)
}
