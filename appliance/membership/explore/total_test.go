package explore

import (
	"math/rand/v2"
	"testing"

	m "duet/appliance/membership"
)

// TestTotal feeds inputs that the model never gives, in states that the model reaches: none may panic or break a rule
// that the core itself sees, and what belongs to another session, nonce or attempt changes nothing. Canonical relies
// on the latter.
func TestTotal(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, p := range Wide {
		for range 5 {
			w, err := p.Begin()
			if err != nil {
				t.Fatal(err)
			}
			for range 150 {
				actions := p.Actions(&w, nil)
				if len(actions) == 0 {
					break
				}
				if err := p.Apply(&w, actions[rng.IntN(len(actions))]); err != nil {
					t.Fatal(err)
				}
				Canonical(&w)
				for i := range w.N {
					if w.N[i].idle() {
						oddInputs(t, &w.N[i], w.N[i^1].Core)
					}
				}
			}
		}
	}
}

func oddInputs(t *testing.T, n *Node, peer m.State) {
	s := n.Core
	const session, nonce = 77_777, 88_888
	for _, msg := range messages(peer) {
		try(t, n, m.Received{Session: session, Message: msg}, true)
		if s.Session != 0 && s.Peer.Hello {
			_, hello := msg.(m.Hello)
			try(t, n, m.Received{Session: s.Session, Message: msg}, hello)
		}
	}
	for _, op := range []m.WitnessOp{m.OpCAS, m.OpPush, m.OpCreate} {
		for _, result := range []m.WitnessResult{m.WitnessFailed, m.WitnessOK, m.WitnessUnknown} {
			content := m.RegisterContent{Ep: s.Rec.High + 3, Set: m.Only(s.Cfg.Self.Peer())}
			try(t, n, m.WitnessReply{Op: op, Nonce: nonce, RID: s.Rec.Arb.RID, Result: result, Register: content}, true)
			try(t, n, m.WitnessReply{Op: op, Nonce: s.Ask.Nonce, RID: m.ID{99}, Result: result, Register: content}, true)
		}
	}
	try(t, n, m.PeerLost{Session: session}, true)
	if s.Allows(m.LegSynced{}) == m.Granted { // volume 0 exists
		try(t, n, m.LegSynced{Session: session, Digest: m.Digest{1}}, true)
	}
	try(t, n, m.CopyDone{Session: session}, true)
	try(t, n, m.CopyFailed{Session: session}, true)
	try(t, n, m.FenceResult{Attempt: nonce, Verdict: m.Confirmed}, true)
	try(t, n, m.FenceResult{Verdict: m.Confirmed}, true)
	try(t, n, m.Want{Resource: 31}, true)
	try(t, n, m.Want{Resource: 200}, true)
	try(t, n, m.Want{Resource: m.PairResource}, true)
	for timer := m.TimerID(0); timer <= m.TimerCount; timer++ {
		try(t, n, m.Timer{Timer: timer}, false)
	}
	for _, e := range []m.Event{
		m.Boot{},
		m.Boot{Record: n.Disk},
		m.Resume{},
		m.Connected{Session: session},
		m.Beat{},
		founding(9),
		m.CopyDone{Session: s.Session},
		m.CopyFailed{Session: s.Session},
		m.PeerPowered{},
		m.PeerPowered{OK: true},
		m.Drained{Resource: 1, OK: true},
		m.Drained{Resource: 200, OK: true},
		m.Leave{},
		m.Leave{Waiting: true},
		m.Move{Resource: m.PairResource},
		m.Move{Resource: 1},
		m.Move{Resource: 200},
		m.SetArbiter{},
		m.SetArbiter{Kind: m.ArbFence},
		m.SetArbiter{Kind: m.ArbWitness},
		m.PeerOff{Epoch: s.Rec.Ep},
		m.PeerOff{Epoch: 99},
		m.ForceSolo{},
		m.ForceSolo{PeerOff: true},
		m.ChangeDoc{Ref: m.DocRef{Ep: s.Rec.Ep, Version: 9}},
		m.ChangeDoc{Doc: 9},
		m.ChangeDoc{Writer: 200},
		m.LegFailed{Volume: 1},
		m.LegFailed{Volume: 99},
		m.LegSynced{Session: s.Session, Volume: 1, Digest: m.Digest{1}},
		m.LegSynced{Session: s.Session, Volume: 99},
	} {
		try(t, n, e, false)
	}
}

func messages(s m.State) []m.Message {
	return []m.Message{
		m.Hello{Record: s.Rec},
		m.Hello{},
		m.Join{Ep: s.Rec.Ep, High: 9},
		m.Prepare{Site: theSite, Tuple: s.Plan},
		m.Prepare{},
		m.PreparedMsg{Ep: s.Rec.High},
		m.Commit{Ep: s.Rec.High},
		m.BeatMsg{Nonce: 5},
		m.BeatAck{Nonce: 5},
		m.Yield{Record: s.Rec},
		m.Yield{},
		m.Give{Resource: 1, Version: 9},
		m.Give{Resource: 200, Version: 9},
		m.Taken{Resource: 1, Version: s.Rec.Owners[1].Version},
		m.Taken{Resource: 200},
		m.WDrop{Number: 1, Target: m.Arb{Kind: m.ArbFence}},
		m.WDropped{Number: 1},
		m.WSet{Number: s.Changes, Target: m.Arb{Kind: m.ArbFence}},
		m.DocPrepare{Ref: m.DocRef{Ep: s.Rec.Ep, Version: 9}},
		m.DocPrepare{Doc: 9},
		m.DocPrepared{Ref: s.Rec.Docs[0]},
		m.DocPrepared{Doc: 9},
		m.DocCommit{Ref: s.Rec.Pending[0]},
		m.DocCommit{Doc: 9},
		m.LegBad{Volume: 1},
		m.LegBad{Volume: 99},
		m.LegOut{Volume: 1, Out: s.Cfg.Self, Version: s.Rec.Legs[1].Version + 1},
		m.LegOut{Volume: 1, Out: s.Cfg.Self.Peer(), Version: s.Rec.Legs[1].Version + 1},
		m.LegOut{Volume: 99},
		m.LegOutOK{Volume: 1, Version: s.Rec.Legs[1].Version},
		m.LegOutOK{Volume: 99},
		m.LegPrepare{Volume: 1, Version: s.Rec.Legs[1].Version + 1},
		m.LegPrepare{Volume: 99, Version: 1},
		m.LegPrepared{Volume: 1, Version: s.Rec.Legs[1].Version + 1},
		m.LegPrepared{Volume: 99},
		m.LegCommit{Volume: 1, Version: s.Rec.Legs[1].Version},
		m.LegCommit{Volume: 99},
	}
}

func try(t *testing.T, n *Node, e m.Event, nothing bool) {
	t.Helper()
	in := m.Input{Now: n.Clock, Fresh: 99_999, Event: e}
	after, effects := m.Step(n.Core, in)
	again, _ := m.Step(n.Core, in)
	if after != again {
		t.Fatalf("%T: two results for one input", e)
	}
	if nothing && (after != n.Core || len(effects) != 0) {
		t.Fatalf("%T of another time changes %v: %v", e, n, effects)
	}
	if err := m.CheckStep(n.Core, after, in, effects); err != nil {
		t.Fatalf("%+v in %v: %v", e, n, err)
	}
	if err := m.CheckState(after); err != nil {
		t.Fatalf("%+v in %v: %v", e, n, err)
	}
}
