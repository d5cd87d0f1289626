package explore

import (
	"cmp"
	"slices"

	m "duet/appliance/membership"
)

// Canonical removes what can no longer matter, so that more worlds are the same state. Each removal needs a
// reason that holds for the core as it is; with mutants the guards behind these reasons may be off, so nothing is removed.
func Canonical(w *World) {
	if !prune() {
		w.sortPackets()
		return
	}
	for i := range w.N {
		w.canonicalNode(m.Node(i))
	}
	for i, x := range w.Packets {
		if w.pointless(x) {
			w.Packets[i] = Packet{}
		}
	}
	w.sortPackets()
	w.forgetRegisters()
	if w.Net.Session != 0 && w.over(m.A) && w.over(m.B) { // nobody is in it or will be
		w.Net.Session, w.Net.Learned = 0, [2]bool{}
		w.Net.Q, w.Net.Beats = [2][queueMax]m.Message{}, [2][beatMax]m.Message{}
	}
	for i := range w.N { // a frame or ack of an earlier session is never taken
		n := &w.N[i]
		for v := range volumes {
			if n.Out[v].Session != w.Net.Session {
				n.Out[v] = Frame{}
			}
			if n.Back[v].Session != w.Net.Session {
				n.Back[v] = Frame{}
			}
		}
	}
	if w.Left.Ghost == 0 && w.Ghost.Session != 0 && w.Ghost.Session != w.Net.Session && !w.heldByCore(w.Ghost.Session) {
		w.Ghost = Ghost{} // its session is nobody's any more
	}
	for _, id := range [2]m.Node{m.A, m.B} {
		if w.over(id) { // what still flies to a side that has left is lost
			w.Net.Q[id.Peer()], w.Net.Beats[id.Peer()] = [queueMax]m.Message{}, [beatMax]m.Message{}
		}
	}
}

func (w *World) heldByCore(session m.Session) bool {
	return w.N[m.A].Core.Session == session || w.N[m.B].Core.Session == session
}

// over says whether the session of the net is in id's past.
func (w *World) over(id m.Node) bool { return w.Net.Learned[id] && !w.holds(id) && !w.grantHolds(id) }

// grantHolds: duet-mirrord may be in the session a little longer than the core.
func (w *World) grantHolds(id m.Node) bool {
	n := &w.N[id]
	return n.Up && n.Granted && n.Grant.Session == w.Net.Session || len(n.Queue) > 0
}

func (w *World) canonicalNode(id m.Node) {
	n := &w.N[id]
	s := &n.Core
	if n.Late == Cancelled && w.Left.Late == 0 {
		n.Late = NoStray
	}
	if n.Clock >= s.PeerWait {
		s.PeerWait = 0
	}
	w.forgetLostBeats(id)
	if n.Verdict.Attempt != 0 && n.Verdict.Attempt != s.Fence { // its attempt is dead
		n.Verdict = m.FenceResult{}
	}
	if n.Proof.Session != 0 && n.Proof.Session != s.Session {
		n.Proof = m.CopyDone{}
	}
	if n.Synced.Session != 0 && n.Synced.Session != s.Session {
		n.Synced = m.LegSynced{}
	}
	if n.CopyOut != 0 && n.CopyOut != s.Session && (!n.Granted || n.Grant.Session != n.CopyOut) {
		n.CopyOut = 0
	}
}

// forgetLostBeats: an ack that nobody carries will not come.
func (w *World) forgetLostBeats(id m.Node) {
	s := &w.N[id].Core
	k := 0
	for _, b := range s.Beats {
		if b.Nonce != 0 && w.flies(id, b.Nonce) {
			s.Beats[k] = b
			k++
		}
	}
	clear(s.Beats[k:])
}

func (w *World) flies(id m.Node, nonce m.Nonce) bool {
	for _, x := range w.Net.Beats[id] {
		if b, ok := x.(m.BeatMsg); ok && b.Nonce == nonce {
			return true
		}
	}
	for _, x := range w.Net.Beats[id.Peer()] {
		if b, ok := x.(m.BeatAck); ok && b.Nonce == nonce {
			return true
		}
	}
	for i := range w.N {
		for _, e := range w.N[i].Queue {
			if s, ok := e.(m.Send); ok {
				if b, is := s.Message.(m.BeatMsg); is && b.Nonce == nonce {
					return true
				}
				if b, is := s.Message.(m.BeatAck); is && b.Nonce == nonce {
					return true
				}
			}
		}
	}
	return false
}

// pointless: a reply to a dead nonce is ignored, and a request that the register can no longer match, with a dead
// nonce, changes nothing. The register's epoch only grows.
func (w *World) pointless(x Packet) bool {
	s := &w.N[x.From].Core
	live := w.N[x.From].Up && x.Nonce != 0 &&
		(x.Nonce == s.Ask.Nonce || x.Nonce == s.Push.Nonce || x.Nonce == s.Create.Nonce || x.Nonce == s.Claim.Nonce)
	switch {
	case x.Kind == NoPacket || live:
		return false
	case x.Kind == CASReply || x.Kind == PushReply || x.Kind == CreateReply:
		return true
	case x.Kind == CreateRequest: // all it can make is a register that no record names
		return true
	case x.RID == 0 || !w.Store[x.RID-1].Known:
		return true
	case x.Kind == CASRequest:
		return uint64(x.Expected.Ep) < uint64(w.Store[x.RID-1].Content.Epoch)
	default:
		return uint64(x.Content.Ep) <= uint64(w.Store[x.RID-1].Content.Epoch)
	}
}

// forgetRegisters: a register that no record, request or pending question names is never asked for again.
func (w *World) forgetRegisters() {
	for k := range w.Store {
		id := uint8(k + 1)
		named := false
		for i := range w.N {
			n := &w.N[i]
			for _, arb := range [...]m.Arb{
				n.Disk.Arb, n.Disk.Prep.Arb, n.Core.Rec.Arb, n.Core.Rec.Prep.Arb, n.Core.Plan.Arb, n.Core.Offer.Arb, n.Core.Change.Target,
				{RID: n.Core.Ask.RID}, {RID: n.Core.Push.RID}, {RID: n.Core.Claim.RID},
			} {
				named = named || arb.RID[1] == id
			}
			named = named || len(n.Queue) > 0
		}
		for i := range w.Net.Q {
			named = named || w.Net.Q[i][0] != nil
		}
		for _, x := range w.Packets {
			named = named || x.Kind != NoPacket && (x.RID == id || x.Nonce == w.Store[k].Nonce)
		}
		if !named {
			w.Store[k] = Register{}
		}
	}
}

func (w *World) sortPackets() {
	slices.SortStableFunc(w.Packets[:], func(x, y Packet) int {
		return cmp.Or(
			-cmp.Compare(min(x.Kind, 1), min(y.Kind, 1)), // the empty ones last
			cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.From, y.From), cmp.Compare(x.RID, y.RID),
			cmp.Compare(x.Content.Ep, y.Content.Ep), cmp.Compare(x.Content.Set, y.Content.Set),
			cmp.Compare(x.Expected.Ep, y.Expected.Ep), cmp.Compare(x.Expected.Set, y.Expected.Set),
			cmp.Compare(x.Result, y.Result))
	})
}
