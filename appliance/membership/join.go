package membership

// r12Outdated: R12. The peer is the only member at our epoch or above: everything here is stopped and
// forgotten before we say JOIN. "The highest epoch is the source" is not the rule (mutant M7): only a record that
// names the peer alone, or the very tuple we prepared (R13), makes it the source.
func (t *turn) r12Outdated(h Record) bool {
	me := &t.s.Rec
	alone := h.Members == Only(t.s.peer()) || mutant("M7") && h.Members == Both && h.Prep.Ep == 0
	later := h.Ep > me.Ep || h.Ep == me.Ep && me.Members == Only(t.s.peer())
	if !alone || !later || me.Members == Only(t.s.self()) && !mutant("N15") {
		return false
	}
	t.stopAll()
	t.revoke()
	r := *me
	r.Ep, r.Members, r.Owners = h.Ep, Only(t.s.peer()), h.Owners
	if !mutant("N12") {
		r.Legs = h.Legs
	}
	r.Docs, r.Pending, r.Forced = h.Docs, Docs{}, h.Forced
	r.Consistent, r.Fenced, r.Prep = false, 0, Prepared{}
	t.s.PairedHere = false
	t.persist(r)
	t.to(Joining)
	t.grant()
	t.send(Join{t.s.Rec.Ep, t.s.Rec.High})
	t.report(ReportJoining)
	return true
}

// r12bJoin: R12b. JOIN is the peer's statement that it runs nothing, as good as evidence.
func (t *turn) r12bJoin(j Join) {
	s := &t.s
	if s.Mode != Solo || j.Ep != s.Rec.Ep || s.Copy != CopyIdle {
		return
	}
	s.Peer.High, s.Peer.Fresh = max(s.Peer.High, j.High), false
	if s.Rec.Fenced != s.Rec.Ep {
		r := s.Rec
		r.Fenced = r.Ep
		t.persist(r)
	}
	t.startCopy()
}

// startCopy grants the lanes and lets duet-mirrord bring the legs together.
func (t *turn) startCopy() {
	t.s.Copy = Copying
	t.grant()
	t.do(Copy{t.s.Session})
	t.report(ReportCopying)
}

// copyDone is COPYDONE: R14 on the coordinator, half of R15 on the target.
func (t *turn) copyDone(c CopyDone) {
	s := &t.s
	if s.Session == 0 || c.Session != s.Session {
		return
	}
	switch {
	case s.Copy == Copying:
		s.BadLegs &= c.Out[s.self()] // the others were proved; what fails from now on is news
		t.r14Prepare(c.Digest, c.Out)
	case s.Copy == CopyIdle && (s.Mode == Joining || s.Mode == Resolving):
		s.BadLegs &= c.Out[s.self()]
		s.Proof = Proof{true, c.Digest, c.Out}
		t.r15Take(s.Offer)
	}
}

// r14Prepare: R14. duet-mirrord holds new writes since the barrier. E lies two above everything either side ever
// recorded, so that no late CAS can tie with it or stand above it (mutants M20, N20). A broken leg stays out and keeps nobody
// out; but where only that leg holds every acknowledged write, the join would lose them: it fails as a copy does (R17).
func (t *turn) r14Prepare(digest Digest, out [2]Volumes) {
	s := &t.s
	e := max(s.Rec.High, s.Peer.High) + 2
	if mutant("M20") {
		e = s.epochs() + 1
	}
	if mutant("N20") {
		e = s.Rec.Ep + 2
	}
	held := s.Plan.Legs // R13: both are members
	if s.Mode == Solo { // R13 has planned already
		s.Plan = Prepared{Owners: s.Rec.Owners, Legs: s.Rec.Legs, Docs: s.Rec.Docs}
		held = s.Rec.Legs.among(s.Rec.Members) // the joiner's leg counts for a volume that waits for it, and no other
	}
	legs, ok := s.Plan.Legs.joined(held, out)
	if !ok {
		t.r17Close()
		t.report(ReportLegHeld)
		return
	}
	s.Plan.Legs = legs
	s.Plan.Ep, s.Plan.Arb, s.Plan.Digest = e, s.Rec.Arb, digest
	s.Plan.Owners[PairResource] = s.Plan.Owners[PairResource].give(s.self())
	t.sendPrepare(s.Rec.Site)
	t.report(ReportPrepareSent)
}

// sendPrepare sends PREPARE once; its deadline is R16's.
func (t *turn) sendPrepare(site ID) {
	s := &t.s
	s.Copy, s.PlanSent = PrepareSent, t.in.Now
	t.send(Prepare{site, s.Plan})
	if mutant("M9") {
		t.do(PushWitness{s.Plan.Arb.RID, t.in.Fresh, s.Plan.Ep})
	}
	t.arm(TimerPrepare, s.PlanSent+s.Cfg.Lease)
}

// r15Prepare: R15. PREPARE and this node's own proof come by different ways: whichever is first waits.
func (t *turn) r15Prepare(p Prepare) {
	s := &t.s
	switch {
	case s.Mode == Init && s.Fresh():
		t.r27Take(p)
	case p.Site != s.Rec.Site:
	case (s.Mode == Joining || s.Mode == Resolving) && s.Copy == CopyIdle:
		s.Offer = p.Tuple
		t.r15Take(p.Tuple)
	}
}

