package membership

// Documents ride on the record and follow the rules of a write (R25, section 10): acknowledged when both have recorded
// it, so the survivor of any loss has it, current or pending. A version is acknowledged when it is current on its writer
// and nothing is being written there any more (State.Writing).

// Newer says whether x is a later version than y.
func (x DocRef) Newer(y DocRef) bool { return x.Ep > y.Ep || x.Ep == y.Ep && x.Version > y.Version }

// latest is the newest version per document of two tables.
func (d Docs) latest(e Docs) Docs {
	for i := range d {
		if e[i].Newer(d[i]) {
			d[i] = e[i]
		}
	}
	return d
}

func (s *State) allowsDoc(c ChangeDoc) Refusal {
	switch {
	case c.Doc >= docCount || !s.resource(c.Writer):
		return RefusedUnknown
	case s.Mode == Solo && s.Copy == PrepareSent: // its PREPARE names the documents
		return RefusedBusy
	case s.Mode != Solo && !s.together():
		return RefusedNotPaired
	case !s.Owns(c.Writer):
		return RefusedNotOwner
	case s.Writing[c.Doc].Version != 0 || s.Rec.Pending[c.Doc].Version != 0 || s.Gives.Has(c.Writer):
		return RefusedBusy
	case !c.Ref.Newer(s.Rec.Docs[c.Doc]) || c.Ref.Ep != s.Rec.Ep:
		return RefusedNotNext
	}
	return Granted
}

// r25Change: paired, the peer records it first; solo, this node is all there is. A growth is recorded here first: it makes the
// peer one that may go on by what it holds, so the writer must count it before (mutants "W grow", "W shrink").
func (t *turn) r25Change(c ChangeDoc) {
	doc, ref := c.Doc, c.Ref
	if t.s.Mode == Solo || mutant("N13") {
		t.r25Current(doc, ref)
		return
	}
	if c.Growth && !mutant("W grow") || mutant("W shrink") {
		t.r25Current(doc, ref)
	}
	t.s.Writing[doc] = ref
	t.send(DocPrepare{doc, ref})
	t.arm(TimerRepeat, t.in.Now+t.s.Cfg.CommitAgain)
}

// r25Current makes ref what managers act on. Whoever waits for its acknowledgement sees it in the record.
func (t *turn) r25Current(doc DocID, ref DocRef) {
	r := t.s.Rec
	r.Docs[doc], r.Pending[doc] = ref, DocRef{}
	t.persist(r)
	t.report(ReportDocument)
}

// r25Prepare: the peer of the writer.
func (t *turn) r25Prepare(m DocPrepare) {
	s := &t.s
	if !s.Committed() || m.Doc >= docCount || m.Ref.Ep != s.Rec.Ep {
		return
	}
	switch {
	case m.Ref == s.Rec.Docs[m.Doc]:
	case m.Ref == s.Rec.Pending[m.Doc]:
	case !m.Ref.Newer(s.Rec.Docs[m.Doc].latestRef(s.Rec.Pending[m.Doc])):
		return
	default:
		r := s.Rec
		r.Pending[m.Doc] = m.Ref
		t.persist(r)
	}
	t.send(DocPrepared(m))
	t.arm(TimerRepeat, t.in.Now+s.Cfg.CommitAgain)
}

func (x DocRef) latestRef(y DocRef) DocRef {
	if y.Newer(x) {
		return y
	}
	return x
}

// r25Prepared: the writer. One that is current already is asked for again by a peer that missed DOCCOMMIT.
func (t *turn) r25Prepared(m DocPrepared) {
	s := &t.s
	if !s.Committed() || m.Doc >= docCount {
		return
	}
	switch m.Ref {
	case DocRef{}:
	case s.Writing[m.Doc]:
		s.Writing[m.Doc] = DocRef{}
		if m.Ref != s.Rec.Docs[m.Doc] { // a growth is
			t.r25Current(m.Doc, m.Ref)
		}
		t.send(DocCommit(m))
	case s.Rec.Docs[m.Doc]:
		t.send(DocCommit(m))
	}
}

// r25Commit: the peer of the writer acts on it too.
func (t *turn) r25Commit(m DocCommit) {
	s := &t.s
	if s.Committed() && m.Doc < docCount && m.Ref.Version != 0 && m.Ref == s.Rec.Pending[m.Doc] {
		t.r25Current(m.Doc, m.Ref)
	}
}
