package decide

import "duet/appliance/membership"

// c1Closed: where no primary runs, nothing of one may be reachable.
func (t *turn) c1Closed() {
	l := &t.in.Local
	switch {
	case l.Proc == ProcUnseen, l.Proc == ProcPrimary, l.Proc == ProcHung:
		return
	case l.Proc == ProcStarting && !t.s.Looked: // a server of before this process that answers slowly is what it was
		return
	}
	if l.WriteOpen {
		t.do(SetGate{Gate: Write})
	}
	if l.WriteAddress {
		t.do(SetAddress{Gate: Write})
	}
	if l.Proc == ProcStopped && (l.ReadOpen || l.ReadAddress) {
		t.do(SetGate{Gate: Read}, SetAddress{Gate: Read})
	}
}

// canHandOver is C2's guard: the standby runs on our timeline, holds everything, and is not the worse choice.
func (t *turn) canHandOver() bool {
	p := &t.in.Peer
	if t.in.Grant.Mode != membership.Paired || !t.peerIn() || !t.peerFresh() || p.Proc != ProcStandby || p.Timeline != t.in.Local.Timeline {
		return false
	}
	return (p.Fails < t.s.Cfg.FailMost || t.s.Fails >= t.s.Cfg.FailMost) && !t.s.NoMove && !t.in.Docs.Writing
}

// c2HandOver: the server died and the cgroup is empty: the standby goes on sooner than a restart in place would. Where it
// cannot, s2Start restarts in place (C3).
func (t *turn) c2HandOver() {
	l := &t.in.Local
	if l.Proc != ProcStopped || !t.s.Died || !t.mayRun() || !t.in.Enabled || !t.canHandOver() {
		return
	}
	t.do(MoveOwner{})
}

// c4Fail counts failures within the window; an old one expires by itself.
func (t *turn) c4Fail() {
	s := &t.s
	if s.Fails == 0 || t.in.Now-s.FailFirst > s.Cfg.FailWindow {
		s.Fails, s.FailFirst = 0, t.in.Now
	}
	s.Fails, s.FailLast = min(s.Fails+1, 16), t.in.Now
	t.fault(FaultCrashLoop, s.Fails >= s.Cfg.BackoffFrom)
}

// backoff is the moment before which a server that keeps failing is not started. The counter never keeps it down for good.
func (t *turn) backoff() membership.Boottime {
	s := &t.s
	if s.Fails < s.Cfg.BackoffFrom || t.in.Now-s.FailFirst > s.Cfg.FailWindow {
		return 0
	}
	wait := s.Cfg.BackoffLeast << min(s.Fails-s.Cfg.BackoffFrom, 8)
	return s.FailLast + min(wait, s.Cfg.BackoffMost)
}

// h2Hung: no probe has got through for long, and the standby can take over. Slowness alone moves nothing (H1), and
// neither does a full table of connections (H3): the probe has connections of its own.
func (t *turn) h2Hung() {
	s, l := &t.s, &t.in.Local
	if (l.Proc != ProcPrimary && l.Proc != ProcHung) || !l.AsPrimary || l.ProbeAt == 0 || t.in.Now-l.ProbeAt < s.Cfg.HungAfter {
		return
	}
	if !t.mayRun() || !t.canHandOver() {
		return
	}
	t.fault(FaultHung, true)
	t.do(SetGate{Gate: Write}, SetAddress{Gate: Write}, KillServer{})
}
