package membership

// soloRecord is what R5, R18, R20, R21b and R26 take over from the record. A prepared tuple supplies legs, documents and
// owners, the latter only where both tables agree. What is pending may have been acknowledged: it counts.
func (s *State) soloRecord() Record {
	r := s.Rec
	if r.Prep.Ep != 0 {
		r.Owners = s.owners()
		r.Legs, r.Docs, r.Arb = r.Prep.Legs, r.Prep.Docs, r.Prep.Arb
	}
	if !mutant("N13b") {
		r.Docs = r.Docs.latest(r.Pending)
	}
	r.Pending = Docs{}
	for i, v := range r.Legs {
		if v.Pending {
			r.Legs[i].Set, r.Legs[i].Pending = v.Set|Only(s.self()), false
		}
	}
	return r
}

// becomeSolo makes r the record of the only member. Held writes of volumes that this node already owns go on with the
// grant; everything else waits for R8.
func (t *turn) becomeSolo(ep Epoch, fenced Epoch, r Record) {
	if t.s.Rec.Prep.Ep != 0 {
		t.stop(t.ownedByRecord() &^ t.ownedSet())
	}
	r.Owners[PairResource] = r.Owners[PairResource].give(t.s.self())
	r.Ep, r.Members, r.Prep, r.Fenced = ep, Only(t.s.self()), Prepared{}, fenced
	t.persist(r)
	t.s.Lease = 0
	t.to(Solo)
	t.grant()
	t.report(ReportSolo)
	t.disarmRepeat()
	t.armSolo(t.in.Now)
}

// want is R8 or R9.
func (t *turn) want(r ResourceID) {
	if r == PairResource || !t.s.resource(r) || t.s.Draining.Has(r) {
		return
	}
	switch {
	case t.s.Mode == Solo:
		t.r8Start(r)
	case t.s.Committed():
		t.r9Start(r)
	}
}

// r8Start: R8. A resource of the peer's needs proof that the peer has stopped. An own one does not, and must
// not set Fenced: it says nothing about the peer (mutant N16). While a PREPARE is out that names the owners, none
// of them changes: a matter of a lease at most, then R16 or R17.
func (t *turn) r8Start(id ResourceID) {
	s := &t.s
	mine := s.Owns(id)
	if !s.holds(s.self(), id) { // its volumes wait for the peer's leg
		return
	}
	if !mine && (!s.PeerStopped(t.in.Now) || s.Copy == PrepareSent && !mutant("R8 prepare")) {
		return
	}
	r := s.Rec
	if !mine || mutant("N16") {
		r.Owners[id] = r.Owners[id].give(s.self())
		r.Fenced = r.Ep
	}
	unfenced := s.Rec.Fenced != r.Ep
	if r != s.Rec {
		t.persist(r)
		t.report(ReportTookOver)
	}
	t.grant()
	t.do(Start{id, r.Ep})
	if unfenced && r.Fenced == r.Ep && s.Session == 0 { // by W0: no evidence will come that would start R10b
		t.arm(TimerPowerOn, t.in.Now+s.Cfg.PowerOnWait)
	}
}

// r9Start: R9.
func (t *turn) r9Start(id ResourceID) {
	if !t.s.Owns(id) || !t.s.MayRun(t.in.Now) {
		return
	}
	t.grant()
	t.do(Start{id, t.s.Rec.Ep})
}

// r8WaitOver tells people; the next Want of R8 finds the guard open.
func (t *turn) r8WaitOver() {
	if t.s.Mode == Solo && t.s.waitOver(t.in.Now) {
		t.report(ReportPeerWaitOver)
	}
}

// r10Fence: R10. Fencing gates takeover and R10b only: authority came first (mutant M12). A peer that owns nothing is
// fenced too, later: one that hangs must come back without hands.
func (t *turn) r10Fence() {
	s := &t.s
	takeover := (s.Mode == Solo || mutant("M12") && s.Mode == Frozen) && s.Session == 0 && s.Rec.Fenced != s.Rec.Ep
	alone := s.mayFenceAlone()
	if !takeover && !alone || s.Fence != 0 {
		return
	}
	s.Fence = t.in.Fresh
	f := Fence{Attempt: s.Fence, Epoch: s.Rec.Ep}
	if alone {
		f.Lost, f.First = s.Lost, s.pairOwner()
	}
	t.do(f)
	t.report(ReportFencing)
}

// r10Result ends the attempt. Unknown and refused are not evidence (mutant M6): R8 then goes by W0.
func (t *turn) r10Result(f FenceResult) {
	s := &t.s
	if s.Fence == 0 || f.Attempt != s.Fence || s.Mode != Solo && !s.mayFenceAlone() {
		return
	}
	s.Fence = 0
	if f.Verdict != Confirmed && !mutant("M6") && (s.Mode == Solo || !mutant("N3")) {
		if f.Verdict == Refused {
			t.report(ReportFenceRefused)
		} else {
			t.report(ReportFenceUnknown)
		}
		again := s.Cfg.FenceAgain
		if s.Mode == Solo && !t.somethingToTake() {
			again = powerOnBoots * s.Cfg.BootWait
		}
		t.arm(TimerFence, t.in.Now+again)
		return
	}
	if s.Mode != Solo {
		t.r21bSurvive()
		return
	}
	r := s.Rec
	r.Fenced = r.Ep
	t.persist(r)
	t.report(ReportFenceConfirmed)
	t.arm(TimerPowerOn, t.in.Now+s.Cfg.PowerOnWait)
}

// r10bPowerOn: R10b. The peer boots without authority and joins, so this is safe at any time. The wait leaves
// time for takeover; what nobody wants to run must not keep the peer off. A peer that is already on is left as it is.
func (t *turn) r10bPowerOn() {
	s := &t.s
	if s.waitsForPower() {
		t.do(PowerOnPeer{})
		return
	}
	if s.Mode != Solo || s.Session != 0 || s.Rec.Fenced != s.Rec.Ep {
		return
	}
	if first := s.PowerOns[0]; first != 0 && t.in.Now < first+PowerOnWindow {
		t.report(ReportPowerOnLimit)
		t.arm(TimerPowerOn, first+PowerOnWindow)
		return
	}
	copy(s.PowerOns[:], s.PowerOns[1:])
	s.PowerOns[MaxPowerOns-1] = t.in.Now
	t.do(PowerOnPeer{})
	t.report(ReportPowerOn)
}

// waitsForPower: R21c. This node was restarted and may not go on alone, whatever a witness says; all it can do is see that
// its peer is on.
func (s *State) waitsForPower() bool {
	return s.Mode == Init && s.Session == 0 && s.Rec.Members == Both && s.Rec.Arb.Kind != ArbWitness
}

// peerPowerAgain is R21c's minute, in waits of R10b.
const peerPowerAgain = 6

// r10bPowered: the next try comes after a whole boot, or at once when no path could switch it on.
func (t *turn) r10bPowered(ok bool) {
	s := &t.s
	if s.waitsForPower() {
		t.arm(TimerPowerOn, t.in.Now+peerPowerAgain*s.Cfg.PowerOnWait)
		return
	}
	if s.Mode != Solo || s.Session != 0 {
		return
	}
	wait := powerOnBoots * s.Cfg.BootWait
	if !ok {
		t.report(ReportPowerOnFailed)
		wait = s.Cfg.PowerOnWait
	}
	t.arm(TimerPowerOn, t.in.Now+wait)
}
