package decide

import "duet/appliance/membership"

// n2Evidence: this node is alone, holds everything, and does not own the database. It asks for it when there is
// evidence; a refused and an unknown attempt are none, and silence is none either. N1 is the other half: before the
// membership core says solo, nothing is asked for.
func (t *turn) n2Evidence() {
	g := &t.in.Grant
	if t.rec.Version == 0 || g.Mode != membership.Solo || g.Owner == t.self() || !t.in.Enabled {
		return
	}
	if !t.rec.Copies.Has(t.self()) && !t.s.Resume && !mutant("promote anyone") {
		return
	}
	silent := mutant("lease end") && t.in.Now-t.in.Peer.At >= t.s.Cfg.Lease
	if g.Evidence.Good() || silent {
		t.do(Want{})
	}
}

// n5NotHolder says for whom the site waits.
func (t *turn) n5NotHolder() {
	g := &t.in.Grant
	waits := t.rec.Version != 0 && !t.rec.Copies.Has(t.self()) && g.Mode == membership.Solo && !t.peerServes()
	t.fault(FaultWaitsHolder, waits && !g.Joining)
}

// n3Promote: the record first, with the number of the new timeline, then the promotion.
func (t *turn) n3Promote() {
	l, g := &t.in.Local, &t.in.Grant
	if l.Proc != ProcStandby || g.Owner != t.self() || t.owned() == t.s.Gave || !g.Right || !t.in.Enabled || t.rec.Version == 0 || !t.together() || !t.member() {
		return
	}
	holder := t.rec.Copies.Has(t.self()) || mutant("promote anyone")
	if !holder && !t.s.Resume || !g.Evidence.Good() && !mutant("lease end") || t.in.Docs.Writing {
		return
	}
	last := t.rec.last()
	planned := last.To == t.self() && last.Fork == 0 && last.Version != 0 && last.Timeline == t.rec.Timeline
	if planned && last.FromTimeline == l.Timeline && holder {
		names := NamesNone
		if t.peerIn() {
			names = NamesPeer
		}
		if l.Names != names {
			t.do(SetNames{names})
			return
		}
		t.s.Patience = t.s.Cfg.DegradeAfter
		t.do(Promote{t.rec.Timeline})
		return
	}
	if !t.mayWrite() {
		return
	}
	p := Promotion{From: t.peer(), To: t.self(), FromTimeline: l.Timeline, Reason: ReasonNode}
	copies := membership.Only(t.self())
	switch {
	case !holder:
		p.Reason, p.Forced = ReasonForced, true
		t.fault(FaultLossAccepted, true)
	case t.p4Follows():
		p.Reason, copies = ReasonSwitchover, t.rec.Copies
	case g.Mode == membership.Paired:
		p.Reason = ReasonCrash
	}
	r := t.rec.promoted(p, g.Epoch)
	r.Copies = copies
	t.s.Resume = false
	t.write(r, false)
}

// n4Serve: what must follow a promotion, and may be repeated: where the timeline began, a slot for the peer, and a
// checkpoint, without which a rewind of the peer would find nothing to do.
func (t *turn) n4Serve() {
	l := &t.in.Local
	if l.Proc != ProcPrimary || !t.mayRun() || t.rec.Version == 0 || l.Timeline != t.rec.Timeline {
		return
	}
	if !l.Slot || l.SlotLost { // a lost one would refuse the standby for ever, also after a whole copy
		t.do(CreateSlot{})
	}
	if l.SlotLost || t.streaming() {
		t.fault(FaultSlotLost, l.SlotLost)
	}
	if l.CheckpointTimeline != l.Timeline && !t.s.Checkpoint && t.s.Opened == t.s.Life {
		t.do(Checkpoint{})
	}
	last := t.rec.last()
	if last.To != t.self() || last.Timeline != l.Timeline || last.Fork != 0 || l.Fork == 0 || !t.mayWrite() {
		return
	}
	r := t.rec.next(t.in.Grant.Epoch)
	r.PromoteLSN = l.Fork
	r.History[len(r.History)-1].Fork = l.Fork
	t.write(r, false)
}
