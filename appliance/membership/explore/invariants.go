package explore

import (
	"fmt"

	m "duet/appliance/membership"
)

// Check is the invariants of protocol.md section 12.1 that a look at one moment can decide. I3b, I4, I6 and I9 are
// checked where they could break: at the frame, the commit, the ack and the Persist. After an override (R26) a person
// has taken the risk of two sides: what then must hold is that neither is erased, which persist checks, and that a pair
// that was made whole again can go on.
func (p *Params) Check(w *World) error {
	a, b := &w.N[m.A], &w.N[m.B]
	if err := w.asksAgain(); err != nil {
		return err
	}
	if w.Forced {
		return w.pairNotBelow()
	}
	if both := a.Run & b.Run; both != 0 {
		return fmt.Errorf("I1 one-runner: resources %03b run on both nodes", both)
	}
	if a.Disk.Members == m.OnlyA && b.Disk.Members == m.OnlyB {
		return fmt.Errorf("I2 one-authority: a recorded {a} at epoch %d, b {b} at epoch %d", a.Disk.Ep, b.Disk.Ep)
	}
	for _, check := range [...]func(*World) error{
		(*World).serverHoldsAll, (*World).somebodyCan, (*World).oneArbiter, (*World).legsHold, (*World).documentKept, (*World).databaseKept, (*World).twoLocks,
		(*World).registerNotAhead, p.noMutualKill,
	} {
		if err := check(w); err != nil {
			return err
		}
	}
	for i := range w.N {
		if n := &w.N[i]; n.Run&^n.Disk.Owners.Of(m.Node(i)) != 0 {
			return fmt.Errorf("I10 owned-before-run: %v runs %03b and recorded %03b", m.Node(i), n.Run, n.Disk.Owners.Of(m.Node(i)))
		}
	}
	return nil
}

// noMutualKill is I7. Where fencing is the arbiter, only the turns of R21b keep it, and the model has none.
func (p *Params) noMutualKill(w *World) error {
	a, b := &w.N[m.A], &w.N[m.B]
	harm := w.Left.Crash != p.Budget.Crash || w.Left.Unknown != p.Budget.Unknown || w.Left.Late != p.Budget.Late ||
		w.Left.Restart != p.Budget.Restart
	fence := a.Disk.Arb.Kind == m.ArbFence || b.Disk.Arb.Kind == m.ArbFence
	if a.Shot && b.Shot && !harm && !fence {
		return fmt.Errorf("I7 no-mutual-kill: both nodes are off by fencing")
	}
	return nil
}

// serverHoldsAll is I3: who reads or acknowledges for a volume holds every acknowledged write of it.
func (w *World) serverHoldsAll() error {
	for i := range w.N {
		n := &w.N[i]
		if !n.live() || n.Grant.Mode == m.Joining {
			continue
		}
		for v := range volumes {
			if n.ownsVolume(v) && n.legCounts(v, m.Node(i)) && n.Leg[v] < w.Acked[v] {
				return fmt.Errorf("I3 server-holds-all: %v serves volume %d in mode %v with write %d of %d",
					m.Node(i), v, n.Grant.Mode, n.Leg[v], w.Acked[v])
			}
		}
	}
	return nil
}

// somebodyCan is I5, for each volume: some consistent copy, in its own newest set or prepared, holds everything.
func (w *World) somebodyCan() error {
	for v := range volumes {
		if !w.canGoOn(m.A, v) && !w.canGoOn(m.B, v) && !w.waitedFor(m.A, v) && !w.waitedFor(m.B, v) {
			return fmt.Errorf("I5 somebody-can: no consistent copy of volume %d holds write %d: legs a %d, b %d",
				v, w.Acked[v], w.N[m.A].Leg[v], w.N[m.B].Leg[v])
		}
	}
	return nil
}

func (w *World) canGoOn(id m.Node, v int) bool {
	d := &w.N[id].Disk
	if d.Site.IsZero() {
		return w.Acked[v] == 0
	}
	if !d.Consistent || !d.Members.Has(id) && d.Prep.Ep == 0 {
		return false
	}
	in := d.Legs[v].Set.Has(id) || d.Legs[v].Pending
	if d.Prep.Ep != 0 { // going on alone it takes the prepared table
		in = d.Prep.Legs[v].Set.Has(id)
	}
	return w.N[id].Leg[v] >= w.Acked[v] && in
}

// waitedFor: the node that goes on holds the volume until the only leg that is in sync, the other's, is back (section 7). A
// prepared one may go on too, by its prepared table (seed prepared-leg-out).
func (w *World) waitedFor(id m.Node, v int) bool {
	d := &w.N[id.Peer()].Disk
	legs, goesOn := d.Legs, d.Members.Has(id.Peer())
	if d.Prep.Ep != 0 {
		legs, goesOn = d.Prep.Legs, true
	}
	return goesOn && d.Consistent && legs[v].Set == m.Only(id) && w.N[id].Leg[v] >= w.Acked[v]
}

