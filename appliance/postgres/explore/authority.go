package explore

import (
	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

// The membership core, as what it guarantees: one authority at a time, records by R25, owners by R8 and R22. Its own
// protocol is explored elsewhere (membership/explore).

func (w *world) refuse(i int, work decide.Work) {
	w.n[i].done = append(w.n[i].done, decide.Done{Work: work})
}

// writeRecord begins a change of the record by rule W.
func (w *world) writeRecord(i int, e decide.WriteRecord) error {
	n, p := &w.n[i], w.peerOf(i)
	if n.owner != membership.Node(i) || w.doc.phase != 0 || !e.Record.Newer(n.docs.Newest()) {
		w.refuse(i, decide.Writing)
		return nil
	}
	switch {
	case n.mode == membership.Solo:
		if w.prepared && !Without { // from PREPARE on a joiner counts as a member
			p.docs.Pending = e.Record
		}
		n.docs = decide.Docs{Current: e.Record}
		n.done = append(n.done, decide.Done{Work: decide.Writing, OK: true})
		return w.settle(i)
	case n.mode != membership.Paired && !(n.mode == membership.Joining && w.lent) || !w.link:
		w.refuse(i, decide.Writing)
	case e.Growth:
		n.docs = decide.Docs{Current: e.Record, Writing: true}
		w.doc = doc{docGrowPrepare, membership.Node(i), e.Record}
	default:
		n.docs.Writing = true
		w.doc = doc{docPrepare, membership.Node(i), e.Record}
	}
	return nil
}

// deliver brings the record's message to its end.
func (w *world) deliver() error {
	d := &w.doc
	i := int(d.from)
	n, p := &w.n[i], w.peerOf(i)
	switch d.phase {
	case docPrepare, docGrowPrepare:
		if d.record.Newer(p.docs.Newest()) {
			p.docs.Pending = d.record
		}
		d.phase++
	case docPrepared:
		n.docs = decide.Docs{Current: d.record}
		n.done = append(n.done, decide.Done{Work: decide.Writing, OK: true})
		d.phase = docCommit
	case docGrowPrepared:
		n.docs.Writing = false
		n.done = append(n.done, decide.Done{Work: decide.Writing, OK: true})
		d.phase = docCommit
	case docCommit:
		if p.docs.Pending.Version == d.record.Version && p.docs.Pending.Epoch == d.record.Epoch {
			p.docs = decide.Docs{Current: d.record, Writing: p.docs.Writing}
		}
		w.doc = doc{}
	}
	return w.settle(i)
}

func (w *world) moveOwner(i int) {
	n, p := &w.n[i], w.peerOf(i)
	self, to := membership.Node(i), membership.Node(1-i)
	switch {
	case n.mode == membership.Solo && p.mode == membership.Joining && w.link && p.up: // R29
		n.owner, n.version, n.evidence = to, n.version+1, decide.EvidenceNone
		p.owner, p.version, p.over, w.lent = to, n.version, false, true
	case n.mode == membership.Paired && w.link && n.owner == self && w.doc.phase == 0 && !w.give:
		n.owner, n.version, w.give = to, n.version+1, true
	default:
		w.refuse(i, decide.Moving)
		return
	}
	n.done = append(n.done, decide.Done{Work: decide.Moving, OK: true})
}

// taken is the arrival of GIVE.
func (w *world) taken() {
	w.give = false
	for i := range w.n {
		if n, p := &w.n[i], w.peerOf(i); p.version > n.version {
			n.owner, n.version = p.owner, p.version
			n.evidence = decide.EvidenceStated
		}
	}
}

// part ends the session: messages on their way are lost, both are frozen, a write under way is given up.
func (w *world) part() {
	for i := range w.n {
		n := &w.n[i]
		if n.up && n.docs.Writing {
			n.docs.Writing = false
			n.done = append(n.done, decide.Done{Work: decide.Writing})
		}
		switch n.mode {
		case membership.Paired:
			n.mode = membership.Frozen
		case membership.Joining:
			n.mode = membership.Init
		default:
		}
	}
	w.doc, w.give, w.prepared, w.lent = doc{}, false, false, false
}

// mayWin: a member that is frozen, or was rebooted, may ask the witness.
func (w *world) mayWin(i int) bool {
	n := &w.n[i]
	return n.up && w.members.Has(membership.Node(i)) && !(w.link && w.peerOf(i).up) && (n.mode == membership.Frozen || n.mode == membership.Init)
}

// win is R5: pending records may have been acknowledged. Here they stay pending: what must be believed is Step's to say.
func (w *world) win(i int) {
	n := &w.n[i]
	w.members, w.epoch = membership.Only(membership.Node(i)), w.epoch+1
	n.mode, n.over, n.evidence = membership.Solo, false, decide.EvidenceNone
	if n.owner == membership.Node(i) {
		n.evidence = decide.EvidenceOwn
	}
}

// meet is a session: R13 when both are members, R12 when one is alone.
func (w *world) meet() {
	a, b := &w.n[0], &w.n[1]
	if w.members == membership.Both {
		newest, owner, version := w.newest(), a.owner, a.version
		if b.version > version {
			owner, version = b.owner, b.version
		}
		for i := range w.n {
			n := &w.n[i]
			n.mode, n.over, n.owner, n.version, n.evidence = membership.Paired, false, owner, version, decide.EvidenceNone
			n.docs = decide.Docs{Current: newest}
		}
		return
	}
	i := int(w.members.Other().Peer()) // the member
	n, p := &w.n[i], w.peerOf(i)
	if n.mode != membership.Solo { // rebooted: it is alone by its own record (R1)
		w.win(i)
	}
	// R12: everything of the joiner is stopped; records and owners come from the member.
	w.stopServer(1-i, false)
	p.write, p.read, p.held = false, false, [2]bool{}
	p.mode, p.over, p.owner, p.version, p.evidence = membership.Joining, false, n.owner, n.version, decide.EvidenceNone
	p.docs = decide.Docs{Current: n.docs.Newest()}
	if n.owner != membership.Node(i) || !n.evidence.Good() {
		n.evidence = decide.EvidenceStated // JOIN
	}
}

// prepare is R14, R15: the joiner has the tuple, with the record as it is now.
func (w *world) prepare() {
	i := int(w.members.Other().Peer())
	w.n[1-i].docs = decide.Docs{Current: w.newest(), Writing: w.n[1-i].docs.Writing}
	w.prepared = true
}

// commit is R16.
func (w *world) commit() {
	w.members, w.epoch, w.prepared, w.lent = membership.Both, w.epoch+2, false, false
	w.taken() // PREPARE carries the table of owners
	for i := range w.n {
		n := &w.n[i]
		n.mode, n.evidence, n.over = membership.Paired, decide.EvidenceNone, false
		n.docs = decide.Docs{Current: n.docs.Newest(), Writing: n.docs.Writing}
	}
}

// crash of a node: what is on disk stays.
func (w *world) crash(i int) {
	n := &w.n[i]
	w.stopServer(i, false)
	spare := n.spare
	if spare.kind == decide.DirOurs { // whole, and not switched to: it is removed by the next try
		spare.kind = decide.DirAbsent
	}
	if _, creating := n.work.(decide.Create); creating {
		n.disk = dir{kind: decide.DirCreating}
	}
	*n = node{disk: n.disk, spare: spare, gone: n.gone, owner: n.owner, version: n.version, docs: n.docs, proc: decide.ProcStopped, state: decide.State{Cfg: timing()}}
	n.docs.Writing = false
	w.part()
}
