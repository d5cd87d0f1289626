package explore

import (
	"fmt"
	"slices"

	m "duet/appliance/membership"
)

// input gives one event to an idle node and starts on its effects.
func (p *Params) input(w *World, id m.Node, e m.Event) error {
	n := w.node(id)
	w.Nonces++
	in := m.Input{Now: n.Clock, Fresh: w.Nonces, Event: e}
	after, effects := m.Step(n.Core, in)
	if err := m.CheckStep(n.Core, after, in, effects); err != nil {
		return err
	}
	if err := m.CheckState(after); err != nil {
		return err
	}
	n.Core, n.Queue = after, effects
	if p.Eager && len(n.Queue) > 0 && barrier(n.Queue[0]) {
		return p.advance(w, id)
	}
	return p.flush(w, id)
}

// advance does the first effect and all that follow it up to the next barrier. A fire-and-forget effect needs
// no action of its own: not sent is the same as sent and lost.
func (p *Params) advance(w *World, id m.Node) error {
	n := w.node(id)
	e := n.Queue[0]
	n.Queue = n.Queue[1:]
	if err := p.perform(w, id, e); err != nil {
		return err
	}
	return p.flush(w, id)
}

func (p *Params) flush(w *World, id m.Node) error {
	n := w.node(id)
	for len(n.Queue) > 0 && !barrier(n.Queue[0]) {
		e := n.Queue[0]
		n.Queue = n.Queue[1:]
		if err := p.perform(w, id, e); err != nil {
			return err
		}
	}
	if len(n.Queue) == 0 {
		n.Queue = nil
	}
	return nil
}

func barrier(e m.Effect) bool {
	switch e.(type) {
	case m.Persist, m.Stop, m.Grant, m.Revoke, m.Start:
		return true
	}
	return false
}

func (p *Params) perform(w *World, id m.Node, e m.Effect) error {
	n := w.node(id)
	switch e := e.(type) {
	case m.Persist:
		return w.persist(id, e.Record)
	case m.Stop:
		n.stop(e)
	case m.Grant:
		n.grant(e.Grant)
	case m.Revoke:
		n.Granted, n.Grant, n.Hold, n.HoldLeg, n.Drain, n.Pend = false, m.GrantContent{}, false, 0, 0, [volumes]uint8{}
	case m.Start:
		if n.live() && n.Grant.Epoch == e.Epoch && !p.NoRun {
			n.Run |= 1 << e.Resource
		}
	case m.Send:
		w.send(id, e.Message)
	case m.CloseSession:
		n.Wire = 0
	case m.AskWitness:
		w.packet(Packet{Kind: CASRequest, From: id, RID: e.RID[1], Nonce: e.Nonce, Expected: e.Expected, Content: e.New})
	case m.PushWitness:
		w.packet(Packet{Kind: PushRequest, From: id, RID: e.RID[1], Nonce: e.Nonce, Content: m.RegisterContent{Ep: e.Ep, Set: m.Both}})
	case m.Drain:
		n.Drain = e.Resources
	case m.CreateRegister:
		w.packet(Packet{Kind: CreateRequest, From: id, Nonce: e.Nonce, Content: e.Content})
	case m.Fence:
		n.FenceOut = e.Attempt
	case m.CancelFence:
		n.strand(w)
	case m.Copy:
		n.CopyOut = e.Session
	case m.Arm:
		if e.At == 0 {
			n.Armed &^= 1 << e.Timer
		} else {
			n.Armed |= 1 << e.Timer
		}
	}
	return nil
}

// grant replaces the last one. What is held since a barrier stays held while the stage, or the legs, are the same.
func (n *Node) grant(g m.GrantContent) {
	same := n.Granted && g.SameStage(n.Grant)
	n.Hold = n.Hold && same && !mutant("hold")
	for v := range m.VolumeSlot(volumes) {
		if !same || !g.SameLegs(n.Grant, v) || mutant("hold") {
			n.HoldLeg &^= 1 << v
		}
	}
	for r := m.ResourceID(1); r < resources; r++ {
		if !same || g.Owners[r] != n.Grant.Owners[r] {
			n.Drain &^= 1 << r
		}
	}
	n.Granted, n.Grant = true, g
}

