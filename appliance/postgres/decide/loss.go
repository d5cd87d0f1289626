package decide

import "duet/appliance/membership"

// watchStandby keeps since when the peer does not follow: no streaming walsender, or its flush position stands still
// behind ours.
func (t *turn) watchStandby() {
	s, l := &t.s, &t.in.Local
	if l.Proc != ProcPrimary {
		return
	}
	switch {
	case t.streaming() && (l.Sender.Flush != s.FlushSeen || l.Sender.Flush >= l.End || s.FlushAt == 0):
		s.FlushSeen, s.FlushAt, s.Stood = l.Sender.Flush, t.in.Now, false
	case t.streaming():
		s.Stood = true
	default:
		if !s.Stood && s.FlushSeen != 0 || s.FlushAt == 0 { // it was following when it was seen last
			s.FlushAt = t.in.Now
		}
		s.FlushSeen, s.Stood = 0, false
	}
	stands := t.in.Now-s.FlushAt >= s.Cfg.DegradeAfter
	switch {
	case t.streaming() && !stands:
		s.LostSince = 0
	case s.LostSince == 0: // also when the server has given up a standby that stood still: the patience counts once
		s.LostSince = s.FlushAt
	}
}

// lost is L1: at once when this node is alone by membership, else after a patience that a restarting standby survives.
func (t *turn) lost() bool {
	solo := t.in.Grant.Mode == membership.Solo // X1
	if solo && !t.in.Grant.Joining {
		return true // whatever a connection to it still says: nobody has told the server that its end is gone
	}
	if t.s.LostSince == 0 {
		return false
	}
	patience := t.s.Cfg.DegradeAfter
	switch {
	case solo:
		patience = 0
	case t.s.Opened != t.s.Life && t.s.Patience != 0:
		patience = t.s.Patience
	}
	return t.in.Now-t.s.LostSince >= patience
}

// l1Lost: the record comes first (L2); where none can be written, commits wait (L6); with strict durability they wait for
// the standby (L5).
func (t *turn) l1Lost() {
	l := &t.in.Local
	if l.Proc != ProcPrimary || !t.mayRun() || !t.peerIn() || t.rec.Version == 0 {
		return
	}
	lost := t.lost()
	t.fault(FaultStandbyLost, lost)
	switch {
	case !lost || t.rec.Durability == Strict || !t.mayWrite() || t.s.Order != OrderNone:
	case t.s.Opened != t.s.Life && t.peerAhead():
		t.fault(FaultDiskLied, true)
		t.s.Expected = true
		t.do(StopServer{})
	default:
		t.l2Record()
	}
}

// l5Choice: what the site wants when the standby is lost has changed. It takes no copy away and adds none; on the peer first,
// as everything that is no growth.
func (t *turn) l5Choice() {
	if t.in.Local.Proc != ProcPrimary || !t.mayRun() || !t.mayWrite() || t.rec.Version == 0 || t.rec.Durability == t.in.Durability || t.s.Order != OrderNone {
		return
	}
	r := t.rec.next(t.in.Grant.Epoch)
	r.Durability = t.in.Durability
	t.write(r, false)
}

// l2Record: copies={owner}, pending on the peer before it is current here. The other node can then never be promoted on a
// copy that lacks what is acknowledged from here on.
func (t *turn) l2Record() {
	r := t.rec.next(t.in.Grant.Epoch)
	r.Copies = membership.Only(t.self())
	t.s.Armed = 0
	t.loss()
	t.write(r, false)
	if mutant("release early") {
		t.do(SetNames{NamesNone})
	}
}

// loss counts for G1.
func (t *turn) loss() {
	s := &t.s
	if s.Losses == 0 || t.in.Now-s.LossFirst > s.Cfg.FlapWindow {
		s.Losses, s.LossFirst = 0, t.in.Now
	}
	s.Losses = min(s.Losses+1, 16)
}

// l3Release: only after the record that counts here lacks the peer.
func (t *turn) l3Release() {
	l := &t.in.Local
	if l.Proc != ProcPrimary || !t.mayRun() || t.rec.Version == 0 || t.in.Docs.Writing || t.in.Docs.Current.Copies.Has(t.peer()) || t.peerIn() {
		return
	}
	if l.Names == NamesPeer && t.s.Armed == 0 {
		t.s.Proven = 0
		t.do(SetNames{NamesNone})
	}
}

// l3Watch: a release is over when nobody waits any more. A checkpointer that stands still delays it; a waiter is never
// cancelled, because a cancelled wait reports success.
func (t *turn) l3Watch() {
	s, l := &t.s, &t.in.Local
	if l.Proc != ProcPrimary {
		return
	}
	if l.Names == NamesPeer || l.Waiters == 0 {
		s.ReleaseSince = 0
		t.fault(FaultHung, false)
		return
	}
	if s.ReleaseSince == 0 {
		s.ReleaseSince = t.in.Now
	}
	t.fault(FaultHung, t.in.Now-s.ReleaseSince >= s.Cfg.ReleaseBy)
}
