package decide

import "duet/appliance/membership"

// g1Good: the standby has kept up for long enough. One that flaps waits longer each time.
func (t *turn) g1Good() bool {
	s, l := &t.s, &t.in.Local
	follows := t.streaming() && t.peerFresh() && t.in.Peer.Proc == ProcStandby && l.End <= l.Sender.Flush+s.Cfg.LagMost
	if !follows {
		s.GoodSince = 0
		return false
	}
	if s.GoodSince == 0 {
		s.GoodSince = t.in.Now
	}
	wait := s.Cfg.GoodFor
	for range max(s.Losses, 2) - 2 {
		wait = min(2*wait, s.Cfg.GoodMost)
	}
	return t.in.Now-s.GoodSince >= wait
}

// g2Arm tells the server to wait for the peer. Whether it does is not known yet.
func (t *turn) g2Arm() {
	s, l := &t.s, &t.in.Local
	if l.Proc != ProcPrimary || !t.mayRun() || t.rec.Version == 0 || l.Timeline != t.rec.Timeline || s.Order != OrderNone || t.in.Docs.Writing {
		return
	}
	if t.peerIn() { // at a start, after a promotion, and after G4
		if l.Names != NamesPeer {
			s.Proven = 0
			t.do(SetNames{NamesPeer})
		}
		s.Armed = 0
		if s.Proven != s.Life && t.streaming() {
			s.Armed = l.Sender.PID
		}
		return
	}
	switch {
	case s.Armed != 0 && (l.Sender.PID != s.Armed || !t.streaming() || t.lost()):
		// Nothing depends on the peer yet: the record lacks it.
		s.Armed, s.Proven, s.GoodSince = 0, 0, 0
		t.loss()
		t.do(SetNames{NamesNone})
	case s.Armed != 0 && l.Names != NamesPeer:
		s.MarkAt = t.in.Now + 1 // the next look
		t.do(SetNames{NamesPeer})
	case s.Armed == 0 && t.s.Opened == t.s.Life && t.g1Good() && t.together():
		s.Armed, s.MarkAt = l.Sender.PID, t.in.Now+1 // the next look: the server has to hear of it first
		if l.Names != NamesPeer {
			t.do(SetNames{NamesPeer})
		}
	}
}

// g3Marker: only a commit that is seen waiting proves that the server waits.
func (t *turn) g3Marker() {
	s, l := &t.s, &t.in.Local
	if l.Proc != ProcPrimary || !t.mayRun() || s.Armed == 0 || s.Proven == s.Life || t.in.Now < s.MarkAt || l.Names != NamesPeer {
		return
	}
	if mutant("grow on sync_state") {
		s.Proven = s.Life
		return
	}
	t.do(Marker{s.Armed})
}

// marked is the end of G3; one that returned early, or met another walsender, proves nothing.
func (t *turn) marked(e Done) {
	s := &t.s
	if e.OK && e.PID == s.Armed && s.Armed != 0 && s.Life != 0 && s.Life == t.in.Local.Life && t.in.Local.Names == NamesPeer {
		s.Proven = s.Life
		return
	}
	s.MarkAt = t.in.Now + s.Cfg.MarkAgain
}

// g4Count: current here before the peer may count on it, so that this node can no longer release alone.
func (t *turn) g4Count() {
	s, l := &t.s, &t.in.Local
	if l.Proc != ProcPrimary || t.peerIn() || s.Armed == 0 || s.Proven != s.Life || l.Sender.PID != s.Armed || !t.streaming() {
		return
	}
	if !t.mayRun() || !t.mayWrite() {
		return
	}
	r := t.rec.next(t.in.Grant.Epoch)
	r.Copies = membership.Both
	t.fault(FaultStandbyLost, false)
	t.write(r, true)
}
