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
