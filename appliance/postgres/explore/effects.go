package explore

import (
	"fmt"

	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

// look lets node i take one Step and carries out the first most of its effects (all, if most is negative); then the node
// is to crash, if they were cut short.
func (w *world) look(i int, stale bool, event decide.Event, most int) error {
	n := &w.n[i]
	in := w.input(i, stale)
	in.Event = event
	if event == nil && len(n.done) > 0 {
		in.Event = n.done[0]
		n.done = n.done[1:]
	}
	var effects []decide.Effect
	n.state, effects = decide.Step(n.state, in)
	for k, e := range effects {
		if most >= 0 && k >= most {
			w.crash(i)
			break
		}
		if err := w.effect(i, e); err != nil {
			return err
		}
	}
	return w.settle(i)
}

// effect does what is done at once, and notes what takes long.
func (w *world) effect(i int, e decide.Effect) error {
	n := &w.n[i]
	switch e := e.(type) {
	case decide.SetNames:
		if e.Names == decide.NamesNone && n.proc == decide.ProcPrimary && n.docs.Current.Copies.Has(membership.Node(1-i)) {
			return fmt.Errorf("PG4: %c releases, and its record still counts the other node", 'a'+i)
		}
		n.names = e.Names
		if !n.stalled {
			n.effective = e.Names
		}
	case decide.SetGate:
		if e.Gate == decide.Write {
			n.write = e.Open && (!n.over || n.mode == membership.Solo)
		} else {
			n.read = e.Open
		}
	case decide.SetAddress:
		n.held[e.Gate] = e.Add
	case decide.Want:
		if n.mode == membership.Solo && n.owner != membership.Node(i) {
			// The real R8 asks for evidence too; here Step's own guard is what is tested.
			n.owner, n.version = membership.Node(i), n.version+1
		}
	case decide.WriteRecord:
		return w.writeRecord(i, e)
	case decide.MoveOwner:
		w.moveOwner(i)
	case decide.StopServer:
		if e.Immediate {
			w.stopServer(i, false)
			n.done = append(n.done, decide.Done{Work: decide.Stopping, OK: true})
			return nil
		}
		n.work = e
	case decide.KillServer:
		w.stopServer(i, false)
		n.done = append(n.done, decide.Done{Work: decide.Killing, OK: true})
	case decide.Checkpoint:
		n.flushing = true
	case decide.CreateSlot, decide.SetFault, decide.ResetNode:
	default:
		n.work = e
	}
	return nil
}

// finish ends what is under way on node i, well or not.
func (w *world) finish(i int, ok bool) error {
	n := &w.n[i]
	e := n.work
	n.work = nil
	n.done = append(n.done[:len(n.done):len(n.done)], decide.Done{Work: e.Work(), OK: ok})
	d := &n.done[len(n.done)-1]
	if !ok {
		if _, creating := e.(decide.Create); creating {
			n.disk = dir{kind: decide.DirCreating}
		}
		n.spare.kind = decide.DirAbsent
		return nil
	}
	switch e := e.(type) {
	case decide.Create:
		if w.newest().Version != 0 {
			return fmt.Errorf("PG6: %c creates a database, and there is a record of one", 'a'+i)
		}
		n.disk = dir{kind: decide.DirCreating, timeline: 1, checkpoint: 1, clean: true}
		w.used[1], w.timeline = true, 1
		n.gone = false
	case decide.StartServer:
		return w.startServer(i, e)
	case decide.StopServer:
		p := w.peerOf(i)
		for n.proc == decide.ProcPrimary && p.connected == n.life && p.proc == decide.ProcStandby && p.disk.log.n < n.disk.log.n {
			p.stream(n) // a fast stop waits for its walsenders
		}
		if err := w.settle(i); err != nil {
			return err
		}
		w.stopServer(i, true)
	case decide.Promote:
		return w.promote(i, e)
	case decide.Marker:
		d.PID = e.PID
		p := w.peerOf(i)
		d.OK = n.proc == decide.ProcPrimary && n.effective == decide.NamesPeer && p.up && p.proc == decide.ProcStandby && p.connected == n.life && p.pid == e.PID
		for d.OK && p.disk.log.n < n.disk.log.n {
			p.stream(n)
		}
	case decide.ExportTail:
	case decide.Clone:
		n.spare = n.disk
		n.spare.kind = decide.DirUnfinished
	case decide.Rewind:
		return w.rewind(i, d)
	case decide.Basebackup:
		p := w.peerOf(i)
		if d.OK = w.link && p.up && p.proc == decide.ProcPrimary; d.OK {
			n.spare = p.disk
			n.spare.kind, n.spare.standby, n.spare.clean = decide.DirOurs, true, false
		} else {
			n.spare.kind = decide.DirAbsent
		}
	case decide.SwitchCurrent:
		return w.switchCurrent(i)
	default:
		return fmt.Errorf("model: nobody does %v", e)
	}
	return nil
}

func (w *world) startServer(i int, e decide.StartServer) error {
	n := &w.n[i]
	switch {
	case n.disk.kind == decide.DirUnfinished:
		return fmt.Errorf("J8: %c starts a directory that is marked", 'a'+i)
	case n.gone || n.disk.kind == decide.DirAbsent:
		n.done[len(n.done)-1].OK = false
		return nil
	}
	w.lives++
	n.life, n.names, n.disk.clean, n.connected = w.lives, e.Names, false, 0
	n.effective = decide.NamesNone // until the checkpointer has run
	n.proc = decide.ProcStandby
	n.disk.standby = !e.Primary
	if e.Primary {
		n.proc = decide.ProcPrimary
	}
	return nil
}

func (w *world) stopServer(i int, clean bool) {
	n := &w.n[i]
	if n.proc == decide.ProcStopped {
		return
	}
	n.proc, n.life, n.connected, n.pending, n.stalled = decide.ProcStopped, 0, 0, nil, false
	if n.flushing {
		n.flushing = false
		n.done = append(n.done, decide.Done{Work: decide.Checkpointing})
	}
	switch n.work.(type) {
	case decide.Promote, decide.Marker: // they end with the life that they are about
		n.done = append(n.done, decide.Done{Work: n.work.Work()})
		n.work = nil
	}
	n.disk.clean = clean
	if p := w.peerOf(i); p.proc == decide.ProcStandby {
		p.connected = 0
	}
}

// promote checks PG3, and that no number is used twice.
func (w *world) promote(i int, e decide.Promote) error {
	n := &w.n[i]
	if n.proc != decide.ProcStandby {
		n.done[len(n.done)-1].OK = false
		return nil
	}
	self := membership.Node(i)
	r := w.newest()
	if last := r.History[len(r.History)-1]; last.Forced && last.To == self {
		for row := uint8(1); row <= w.rows; row++ {
			w.givenUp[row] = w.givenUp[row] || !n.disk.log.has(row)
		}
	}
	switch {
	case !r.Copies.Has(self):
		return fmt.Errorf("PG3: %c is promoted, copies=%v", 'a'+i, r.Copies)
	case n.owner != self:
		return fmt.Errorf("PG3: %c is promoted, the owner is %v", 'a'+i, n.owner)
	case n.mode == membership.Solo && !n.evidence.Good() && n.evidence != decide.EvidenceNone || n.evidence == decide.EvidenceUnknown:
		return fmt.Errorf("PG3: %c is promoted, the evidence is %v", 'a'+i, n.evidence)
	case w.used[e.Timeline]:
		return fmt.Errorf("number: timeline %d was used before", e.Timeline)
	}
	w.used[e.Timeline] = true
	n.proc, n.connected = decide.ProcPrimary, 0
	n.disk.timeline, n.disk.fork, n.disk.standby = e.Timeline, position(n.disk.log.n), false
	return nil
}

// rewind: before the first checkpoint of a new timeline pg_rewind takes both for equal.
func (w *world) rewind(i int, d *decide.Done) error {
	n, p := &w.n[i], w.peerOf(i)
	if d.OK = w.link && p.up && p.proc == decide.ProcPrimary && n.spare.kind == decide.DirUnfinished; !d.OK {
		n.spare.kind = decide.DirAbsent
		return nil
	}
	s := &n.spare
	if p.disk.checkpoint == p.disk.timeline {
		common := uint8(0)
		for common < s.log.n && common < p.disk.log.n && s.log.row[common] == p.disk.log.row[common] {
			common++
		}
		s.log.cut(common)
		s.timeline, s.fork, s.checkpoint = p.disk.timeline, p.disk.fork, p.disk.timeline
	}
	s.kind, s.standby, s.clean = decide.DirOurs, true, false
	if !s.log.prefixOf(&p.disk.log) {
		return fmt.Errorf("J5: the rewound directory of %c is not a part of the primary's", 'a'+i)
	}
	return nil
}

// switchCurrent checks PG5: what is left behind is not the only holder of anything.
func (w *world) switchCurrent(i int) error {
	n, p := &w.n[i], w.peerOf(i)
	if n.spare.kind != decide.DirOurs {
		n.done[len(n.done)-1].OK = false
		return nil
	}
	if n.disk.kind == decide.DirOurs && !n.gone {
		for row := uint8(1); row <= w.rows; row++ {
			if w.acked[row] && n.disk.log.has(row) && !p.disk.log.has(row) {
				return fmt.Errorf("PG5: %c leaves a directory behind that alone holds row %d", 'a'+i, row)
			}
		}
	}
	n.disk, n.gone = n.spare, false
	n.spare = dir{kind: decide.DirAbsent}
	return nil
}

// stream moves one row to the standby.
func (n *node) stream(from *node) {
	n.disk.log.row[n.disk.log.n] = from.disk.log.row[n.disk.log.n]
	n.disk.log.n++
}
