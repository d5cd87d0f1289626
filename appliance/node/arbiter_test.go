package node

import (
	"testing"
	"time"

	"duet/appliance/membership"
)

// TestArbiterWish: each line is a sentence about when a site changes how its nodes may go on alone (protocol.md 5.3, R19,
// R21a, R21d). The line begins from the usual case and changes what the sentence says.
func TestArbiterWish(t *testing.T) {
	paired := membership.State{Mode: membership.Paired, Session: 7}
	solo := membership.State{Mode: membership.Solo}
	by := func(st membership.State, k membership.ArbKind) membership.State {
		st.Rec.Arb.Kind = k
		return st
	}
	gone := func(d time.Duration) reach { return reach{false, d.Milliseconds()} }
	there := func(d time.Duration) reach { return reach{true, d.Milliseconds()} }
	const none, fence, witness = membership.ArbNone, membership.ArbFence, membership.ArbWitness
	for _, c := range []struct {
		name   string
		st     membership.State
		mine   reach
		peers  reach
		change func(*arbiterFacts)
		want   membership.ArbKind // none: no wish
	}{
		{"all is well", by(paired, witness), there(time.Hour), there(time.Hour), nil, none},
		{"gone from both for 60 s", by(paired, witness), gone(dropAfter), gone(dropAfter), nil, fence},
		{"gone for less here", by(paired, witness), gone(dropAfter - time.Second), gone(time.Hour), nil, none},
		{"gone for less there", by(paired, witness), gone(time.Hour), gone(dropAfter - 3*time.Second), nil, none},
		{
			"what the peer told ages", by(paired, witness), gone(time.Hour), gone(dropAfter - 3*time.Second),
			func(f *arbiterFacts) { f.peersAge = 3 * time.Second }, fence,
		},
		{"the peer reaches it", by(paired, witness), gone(time.Hour), there(time.Second), nil, none},
		{
			"the peer has said nothing in this session", by(paired, witness), gone(time.Hour), gone(time.Hour),
			func(f *arbiterFacts) { f.peersAge = -1 }, none,
		},
		{
			"fencing is not proven in both directions", by(paired, witness), gone(time.Hour), gone(time.Hour),
			func(f *arbiterFacts) { f.proofFresh = false }, none,
		},
		{"a leg is not in sync", by(paired, witness), gone(time.Hour), gone(time.Hour), func(f *arbiterFacts) { f.inSync = false }, none},
		{"it is fencing already", by(paired, fence), gone(time.Hour), gone(time.Hour), nil, none},
		{"suspended, and the witness is gone", by(paired, none), gone(time.Hour), gone(time.Hour), nil, fence},
		{"no witness at all", by(paired, none), reach{}, reach{}, func(f *arbiterFacts) { f.configured = false }, fence},
		{
			"no witness at all, fencing not proven", by(paired, none),
			reach{},
			reach{},
			func(f *arbiterFacts) { f.configured, f.proofFresh = false, false }, none,
		},

		{"back for 5 min on both", by(paired, fence), there(admitAfter), there(admitAfter), nil, witness},
		{"back for less here", by(paired, fence), there(admitAfter - time.Second), there(time.Hour), nil, none},
		{"back for less there", by(paired, fence), there(time.Hour), there(admitAfter - time.Second), nil, none},
		{"suspended: sooner", by(paired, none), there(admitSooner), there(admitSooner), nil, witness},
		{"suspended, and just seen", by(paired, none), there(admitSooner - time.Second), there(time.Hour), nil, none},

		{
			"the register is forgotten", by(paired, witness), there(time.Hour), there(time.Hour),
			func(f *arbiterFacts) { f.forgotten = admitSooner }, witness,
		},
		{
			"the register is forgotten just now", by(paired, witness), there(time.Hour), there(time.Hour),
			func(f *arbiterFacts) { f.forgotten = admitSooner - 1 }, none,
		},
		{"forgotten, and gone since", by(paired, witness), gone(time.Second), gone(time.Second), nil, none},

		{
			"alone: gone for 60 s; no proof is asked for", by(solo, witness), gone(dropAfter),
			reach{},
			func(f *arbiterFacts) { f.proofFresh, f.inSync, f.peersAge = false, false, -1 }, fence,
		},
		{"alone: back for 5 min", by(solo, fence), there(admitAfter), reach{}, func(f *arbiterFacts) { f.peersAge = -1 }, witness},
		{"alone, the peer joins", by(membership.State{Mode: membership.Solo, Session: 7}, witness), gone(time.Hour), gone(time.Hour), nil, none},
		{"frozen: never", by(membership.State{Mode: membership.Frozen}, witness), gone(time.Hour), gone(time.Hour), nil, none},
		{"starting: never", by(membership.State{Mode: membership.Init}, none), there(time.Hour), there(time.Hour), nil, none},
		{"prepared, not committed: never", func() membership.State {
			st := by(paired, witness)
			st.Rec.Prep.Ep = 9
			return st
		}(), gone(time.Hour), gone(time.Hour), nil, none},
	} {
		f := arbiterFacts{state: c.st, configured: true, mine: c.mine, peers: c.peers, proofFresh: true, inSync: true}
		if c.change != nil {
			c.change(&f)
		}
		got, wish := arbiterWish(f)
		if !wish {
			got = none
		} else if got == none {
			t.Errorf("%s: a wish for nobody", c.name)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, arbiterWord(got), arbiterWord(c.want))
		}
	}
}
