package membership

// r13Resolve: R13. Both are members of the same committed or completed epoch: (1) both committed it, (2) I did
// and the peer prepared it or a later one, (3) the peer did and I prepared it or a later one. Either copy may have writes of the other's last moments.
func (t *turn) r13Resolve(h Record) bool {
	me := &t.s.Rec
	both := me.Members == Both && h.Members == Both && h.Ep == me.Ep
	mine := completes(me, &h)
	theirs := completes(&h, me)
	if !both && !mine && !theirs || me.Members == Only(t.s.self()) {
		return false
	}
	merged, ok := mergeOwners(me.Owners, h.Owners)
	if !ok {
		t.report(ReportOwnersConflict)
		return true
	}
	if !mutant("N24b") {
		t.stop(t.ownedByRecord() &^ merged.Of(t.s.self()))
	}
	t.to(Resolving)
	t.report(ReportResolving)
	t.s.Plan = Prepared{Owners: merged, Legs: mergeLegs(me.Legs, h.Legs), Docs: me.Docs.latest(me.Pending).latest(h.Docs).latest(h.Pending)}
	if mine || both && merged[PairResource].Node == t.s.self() {
		t.startCopy()
		return true
	}
	t.grant()
	return true
}

// completes says whether r is the commit of what p has prepared, or of a tuple before that one: COMMIT was lost, the next
// join prepared anew, and was cut too. Nobody else has committed since: every PREPARE lies above what its coordinator had
// recorded, so the record with which it was sent is r (seed commit-and-join-cut).
func completes(r, p *Record) bool {
	return r.Members == Both && p.Ep < r.Ep && r.Ep <= p.Prep.Ep
}

// r20Claim: R20. The peer recorded that this node is the only member: its YIELD was lost, or R6 there saw a
// grant of ours whose answer we lost. Consistent is a belt.
func (t *turn) r20Claim(h Record) bool {
	me := &t.s.Rec
	if h.Members != Only(t.s.self()) || h.Ep <= me.Ep || !me.Consistent {
		return false
	}
	t.takenOver(h)
	return true
}
