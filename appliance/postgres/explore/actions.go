package explore

import (
	"fmt"

	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

// action is one thing that can happen next.
type action struct {
	name string
	rare bool
	do   func() error
}

// actions lists what can happen, in a fixed order.
func (w *world) actions() []action {
	var all []action
	add := func(rare bool, name string, do func() error) { all = append(all, action{name, rare, do}) }
	spend := func(n *int, f func()) func() error {
		return func() error {
			*n--
			f()
			return nil
		}
	}
	for i := range w.n {
		w.nodeActions(i, add)
	}
	if w.left.ticks > 0 {
		add(false, "tick", spend(&w.left.ticks, func() { w.now += tick }))
	}
	if w.doc.phase != 0 && w.link {
		add(false, "deliver the record", w.deliver)
	}
	if w.give && w.link {
		add(false, "deliver GIVE", func() error { w.taken(); return nil })
	}
	both := w.n[0].up && w.n[1].up
	if w.link && w.left.cut > 0 {
		add(true, "cut", spend(&w.left.cut, func() { w.link = false; w.part(); w.disconnect() }))
	}
	if !w.link {
		add(false, "mend", func() error { w.link = true; return nil })
	}
	if w.link && both {
		paired := w.n[0].mode == membership.Paired && w.n[1].mode == membership.Paired
		joining := w.n[0].mode == membership.Joining || w.n[1].mode == membership.Joining
		switch {
		case paired:
		case joining && w.prepared:
			add(false, "commit", func() error { w.commit(); return nil })
		case joining:
			add(false, "prepare", func() error { w.prepare(); return nil })
		default:
			add(false, "meet", func() error { w.meet(); return nil })
		}
	}
	return all
}

func (w *world) disconnect() {
	for i := range w.n {
		w.n[i].connected = 0
	}
}

func (w *world) nodeActions(i int, add func(bool, string, func() error)) {
	n, p := &w.n[i], w.peerOf(i)
	name := func(what string) string { return fmt.Sprintf("%c %s", 'a'+i, what) }
	if !n.up {
		add(false, name("boots"), func() error { n.up, n.mode = true, membership.Init; return nil })
		return
	}
	add(false, name("looks"), func() error { return w.look(i, false, nil, -1) })
	add(false, name("looks"), func() error { return w.look(i, false, nil, -1) }) // most of what happens
	add(true, name("looks with old words of the peer"), func() error { return w.look(i, true, nil, -1) })
	if n.work != nil {
		add(false, name("ends: "+n.work.String()), func() error { return w.finish(i, true) })
		add(true, name("fails: "+n.work.String()), func() error { return w.finish(i, false) })
	}
	w.serverActions(i, add, name)
	if w.left.crashNode > 0 {
		add(true, name("loses power"), func() error { w.left.crashNode--; w.crash(i); return nil })
		for k := range 3 {
			add(true, name(fmt.Sprintf("loses power after %d effects", k)), func() error { w.left.crashNode--; return w.look(i, false, nil, k) })
		}
	}
	if w.left.restart > 0 {
		add(true, name("restarts its daemon"), func() error {
			w.left.restart--
			n.state, n.work, n.done, n.spare.kind, n.flushing = decide.State{Cfg: timing()}, nil, nil, decide.DirAbsent, false
			return nil
		})
	}
	if w.mayWin(i) {
		add(false, name("wins"), func() error { w.win(i); return nil })
	}
	if (n.mode == membership.Frozen || n.mode == membership.Init) && !n.over && (n.write || n.read || n.mode == membership.Frozen) {
		add(false, name("'s lease ends"), func() error { n.over, n.write, n.read = true, false, false; return nil })
	}
	if n.mode == membership.Solo && !n.evidence.Good() && !(w.link && p.up && p.mode == membership.Joining) {
		add(true, name("hears nothing from a fence attempt"), func() error { n.evidence = decide.EvidenceUnknown; return nil })
		add(true, name("fences"), func() error { w.crash(1 - i); n.evidence = decide.EvidenceConfirmed; return nil })
		if !p.up || p.over || p.mode == membership.Init && !p.write {
			add(false, name("has waited W0"), func() error { n.evidence = decide.EvidenceWaited; return nil })
		}
	}
	if w.left.unmount > 0 && n.proc == decide.ProcStopped && !n.gone && n.disk.kind == decide.DirOurs && n.work == nil {
		add(true, name("loses its volume"), func() error { w.left.unmount--; n.gone = true; return nil })
	}
	if n.gone && n.work == nil {
		add(false, name("finds its volume"), func() error { n.gone = false; return nil })
	}
	if n.mode == membership.Solo && w.left.resume > 0 && n.evidence.Good() && !n.docs.Newest().Copies.Has(membership.Node(i)) && n.docs.Newest().Version != 0 {
		add(true, name("is to go on without the newest rows"), func() error {
			w.left.resume--
			w.forced = true
			return w.look(i, false, decide.Order{Kind: decide.OrderResume}, -1)
		})
	}
	if w.left.switchover > 0 && n.state.Allows(w.input(i, true)) == decide.Granted {
		add(true, name("is to switch over"), func() error {
			w.left.switchover--
			return w.look(i, false, decide.Order{Kind: decide.OrderSwitchover}, -1)
		})
	}
}

func (w *world) serverActions(i int, add func(bool, string, func() error), name func(string) string) {
	n, p := &w.n[i], w.peerOf(i)
	if n.proc == decide.ProcStopped {
		return
	}
	if w.left.crashServer > 0 {
		add(true, name("'s server crashes"), func() error { w.left.crashServer--; w.stopServer(i, false); return nil })
	}
	switch n.proc {
	case decide.ProcPrimary:
		if n.write && w.left.rows > 0 && int(n.disk.log.n) < maxRows && w.rows < maxRows {
			add(false, name("commits"), func() error {
				w.left.rows--
				w.rows++
				n.disk.log.row[n.disk.log.n] = w.rows
				n.disk.log.n++
				n.pending = append(n.pending[:len(n.pending):len(n.pending)], w.rows)
				return w.settle(i)
			})
		}
		if n.effective != n.names && !n.stalled {
			add(false, name("'s checkpointer runs"), func() error { n.effective = n.names; return w.settle(i) })
		}
		if w.left.stall > 0 && !n.stalled {
			add(true, name("'s checkpointer stalls"), func() error { w.left.stall--; n.stalled = true; return nil })
		}
		if n.flushing && !n.stalled {
			add(false, name("'s checkpoint ends"), func() error {
				n.flushing, n.disk.checkpoint = false, n.disk.timeline
				n.done = append(n.done, decide.Done{Work: decide.Checkpointing, OK: true})
				return nil
			})
		}
		if n.stalled {
			add(false, name("'s checkpointer goes on"), func() error { n.stalled = false; n.effective = n.names; return w.settle(i) })
		}
	case decide.ProcStandby:
		follows := w.link && p.up && p.proc == decide.ProcPrimary && n.disk.log.prefixOf(&p.disk.log)
		switch {
		case follows && n.connected != p.life:
			add(false, name("connects"), func() error {
				w.pids++
				n.connected, n.pid = p.life, w.pids
				n.disk.timeline, n.disk.fork = p.disk.timeline, p.disk.fork
				return nil
			})
		case follows && n.disk.log.n < p.disk.log.n:
			add(false, name("receives"), func() error { n.stream(p); return w.settle(1 - i) })
		}
	default:
	}
}
