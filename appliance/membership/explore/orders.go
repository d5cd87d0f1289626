package explore

import (
	m "duet/appliance/membership"
)

// orders are what a person or a manager may ask an idle node for. Only those that the core grants are actions: a refused
// one changes nothing (a test of the core).
func (p *Params) orders(w *World, id m.Node, out []Action) []Action {
	s := &w.N[id].Core
	ask := func(left uint8, k Kind, arg uint8) {
		if e := w.order(Action{k, id, arg}); left > 0 && s.Allows(e) == m.Granted {
			out = append(out, Action{k, id, arg})
		}
	}
	ask(w.Left.Leave, ActLeave, 0)
	for r := uint8(0); r < resources && w.Left.Move > 0; r++ {
		ask(w.Left.Move, ActMove, r)
	}
	ask(w.Left.Arbiter, ActArbiter, uint8(m.ArbFence))
	ask(w.Left.Witness, ActArbiter, uint8(m.ArbWitness))
	ask(w.Left.Doc, ActDoc, 0)
	if last := newest(&s.Rec); w.Left.Copies > 0 && copiesOf(last).Has(id) { // only who holds everything writes it
		for _, copies := range [2]m.Set{m.Only(id), m.Both} {
			if copies != copiesOf(last) {
				ask(w.Left.Copies, ActCopies, uint8(copies))
			}
		}
	}
	if w.Left.Force > 0 && !w.N[id.Peer()].Up {
		ask(w.Left.Force, ActForce, 0)
		ask(w.Left.Force, ActForce, 1)
	}
	return out
}

// order is the event of such an action.
func (w *World) order(a Action) m.Event {
	rec := &w.N[a.Node].Core.Rec
	switch a.Kind {
	case ActLeave:
		return m.Leave{Waiting: true}
	case ActMove:
		return m.Move{Resource: m.ResourceID(a.Arg)}
	case ActArbiter:
		return m.SetArbiter{Kind: m.ArbKind(a.Arg)}
	case ActDoc:
		next := m.DocRef{Ep: rec.Ep, Version: rec.Docs[m.DocSite].Version + 1}
		return m.ChangeDoc{Doc: m.DocSite, Writer: m.PairResource, Ref: next}
	case ActCopies:
		next := m.DocRef{Ep: rec.Ep, Version: rec.Docs[m.DocDatabase].Version + 1, Hash: m.Digest{a.Arg}}
		return m.ChangeDoc{Doc: m.DocDatabase, Writer: databaseResource, Ref: next, Growth: m.Set(a.Arg) == m.Both}
	case ActForce:
		if a.Arg == 1 {
			return m.PeerOff{Epoch: rec.Ep}
		}
		return m.ForceSolo{PeerOff: true}
	}
	return nil
}
