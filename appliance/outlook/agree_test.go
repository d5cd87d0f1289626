package outlook

import (
	"testing"

	"duet/appliance/membership"
	"duet/witness/register"
)

// What the outlook says is compared with what the machine does: the real membership.Step of both nodes and the real
// register, with the loss carried out on a copy (interfaces.md section 1, rule 3). A loss that is called survived must
// be survived; where the world is simple enough the converse holds too.

const second membership.Boottime = 1e9

// world is two nodes and a register, with an hour hand.
type world struct {
	now    membership.Boottime
	nodes  [2]membership.State
	on     [2]bool
	reg    register.Register
	vote   bool    // the witness is reached
	cut    [2]bool // it is not reached from this node
	timers [2][membership.TimerCount]membership.Boottime
	fresh  membership.Nonce

	ways  [2]Fence // to turn each node off
	noBMC [2]bool  // it lost its BMC with its power
}

// pair is a committed pair at epoch 5.
func pair(arb membership.ArbKind) *world {
	w := &world{now: 1000 * second, on: [2]bool{true, true}, vote: true, reg: register.Register{Content: register.Content{Epoch: 5, Set: register.Both}}}
	for i := range w.nodes {
		rec := membership.Record{Seq: 9, Site: membership.ID{1}, Ep: 5, High: 5, Members: membership.Both, Consistent: true}
		rec.Arb = membership.Arb{Kind: arb}
		rec.Owners[0] = membership.Owner{Node: membership.A, Version: 1}
		rec.Owners[1] = membership.Owner{Node: membership.A, Version: 1}
		rec.Legs[0] = membership.VolumeLegs{Set: membership.Both, Version: 1}
		w.nodes[i] = membership.State{
			Cfg: membership.Config{
				Self: membership.Node(i), Lease: 4 * second, PeerWait: 6 * second, Bias: second, BootWait: 15 * second,
				AskAgain: 2 * second, FenceAgain: 5 * second, PowerOnWait: 10 * second, CommitAgain: second,
			},
			Rec: rec, Mode: membership.Paired, Session: 77, Lease: w.now + 3*second, PeerWait: w.now + 5*second, PairedHere: true,
			Peer: membership.PeerView{Hello: true, Ep: 5, High: 5},
		}
	}
	return w
}

func (w *world) step(i int, e membership.Event) {
	if !w.on[i] {
		return
	}
	w.fresh++
	var effects []membership.Effect
	w.nodes[i], effects = membership.Step(w.nodes[i], membership.Input{Now: w.now, Fresh: w.fresh, Event: e})
	for _, e := range effects {
		switch e := e.(type) {
		case membership.Arm:
			w.timers[i][e.Timer] = e.At
		case membership.AskWitness:
			w.ask(i, e)
		case membership.Fence:
			w.fence(i, e)
		}
	}
}

// fence turns the peer off if there is a way, and reads it: in a cut link the pair owner, a, shoots first.
func (w *world) fence(i int, f membership.Fence) {
	verdict, peer := membership.Unknown, 1-i
	if way := w.ways[peer]; way.Outlets || way.BMC && !w.noBMC[peer] {
		verdict = membership.Confirmed
		w.on[peer] = false
	}
	w.step(i, membership.FenceResult{Attempt: f.Attempt, Verdict: verdict})
}

func (w *world) ask(i int, a membership.AskWitness) {
	if !w.vote || w.cut[i] {
		return
	}
	content := func(c membership.RegisterContent) register.Content {
		return register.Content{Epoch: register.Epoch(c.Ep), Set: register.Set(c.Set)}
	}
	after, done, _ := w.reg.CAS(content(a.Expected), content(a.New))
	w.reg = after
	result := membership.WitnessFailed
	if done {
		result = membership.WitnessOK
	}
	w.step(i, membership.WitnessReply{
		Op: membership.OpCAS, Nonce: a.Nonce, RID: a.RID, Result: result,
		Register: membership.RegisterContent{Ep: membership.Epoch(after.Content.Epoch), Set: membership.Set(after.Content.Set)},
	})
}

// run fires timers for a minute.
func (w *world) run() {
	for end := w.now + 60*second; ; {
		next, node, timer := end, -1, 0
		for i := range w.timers {
			for id, at := range w.timers[i] {
				if w.on[i] && at != 0 && at < next {
					next, node, timer = at, i, id
				}
			}
		}
		if node < 0 {
			return
		}
		w.now = max(w.now, next)
		w.timers[node][timer] = 0
		w.step(node, membership.Timer{Timer: membership.TimerID(timer)})
	}
}

// survives says whether a loss is survived however it comes: a node may die with its power, and its BMC with it, or only
// its board.
func survives(fresh func() *world, of string) bool {
	for _, withBMC := range []bool{false, true} {
		w := fresh()
		w.noBMC = [2]bool{withBMC && of == "node a", withBMC && of == "node b"}
		if !w.lose(of) {
			return false
		}
	}
	return true
}

