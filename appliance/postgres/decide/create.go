package decide

import "duet/appliance/membership"

// b1Create: the one initdb in the life of a site. A directory or a record anywhere says that it has happened.
func (t *turn) b1Create() {
	l, p := &t.in.Local, &t.in.Peer
	if t.rec.Version != 0 || t.in.Docs.Writing || !t.mayStart() || t.in.Grant.Mode != membership.Paired || !t.peerFresh() || p.Dir != DirAbsent {
		return
	}
	switch {
	case l.Dir == DirAbsent, l.Dir == DirCreating && l.Proc == ProcStopped && !t.s.Created:
		t.do(Create{}) // an interrupted one is removed and begun again: nobody ever saw it
	case l.Dir == DirCreating && l.Proc == ProcStopped:
		t.do(StartServer{Primary: true})
	case l.Dir == DirCreating && l.Proc == ProcPrimary && t.mayWrite():
		t.write(Record{
			Epoch: t.in.Grant.Epoch, Version: 1, SystemID: l.SystemID, Copies: membership.Only(t.self()), Timeline: l.Timeline,
			PromoteLSN: l.Fork, Durability: t.in.Durability,
		}, false)
	}
}

// b2Again: there is a record, and not its directory. An empty mount must never become a new database.
func (t *turn) b2Again() {
	l := &t.in.Local
	if l.Dir == DirUnseen {
		return
	}
	if t.rec.Version == 0 { // a directory that no record speaks of is not touched
		t.fault(FaultDirectory, l.Dir == DirOurs || l.Dir == DirForeign)
		return
	}
	missing := l.Dir == DirAbsent || l.Dir == DirEmpty || l.Dir == DirForeign || l.Dir == DirUnfinished
	t.fault(FaultDirectory, missing && t.rec.Copies == membership.Only(t.self()))
	// The owner lost its directory, and the peer has everything: the database goes there, and this node is made anew (J6).
	if missing && l.Proc == ProcStopped && t.peerIn() && t.peerFresh() && t.in.Peer.Proc == ProcStandby && t.mayRun() &&
		t.in.Grant.Mode == membership.Paired && !t.in.Docs.Writing {
		t.do(MoveOwner{})
		return
	}
	if mutant("initdb again") && missing && t.mayStart() && t.rec.Copies == membership.Only(t.self()) {
		t.do(Create{})
	}
}
