package decide

// x3LeaseEnd: a primary without a right. The gate is closed by its own deadline; this is the second net, and it ends the
// server. It waits for nothing that is under way.
func (t *turn) x3LeaseEnd() bool {
	s, l := &t.s, &t.in.Local
	primary := l.Proc == ProcPrimary || (l.Proc == ProcStarting || l.Proc == ProcHung) && l.AsPrimary
	if s.Doing == Killing {
		if primary && t.in.Now-s.DoingSince >= s.Cfg.ResetAfter {
			t.fault(FaultHung, true)
			t.do(ResetNode{})
		}
		return true
	}
	if !primary || t.mayRun() {
		return false
	}
	s.Order, s.Opened = OrderNone, 0
	if l.WriteOpen {
		t.do(SetGate{Gate: Write})
	}
	if l.WriteAddress {
		t.do(SetAddress{Gate: Write})
	}
	s.Expected = true
	switch {
	case s.Doing != Stopping:
		t.do(StopServer{Immediate: true})
	case t.in.Now-s.DoingSince >= s.Cfg.KillAfter:
		t.do(KillServer{})
	}
	return true
}