// lose carries a loss out and says whether the site serves afterwards.
func (w *world) lose(of string) bool {
	switch of {
	case "witness":
		w.vote = false
	case "link":
		w.step(0, membership.PeerLost{Session: w.nodes[0].Session})
		w.step(1, membership.PeerLost{Session: w.nodes[1].Session})
	case "node a", "node b":
		lost := 0
		if of == "node b" {
			lost = 1
		}
		w.on[lost] = false
		w.step(1-lost, membership.PeerLost{Session: w.nodes[1-lost].Session})
	}
	w.run()
	serving := 0
	for i, s := range w.nodes {
		if w.on[i] && (s.Mode == membership.Solo || s.Committed()) {
			serving++
		}
	}
	if w.nodes[0].Mode == membership.Solo && w.nodes[1].Mode == membership.Solo && w.on[0] && w.on[1] {
		return false // two authorities would be worse than none
	}
	return serving > 0
}

func TestTheMachineAgrees(t *testing.T) {
	for _, c := range []struct {
		name  string
		facts func(*Facts)
		world func() *world
		exact bool
	}{
		{"healthy pair", func(*Facts) {}, func() *world { return pair(membership.ArbWitness) }, true},
		{"witness lost", func(f *Facts) { f.Witness.Reached, f.Witness.PeerReached = false, false }, func() *world {
			w := pair(membership.ArbWitness)
			w.vote = false
			return w
		}, true},
		{"b does not reach the witness", func(f *Facts) { f.Witness.PeerReached = false }, func() *world {
			w := pair(membership.ArbWitness)
			w.cut[1] = true
			return w
		}, true},
		{"a does not reach the witness", func(f *Facts) { f.Witness.Reached = false }, func() *world {
			w := pair(membership.ArbWitness)
			w.cut[0] = true
			return w
		}, true},
		{"no witness", func(f *Facts) { f.Witness, f.Arbiter = Witness{}, ByNobody }, func() *world { return pair(membership.ArbNone) }, true},
		{"push not confirmed", func(f *Facts) { f.Witness.Confirmed = false }, func() *world {
			w := pair(membership.ArbWitness)
			w.reg.Content = register.Content{Epoch: 4, Set: register.OnlyA}
			return w
		}, false}, // a would be granted, b would not: the outlook promises neither
		{"a alone", func(f *Facts) { f.Mode, f.Peer = Solo, false }, alone, true},
		{"a alone, then the witness", func(f *Facts) { f.Mode, f.Peer, f.Witness.Reached = Solo, false, false }, func() *world {
			w := alone()
			w.vote = false
			return w
		}, true},
		{"fencing decides", byFencing(Fence{true, true}, Fence{true, true}), fencing(Fence{true, true}, Fence{true, true}), true},
		{"fencing decides, the witness is back", func(f *Facts) { f.Arbiter = ByFencing }, fencing(Fence{true, true}, Fence{true, true}), true},
		{"fencing by outlets", byFencing(Fence{Outlets: true}, Fence{Outlets: true}), fencing(Fence{Outlets: true}, Fence{Outlets: true}), true},
		{"fencing by BMC", byFencing(Fence{BMC: true}, Fence{BMC: true}), fencing(Fence{BMC: true}, Fence{BMC: true}), true},
		{"fencing of b only", byFencing(Fence{}, Fence{true, true}), fencing(Fence{}, Fence{true, true}), true},
		{"fencing of a only", byFencing(Fence{true, true}, Fence{}), fencing(Fence{true, true}, Fence{}), true},
		{"fencing without a way", byFencing(Fence{}, Fence{}), fencing(Fence{}, Fence{}), true},
		{"nobody decides", func(f *Facts) { f.Arbiter = ByNobody }, func() *world { return pair(membership.ArbNone) }, true},
		{"forced alone", func(f *Facts) {
			f.Mode, f.Peer, f.Forced, f.Witness.Reached, f.Arbiter = Solo, false, "root: b burnt", false, ByFencing
		}, forced, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := healthy()
			c.facts(&f)
			v := Judge(f)
			if len(v.Losses) == 0 {
				t.Fatal("no losses to compare")
			}
			for _, l := range v.Losses {
				machine := survives(c.world, l.Of)
				if l.Survived && !machine || c.exact && l.Survived != machine {
					t.Errorf("loss of %s: the outlook says %v, the machine does %v", l.Of, l.Survived, machine)
				}
			}
		})
	}
}

// alone: b was lost and a went on; b is back on, without a session, holding the record of the pair.
func alone() *world {
	w := pair(membership.ArbWitness)
	if !w.lose("node b") {
		panic("a did not go on alone")
	}
	w.on[1] = true
	w.step(1, membership.Boot{Record: w.nodes[1].Rec})
	return w
}

// byFencing and fencing are the same pair, as facts and as machines.
func byFencing(a, b Fence) func(*Facts) {
	return func(f *Facts) { f.Arbiter, f.Witness.Reached, f.FenceA, f.FenceB = ByFencing, false, a, b }
}

func fencing(a, b Fence) func() *world {
	return func() *world {
		w := pair(membership.ArbFence)
		w.vote, w.ways = false, [2]Fence{a, b}
		return w
	}
}

// forced: both lost their power where fencing decides; a alone came back, refused, and was forced.
func forced() *world {
	w := fencing(Fence{}, Fence{})()
	w.on[1] = false
	w.step(0, membership.Boot{Record: w.nodes[0].Rec})
	w.run()
	if w.nodes[0].Mode == membership.Solo {
		panic("a restarted node went on alone where fencing decides (R21c)")
	}
	w.step(0, membership.ForceSolo{PeerOff: true, Text: membership.MakeText("root: b burnt")})
	w.on[1] = true
	w.step(1, membership.Boot{Record: w.nodes[1].Rec})
	return w
}