// stop kills runners and revokes their exports: what their clients waited for is gone with them.
func (n *Node) stop(e m.Stop) {
	if e.All {
		e.Resources = ^m.Resources(0)
	}
	n.Run &^= e.Resources
	for v := range volumes {
		if e.Resources.Has(m.ResourceID(v + 1)) {
			n.Pend[v] = 0
		}
	}
}

func (w *World) send(id m.Node, msg m.Message) {
	if w.Net.Session == 0 || w.N[id].Wire != w.Net.Session {
		return
	}
	switch msg.(type) {
	case m.BeatMsg, m.BeatAck:
		w.sendBeat(id, msg)
		return
	}
	q := &w.Net.Q[id]
	if repeated(msg) && slices.Contains(q[:], msg) {
		return
	}
	for i := range q {
		if q[i] == nil {
			q[i] = msg
			return
		}
	}
}

// repeated messages come again until they are answered.
func repeated(msg m.Message) bool {
	switch msg.(type) {
	case m.Hello, m.Join, m.Prepare, m.PreparedMsg, m.Yield:
		return false
	}
	return true
}

// sendBeat: a full lane loses its oldest.
func (w *World) sendBeat(id m.Node, msg m.Message) {
	lane := &w.Net.Beats[id]
	if lane[beatMax-1] != nil {
		copy(lane[:], lane[1:])
		lane[beatMax-1] = nil
	}
	for i := range lane {
		if lane[i] == nil {
			lane[i] = msg
			return
		}
	}
}

// packBeats closes the gap that a delivered beat left.
func packBeats(lane *[beatMax]m.Message) {
	k := 0
	for i := range lane {
		if lane[i] != nil {
			lane[k], lane[i] = lane[i], lane[k]
			k++
		}
	}
}

// packet puts one into the bag; the same one twice is one, one beyond the limit is lost.
func (w *World) packet(x Packet) {
	if slices.Contains(w.Packets[:], x) {
		return
	}
	for i := range w.Packets {
		if w.Packets[i].Kind == NoPacket {
			w.Packets[i] = x
			return
		}
	}
}

// persist makes the record durable, and checks what can only be checked at that moment: I9 and I4.
func (w *World) persist(id m.Node, r m.Record) error {
	n := w.node(id)
	old := n.Disk
	if r.Seq <= old.Seq || r.Ep < old.Ep || r.High < old.High {
		return fmt.Errorf("I9 monotone: %v records epoch %d after %d", id, r.Ep, old.Ep)
	}
	if old.Members == m.Only(id) && r.Members != m.Both && !r.Members.Has(id) {
		return fmt.Errorf("erased: %v went on alone since epoch %d and gives that up for the record of its peer", id, old.Ep)
	}
	n.Disk = r
	if d := r.Docs[m.DocSite]; newerDoc(d, w.Doc) {
		w.Doc = d
	}
	w.acknowledgeDatabase(id)
	if w.Forced {
		return nil
	}
	// The commit is the first record of the epoch (R16). R16b only learns of it, and may do so when the other has gone on.
	first := w.N[id.Peer()].Disk.Ep < r.Ep
	if r.Members == m.Both && first && (r.Ep != old.Ep || old.Members != m.Both) {
		for v := range volumes {
			if r.Legs[v].Set == m.Both && w.N[m.A].Leg[v] != w.N[m.B].Leg[v] {
				return fmt.Errorf("I4 honest-commit: %v commits {a,b} at epoch %d, legs of volume %d have writes %d and %d",
					id, r.Ep, v, w.N[m.A].Leg[v], w.N[m.B].Leg[v])
			}
			for k := range w.N {
				if r.Legs[v].Set.Has(m.Node(k)) && w.N[k].Leg[v] < w.Acked[v] {
					return fmt.Errorf("I4 honest-commit: %v commits {a,b} at epoch %d, leg %v of volume %d has write %d of %d",
						id, r.Ep, m.Node(k), v, w.N[k].Leg[v], w.Acked[v])
				}
			}
		}
	}
	return nil
}

// newerDoc compares two versions of a document.
func newerDoc(x, y m.DocRef) bool { return x.Ep > y.Ep || x.Ep == y.Ep && x.Version > y.Version }
