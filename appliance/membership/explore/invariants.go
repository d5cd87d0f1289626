package explore

import (
	"fmt"

	m "duet/appliance/membership"
)

// Check is the invariants of protocol.md section 12.1 that a look at one moment can decide. I3b, I4, I6 and I9 are
// checked where they could break: at the frame, the commit, the ack and the Persist.
func (p *Params) Check(w *World) error {
	a, b := &w.N[m.A], &w.N[m.B]
	if both := a.Run & b.Run; both != 0 {
		return fmt.Errorf("I1 one-runner: resources %03b run on both nodes", both)
	}
	if a.Disk.Members == m.OnlyA && b.Disk.Members == m.OnlyB {
		return fmt.Errorf("I2 one-authority: a recorded {a} at epoch %d, b {b} at epoch %d", a.Disk.Ep, b.Disk.Ep)
	}
	if err := w.serverHoldsAll(); err != nil {
		return err
	}
	if !w.canGoOn(m.A) && !w.canGoOn(m.B) {
		return fmt.Errorf("I5 somebody-can: no consistent copy holds the acknowledged writes %v: legs a %v, b %v", w.Acked, a.Leg, b.Leg)
	}
	if a.Shot && b.Shot && w.Left.Crash == p.Budget.Crash && w.Left.Unknown == p.Budget.Unknown &&
		w.Left.Late == p.Budget.Late && w.Left.Restart == p.Budget.Restart {
		return fmt.Errorf("I7 no-mutual-kill: both nodes are off by fencing")
	}
	for i := range w.N {
		if n := &w.N[i]; n.Run&^n.Disk.Owners.Of(m.Node(i)) != 0 {
			return fmt.Errorf("I10 owned-before-run: %v runs %03b and recorded %03b", m.Node(i), n.Run, n.Disk.Owners.Of(m.Node(i)))
		}
	}
	return w.registerNotAhead()
}

// serverHoldsAll is I3: who reads or acknowledges for a volume holds every acknowledged write of it.
func (w *World) serverHoldsAll() error {
	for i := range w.N {
		n := &w.N[i]
		if !n.live() || n.Grant.Mode == m.Joining {
			continue
		}
		for v := range volumes {
			if n.ownsVolume(v) && n.Grant.Legs[v].Set.Has(m.Node(i)) && n.Leg[v] < w.Acked[v] {
				return fmt.Errorf("I3 server-holds-all: %v serves volume %d in mode %v with write %d of %d",
					m.Node(i), v, n.Grant.Mode, n.Leg[v], w.Acked[v])
			}
		}
	}
	return nil
}

// canGoOn is I5 for one node.
func (w *World) canGoOn(id m.Node) bool {
	d := &w.N[id].Disk
	if d.Site.IsZero() {
		return w.Acked == [volumes]uint8{}
	}
	if !d.Consistent || !d.Members.Has(id) && d.Prep.Ep == 0 {
		return false
	}
	for v := range volumes {
		if w.N[id].Leg[v] < w.Acked[v] {
			return false
		}
	}
	return true
}

// registerNotAhead is I13.
func (w *World) registerNotAhead() error {
	a, b := &w.N[m.A], &w.N[m.B]
	if a.Up && b.Up && a.Core.Committed() && b.Core.Committed() && a.Core.Session == b.Core.Session && a.Disk.Ep == b.Disk.Ep {
		ep, reg := uint64(a.Disk.Ep), w.Reg
		if uint64(reg.Epoch) > ep || uint64(reg.Epoch) == ep && m.Set(reg.Set) != m.Both {
			return fmt.Errorf("I13 register-not-ahead: the pair is at epoch %d, the register at (%d,%v)", ep, reg.Epoch, m.Set(reg.Set))
		}
	}
	for i := range w.N {
		id := m.Node(i)
		n, peer := &w.N[i], &w.N[id.Peer()]
		if n.Up && n.Core.Mode == m.Solo && peer.Disk.Members == m.Only(id) && peer.Disk.Ep > n.Core.Rec.Ep {
			return fmt.Errorf("I13 register-not-ahead: %v is solo at epoch %d, its peer recorded it at %d", id, n.Core.Rec.Ep, peer.Disk.Ep)
		}
	}
	return nil
}