// r15Take records the tuple when both are here. From now on this node takes replicated writes, but it never
// calls itself in sync unless the witness (R5) or COMMIT says so.
func (t *turn) r15Take(p Prepared) {
	s := &t.s
	if p.Ep == 0 || !s.Proof.Done || p.Digest != s.Proof.Digest || p.Ep <= s.epochs() {
		return
	}
	if !p.Legs.agree(s.Proof.Out) && !mutant("R15 out") { // as with the digest: what it names is not what was copied
		return
	}
	r := s.Rec
	if mutant("M25") { // the tuple without its owners: this node goes on to believe its own table
		p.Owners = r.Owners
	}
	r.Prep, r.Consistent = p, true
	if !mutant("N7c") {
		r.Arb = p.Arb
	}
	t.prepared(r)
}

// prepared is the common part of R15 and R27: no lease of its own, what runs goes on to its old deadline.
func (t *turn) prepared(r Record) {
	s := &t.s
	s.PeerWait = t.in.Now + s.Cfg.PeerWait
	s.Offer, s.Proof, s.Plan = Prepared{}, Proof{}, Prepared{}
	if mutant("M22") { // one phase
		t.commit(r, r.Prep)
	} else {
		t.persist(r)
	}
	t.to(Paired)
	t.grant()
	t.send(PreparedMsg{r.Prep.Ep})
	t.report(ReportPrepared)
}

// r16Prepared: R16. In time: the peer's peerWait began after PREPARE was sent, so this lease ends before it.
func (t *turn) r16Prepared(e Epoch) {
	s := &t.s
	founding := s.Mode == Init && !s.PlanSite.IsZero()
	if s.Mode != Solo && s.Mode != Resolving && !founding || s.Copy != PrepareSent || e != s.Plan.Ep {
		return
	}
	if t.in.Now >= s.PlanSent+s.Cfg.Lease {
		t.r17Close()
		return
	}
	r := s.Rec
	if founding {
		r.Site, r.Consistent = s.PlanSite, true
	}
	t.commit(r, s.Plan)
	s.Lease = s.PlanSent + s.Cfg.Lease
	s.Copy, s.Plan, s.PlanSite, s.PlanSent = CopyIdle, Prepared{}, ID{}, 0
	s.Committing = true
	t.grant()
	t.send(Commit{s.Rec.Ep})
	t.r16Push()
	t.arm(TimerRepeat, t.in.Now+s.Cfg.CommitAgain)
	t.armLease()
	t.do(Arm{TimerPrepare, 0})
	if founding {
		t.report(ReportFounded)
	}
	t.report(ReportPaired)
}

// commit makes p the record: {a,b} at its epoch. The claim of an override ends with it: the pair's PUSH is above whatever
// the claim can have written, and a claim that went on would name one node at the pair's own epoch (seed claim-in-pair).
func (t *turn) commit(r Record, p Prepared) {
	r.Ep, r.Members, r.Prep, r.Fenced = p.Ep, Both, Prepared{}, 0
	r.Owners, r.Legs, r.Arb, r.Docs, r.Pending = p.Owners, p.Legs, p.Arb, p.Docs, Docs{}
	t.persist(r)
	t.cancelFence() // also evidence of before the pairing (R21b)
	t.to(Paired)
	t.s.PairedHere = true
	if !mutant("R26 claim") {
		t.s.Claim = Ask{}
	}
	t.s.PowerOns = [MaxPowerOns]Boottime{}
}

// r16Push tells the witness, only after the commit (mutant M9). Until it confirms, the pair is at risk.
func (t *turn) r16Push() {
	s := &t.s
	if s.Rec.Arb.Kind != ArbWitness {
		return
	}
	s.Push = Push{t.in.Fresh, s.Rec.Arb.RID, s.Rec.Ep}
	t.do(PushWitness{s.Push.RID, s.Push.Nonce, s.Push.Ep})
}

// r16Pushed: a register above ours is never confirmed; with High that needs a lost or rolled back record (I13).
func (t *turn) r16Pushed(res WitnessResult) {
	switch res {
	case WitnessOK:
		t.s.Push = Push{}
		t.report(ReportPushConfirmed)
	case WitnessFailed:
		t.report(ReportRegisterAhead)
	default:
		t.report(ReportWitnessUnknown)
	}
}

// r16bCommit: R16b. Its own beats and lease begin here.
func (t *turn) r16bCommit(e Epoch) {
	s := &t.s
	if !s.Prepared() || e != s.Rec.Prep.Ep {
		return
	}
	t.commit(s.Rec, s.Rec.Prep)
	s.Peer.Ep, s.Peer.Prep = e, 0 // it says COMMIT because it has
	t.grant()
	t.beat()
	if s.legsUnheard() { // one that has failed since the copy
		t.arm(TimerRepeat, t.in.Now+s.Cfg.CommitAgain)
	}
	t.report(ReportPaired)
}