// oneArbiter is I8: nobody may go on alone by fencing while the other may do so by a witness, and two registers are never
// both the arbiter.
func (w *World) oneArbiter() error {
	for i := range w.N {
		n, peer := &w.N[i], &w.N[m.Node(i).Peer()]
		d, e := &n.Disk, &peer.Disk
		fences := d.Members == m.Both && d.Prep.Ep == 0 && d.Arb.Kind == m.ArbFence && n.Up && n.Core.PairedHere && len(n.Queue) == 0
		asks := e.Arb.Kind == m.ArbWitness && (e.Members.Has(m.Node(i).Peer()) || e.Prep.Ep != 0)
		if fences && asks && n.Core.Rec == *d {
			return fmt.Errorf("I8 one-arbiter: %v may go on by fencing, its peer by a witness", m.Node(i))
		}
	}
	d, e := &w.N[m.A].Disk, &w.N[m.B].Disk
	pair := d.Members == m.Both && e.Members == m.Both && d.Ep == e.Ep && d.Prep.Ep == 0 && e.Prep.Ep == 0
	if pair && d.Arb.Kind == m.ArbWitness && e.Arb.Kind == m.ArbWitness && d.Arb.RID != e.Arb.RID {
		return fmt.Errorf("I8 one-arbiter: registers %d and %d at epoch %d", d.Arb.RID[1], e.Arb.RID[1], d.Ep)
	}
	return nil
}

// legsHold is I11: by the newest records, each leg that counts holds everything.
func (w *World) legsHold() error {
	newest := max(w.N[m.A].Disk.Ep, w.N[m.B].Disk.Ep)
	for i := range w.N {
		id, d := m.Node(i), &w.N[i].Disk
		if d.Ep != newest || d.Site.IsZero() || !d.Members.Has(id) {
			continue
		}
		for v := range volumes {
			l := d.Legs[v]
			for k := range w.N {
				in := l.Set.Has(m.Node(k)) && d.Members.Has(m.Node(k)) || l.Pending && m.Node(k) == id
				if in && w.N[k].Leg[v] < w.Acked[v] {
					return fmt.Errorf("I11 leg-holds-all: %v recorded leg %v of volume %d as in sync, it has write %d of %d",
						id, m.Node(k), v, w.N[k].Leg[v], w.Acked[v])
				}
			}
		}
	}
	return nil
}

// documentKept is I12: a version that was acknowledged is current or pending on every member of the newest epoch.
func (w *World) documentKept() error {
	newest := max(w.N[m.A].Disk.Ep, w.N[m.B].Disk.Ep)
	for i := range w.N {
		d := &w.N[i].Disk
		if d.Ep != newest || d.Site.IsZero() || !d.Members.Has(m.Node(i)) {
			continue
		}
		if newerDoc(w.Doc, d.Docs[m.DocSite]) && newerDoc(w.Doc, d.Pending[m.DocSite]) {
			return fmt.Errorf("I12 document: %v has version %d.%d and pending %d.%d, acknowledged is %d.%d", m.Node(i),
				d.Docs[0].Ep, d.Docs[0].Version, d.Pending[0].Ep, d.Pending[0].Version, w.Doc.Ep, w.Doc.Version)
		}
	}
	return nil
}

// asksAgain: a question to the witness that has no answer is repeated, for packets are lost.
func (w *World) asksAgain() error {
	for i := range w.N {
		n := &w.N[i]
		s := &n.Core
		waits := s.Ask.Nonce != 0 || s.Push.Nonce != 0 || s.Create.Nonce != 0 || s.Claim.Nonce != 0
		if n.idle() && waits && n.Armed&(1<<m.TimerRepeat) == 0 {
			return fmt.Errorf("asks-again: %v in mode %v waits for the witness and will not ask it again", m.Node(i), s.Mode)
		}
	}
	return nil
}

// registerNotAhead is I13.
func (w *World) registerNotAhead() error {
	if err := w.pairNotBelow(); err != nil {
		return err
	}
	for i := range w.N {
		id := m.Node(i)
		n, peer := &w.N[i], &w.N[id.Peer()]
		if n.Up && n.Core.Mode == m.Solo && peer.Disk.Members.Has(id) && peer.Disk.Ep > n.Core.Rec.Ep {
			return fmt.Errorf("I13 register-not-ahead: %v is solo at epoch %d, its peer recorded it at %d", id, n.Core.Rec.Ep, peer.Disk.Ep)
		}
	}
	return nil
}

// pairNotBelow is the half of I13 that is about a pair. It holds after an override too: the epoch of the next pair is above
// everything that was ever claimed.
func (w *World) pairNotBelow() error {
	a, b := &w.N[m.A], &w.N[m.B]
	together := a.Up && b.Up && a.Core.Committed() && b.Core.Committed() && a.Core.Session == b.Core.Session && a.Disk.Ep == b.Disk.Ep
	if arb := a.Disk.Arb; together && arb.Kind == m.ArbWitness && w.Store[arb.RID[1]-1].Known {
		ep, reg := uint64(a.Disk.Ep), w.Store[arb.RID[1]-1].Content
		if uint64(reg.Epoch) > ep || uint64(reg.Epoch) == ep && m.Set(reg.Set) != m.Both {
			return fmt.Errorf("I13 register-not-ahead: the pair is at epoch %d, the register at (%d,%v)", ep, reg.Epoch, m.Set(reg.Set))
		}
	}
	return nil
}
