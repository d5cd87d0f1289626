package membership

// foundingEpoch is the first epoch of every site.
const foundingEpoch Epoch = 1

// r27Found: R27. Both nodes are fresh and in a session; the driver has a register that no CAS can match yet. Each
// founding needs a register of its own: a CAS of an earlier one that was cut, sent by the other node while it was
// prepared, would match after the PUSH of the next (seed founding-twice).
func (t *turn) r27Found(f Found) {
	s := &t.s
	if s.Mode != Init || !s.Fresh() || s.Session == 0 || !s.Peer.Fresh || s.Copy != CopyIdle || f.Site.IsZero() {
		return
	}
	s.PlanSite = f.Site
	s.Plan = Prepared{Ep: foundingEpoch, Owners: f.Owners, Legs: f.Legs.inSync(), Arb: f.Arb, Docs: f.Docs}
	for i := range s.Plan.Owners {
		if i == int(PairResource) || s.Plan.Owners[i].Version != 0 {
			s.Plan.Owners[i] = Owner{s.self(), 1}
		}
	}
	t.sendPrepare(f.Site)
	t.report(ReportFounding)
}

// r27Take: the other node records the tuple. There is nothing to copy: both legs are new.
func (t *turn) r27Take(p Prepare) {
	s := &t.s
	if !s.Peer.Fresh || s.Copy != CopyIdle || p.Tuple.Ep != foundingEpoch || p.Site.IsZero() {
		return
	}
	r := s.Rec
	r.Site, r.Prep, r.Consistent, r.Arb = p.Site, p.Tuple, true, p.Tuple.Arb
	t.prepared(r)
}

// r27Drop: cut before the founder's Persist. It is fresh, so nothing was ever written; the register is never used. The
// session ends, because the peer has taken our HELLO of before and would not found with a node that is not fresh.
func (t *turn) r27Drop() {
	if !t.s.waits() {
		return
	}
	t.dropSession()
	t.do(CloseSession{})
	t.revoke()
	t.persist(Record{Seq: t.s.Rec.Seq, High: t.s.Rec.High})
	t.to(Init)
	t.report(ReportFoundingDropped)
}

// r28Join: R28. A fresh node whose key the survivor has pinned, new hardware or one that lost its record, takes the place of
// the other node beside a peer that goes on alone. Beside any other peer it waits: that one may lack this node's writes.
func (t *turn) r28Join(h Record) {
	s := &t.s
	if s.Mode != Init || h.Members != Only(s.peer()) || !h.Consistent {
		t.report(ReportFreshWaits)
		return
	}
	t.stopAll()
	t.revoke()
	r := h
	r.Seq, r.High = s.Rec.Seq, max(s.Rec.High, h.Ep)
	r.Consistent, r.Fenced, r.Prep, r.Pending = false, 0, Prepared{}, Docs{}
	t.persist(r)
	t.to(Joining)
	t.grant()
	t.send(Join{t.s.Rec.Ep, t.s.Rec.High})
	t.report(ReportReplaced)
}
