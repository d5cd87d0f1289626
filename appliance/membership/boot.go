package membership

// r1Boot: R1. Whatever runs is of an earlier life: it is killed before anything is believed. Evidence and
// leases of that life are gone, so the peer may still run something for W0 (mutants M4, M18).
func (t *turn) r1Boot(rec Record) {
	t.s = State{Cfg: t.s.Cfg, Rec: rec, PeerWait: t.in.Now + t.s.Cfg.PeerWait}
	if mutant("M4") {
		t.s.PeerWait = 0
	}
	if mutant("M18") && rec.Ep != 0 {
		t.s.Rec.Fenced = rec.Ep
	}
	t.stopAll()
	t.revoke()
	t.report(ReportBooted)
	if rec.Members == Only(t.s.self()) && rec.Consistent || mutant("M1") && rec.Members.Has(t.s.self()) {
		t.to(Solo)
		t.grant()
		t.report(ReportSolo)
		t.armSolo(t.in.Now + t.s.Cfg.BootWait)
		if f := rec.Forced; t.s.forcedAlone() {
			t.r26Claim(RegisterContent{max(f.Ep, f.Prep), Both})
		}
		return
	}
	if !t.s.Fresh() {
		t.arm(TimerArbitrate, t.in.Now+t.s.Cfg.BootWait)
	}
	if t.s.waitsForPower() {
		t.arm(TimerPowerOn, t.in.Now+t.s.Cfg.BootWait)
	}
	if mutant("N2") {
		t.arm(TimerFence, t.in.Now)
	}
}

// resume is the start of duetd with a valid snapshot (section 4). The record is the one the snapshot expects, so
// no Persist was cut off; every other effect of the last Step may be missing. Sends count as lost, a copy in
// flight too (R17). The session is kept where losing a message is repaired inside it: paired.
func (t *turn) resume() {
	t.s.Fence = 0
	t.do(CancelFence{})
	t.report(ReportResumed)
	t.resumeStop()
	if t.s.Mode == Paired {
		t.grant()
		t.resumeDrain()
		t.armPaired()
		return
	}
	if t.s.Session != 0 {
		t.dropSession()
		t.do(CloseSession{})
	}
	switch t.s.Mode {
	case Joining:
		t.to(Init)
	case Resolving:
		t.to(Frozen)
	default: // nothing for the others
	}
	t.resumeAlone()
}

// resumeDrain releases what was being drained: the answer may be lost, and whoever wants the handover asks again. Behind
// the grant, which may be the one of another handover: its hold ends with that grant, not before.
func (t *turn) resumeDrain() {
	if t.s.Draining != 0 {
		t.s.Draining = 0
		t.do(Drain{})
		t.report(ReportNotGiven)
	}
}

// resumeStop: first take away what the state does not allow.
func (t *turn) resumeStop() {
	s := &t.s
	switch {
	case s.MayRun(t.in.Now):
	case s.Mode == Paired && !mutant("R24 lease"): // as r11LeaseEnd
		t.stopAll()
		s.Lease = 0
		return
	default:
		t.stopAll()
		t.revoke()
		return
	}
	t.do(Stop{Resources: ^t.ownedSet()})
}

// resumeAlone grants anew and starts the timers of a node without session.
func (t *turn) resumeAlone() {
	now, cfg := t.in.Now, t.s.Cfg
	switch t.s.Mode {
	case Solo:
		t.grant()
		t.armSolo(now)
	case Frozen:
		t.grant()
		t.armLease()
		t.armArbitrate(now)
		if t.s.mayFenceAlone() {
			t.arm(TimerFence, now)
		}
	case Init:
		if !t.s.Fresh() {
			t.arm(TimerArbitrate, now+cfg.BootWait)
		}
		if t.s.waitsForPower() {
			t.arm(TimerPowerOn, now+cfg.BootWait)
		}
	default: // nothing for the others
	}
	if t.s.outstanding() {
		t.arm(TimerRepeat, now)
	}
}

// armPaired starts every timer of a paired node.
func (t *turn) armPaired() {
	t.armLease()
	if t.s.outstanding() {
		t.arm(TimerRepeat, t.in.Now)
	}
}

func (t *turn) armLease() {
	if t.in.Now < t.s.Lease {
		t.arm(TimerLease, t.s.Lease)
	}
}

// armSolo starts what a solo node without session does: R8 by W0, R10 at fence, R10b. A peer that owns nothing is in
// nobody's way: it has the time of a whole boot to come back by itself before it is fenced, so that R10b can power it on.
func (t *turn) armSolo(fence Boottime) {
	if !t.s.waitOver(t.in.Now) {
		t.arm(TimerPeerWait, t.s.PeerWait)
	}
	if t.s.Rec.Fenced == t.s.Rec.Ep {
		t.arm(TimerPowerOn, t.in.Now+t.s.Cfg.PowerOnWait)
		return
	}
	if !t.somethingToTake() {
		fence = t.in.Now + idleBoots*t.s.Cfg.BootWait
	}
	t.arm(TimerFence, fence)
}

// armArbitrate: the pair owner asks first, and a node that has restarted since it was last paired asks last: its drives may have
// lost what was acknowledged and not flushed, while its peer ran through and has all of it. Bias is liveness only, never a guard
// (section 5.3).
func (t *turn) armArbitrate(at Boottime) {
	if t.s.Fresh() {
		return
	}
	if t.s.Rec.Owners[PairResource].Node != t.s.self() {
		at += t.s.Cfg.Bias
	}
	if t.s.Mode == Frozen && !t.s.PairedHere {
		at += t.s.Cfg.RestartBias
	}
	t.arm(TimerArbitrate, at)
}
