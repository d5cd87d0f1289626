package membership

// r2Connected: R2. Whatever was asked before this session is void: a late answer must not decide over a
// peer that we are talking to (mutant M21). A session that the core still holds ends first.
func (t *turn) r2Connected(session Session) {
	if t.s.Session != 0 {
		t.r3PeerLost()
	}
	if !mutant("M21") {
		t.s.Ask = Ask{}
		t.disarmRepeat()
		t.do(Arm{TimerArbitrate, 0})
	}
	t.cancelFence()
	if !mutant("N22") {
		t.s.Create = Create{}
	}
	t.forget()
	t.s.Session = session
	t.send(Hello{t.s.Rec})
	t.report(ReportConnected)
}

// r3PeerLost: R3, and R17's "session lost".
func (t *turn) r3PeerLost() {
	joining := t.s.Copy != CopyIdle || t.s.Mode == Joining || t.s.Mode == Resolving
	t.dropSession()
	t.report(ReportPeerLost)
	if joining {
		t.report(ReportJoinCut)
	}
	t.fallBack()
}

// r17TooLate: R17, PREPARED did not come in time. A PREPARE is never withdrawn inside a session, so
// the session goes with it.
func (t *turn) r17TooLate() {
	if t.s.Copy == PrepareSent && t.in.Now >= t.s.PlanSent+t.s.Cfg.Lease {
		t.r17Close()
	}
}

// copyFailed: R17 on either side of the copy.
func (t *turn) copyFailed(session Session) {
	if t.s.Session == 0 || session != t.s.Session {
		return
	}
	if t.s.Copy != CopyIdle || t.s.Mode == Joining || t.s.Mode == Resolving {
		t.r17Close()
	}
}

// r17Close ends the session on this side, on purpose.
func (t *turn) r17Close() {
	t.dropSession()
	t.do(CloseSession{})
	t.report(ReportJoinCut)
	t.fallBack()
}

// dropSession forgets everything that lives and dies with a session.
func (t *turn) dropSession() {
	s := &t.s
	s.Session, s.Peer = 0, PeerView{}
	s.Copy, s.Plan, s.PlanSite, s.PlanSent = CopyIdle, Prepared{}, ID{}, 0
	s.Proof, s.Offer = Proof{}, Prepared{}
	s.Committing, s.Push, s.Beats = false, Push{}, [MaxBeats]SentBeat{}
	s.Change, s.Changes, s.Draining, s.Gives, s.Writing = Change{}, 0, 0, 0, Docs{}
	s.LegWork, s.LegProof, s.LegOffer = [MaxVolumes]LegAt{}, LegProof{}, LegOffer{}
	if !mutant("N22") {
		s.Create = Create{}
	}
}

// fallBack is what a node becomes when its session has ended: R3, R17.
func (t *turn) fallBack() {
	switch t.s.Mode {
	case Paired, Resolving:
		t.to(Frozen)
		t.s.Lost = t.in.Now
		t.grant() // writes are held; what runs goes on to the end of the lease
		t.report(ReportFrozen)
		t.armLease()
		if mutant("M12") {
			t.arm(TimerFence, t.in.Now)
		}
	case Joining:
		t.to(Init)
		t.revoke()
	case Solo:
		t.grant() // the session is no longer part of it
		t.armSolo(t.in.Now)
		return
	case Frozen:
		t.s.Lost = t.in.Now
	default: // nothing for the others
	}
	t.armArbitrate(t.in.Now)
	if t.s.mayFenceAlone() { // connecting ended the attempt of before (R2), so also a node that was frozen begins anew
		t.arm(TimerFence, t.in.Now)
	}
}

// hello takes the peer's record, once per session, and tries R20, R12, R13 in this order (section 6).
func (t *turn) hello(h Record) {
	if t.s.Peer.Hello {
		return
	}
	t.s.Peer = PeerView{Hello: true, Fresh: h.Site.IsZero(), Ep: h.Ep, Prep: h.Prep.Ep, High: h.High}
	switch {
	case t.s.Peer.Fresh || t.s.Fresh():
		t.helloFresh(h)
	case h.Site != t.s.Rec.Site:
		t.report(ReportOtherSite)
	case t.s.Mode == Solo:
		t.helloSolo(h)
	case !t.s.waits():
	case t.r20Claim(h), t.r12Outdated(h), t.r13Resolve(h):
	case h.Members == Only(t.s.self()) || t.s.Rec.Members == Only(t.s.peer()) && h.Ep < t.s.Rec.Ep:
		// The peer waits for its own R20: it will close this session and come back solo.
	default:
		t.report(ReportHelloUnmatched)
	}
}

// helloFresh: at least one side belongs to no site (sections 9.2, 9.3).
func (t *turn) helloFresh(h Record) {
	switch {
	case t.s.Peer.Fresh && t.s.Rec.Ep == 0 && t.s.Rec.Prep.Ep == 1:
		t.r27Drop()
	case t.s.Peer.Fresh && t.s.Fresh():
	case t.s.Fresh():
		t.r28Join(h)
	default:
		t.report(ReportFreshPeer)
		if t.s.waits() { // such a session counts as none for R4
			t.armArbitrate(t.in.Now)
		}
	}
}

// helloSolo: a solo node waits for JOIN. A record that it cannot have without a rolled back disk, or a
// second solo side, makes it hold I/O: never a guess (section 6, section 9.5).
func (t *turn) helloSolo(h Record) {
	switch {
	case h.Members == Only(t.s.peer()):
		t.r26Diverged(h)
	case h.Ep > t.s.Rec.Ep && h.Members == Both:
		t.hold(ReportRecordOlder)
	case h.Ep > t.s.Rec.Ep:
		t.report(ReportHelloUnmatched)
	}
}

// hold freezes a solo node in its session.
func (t *turn) hold(why ReportCode) {
	t.stopAll()
	t.to(Frozen)
	t.grant()
	t.report(why)
}
