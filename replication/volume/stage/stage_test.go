package stage

import (
	"testing"

	"duet/replication/control"
)

// every calls f with all combinations of facts.
func every(f func(Facts)) {
	flags := []bool{false, true}
	for mode := control.Revoked; mode <= control.Solo; mode++ {
		for role := NoCopy; role <= Sink; role++ {
			for phase := Exchange; phase <= Holding; phase++ {
				for bits := range 1 << 9 {
					b := func(i int) bool { return flags[bits>>i&1] }
					for drain := NoDrain; drain <= Drained; drain++ {
						f(Facts{
							Ready: b(0), Failed: b(1), Owner: b(2), Self: b(3), Peer: b(4), InStep: b(5), Excluded: b(6), Sound: b(7), Linked: b(8),
							Mode: mode, Role: role, Phase: phase, Drain: drain,
						})
					}
				}
			}
		}
	}
}

// The promises of replication.md sections 1 and 9.1, over all combinations of facts.
func TestRules(t *testing.T) {
	every(func(f Facts) {
		s := Of(f)
		fail := func(why string) { t.Helper(); t.Fatalf("%s: %s in %+v", why, s, f) }
		switch {
		case Writes(f) && !Coordinates(f):
			fail("writes of a node that does not coordinate the volume")
		case Coordinates(f) && !f.Owner && (f.Mode != control.Paired || f.Peer || !f.Self):
			fail("coordinates what it does not own, although the owner's leg counts")
		case Coordinates(f) && Forwards(f):
			fail("forwards what it carries out itself")
		case Forwards(f) && (f.Mode != control.Paired || !f.Linked):
			fail("forwards to a node that may not coordinate")
		case Writes(f) && !f.Self:
			fail("writes to a leg outside Legs")
		case Writes(f) && f.Mode != control.Paired && f.Mode != control.Solo:
			fail("writes without a right")
		case Writes(f) && f.Peer && f.Mode == control.Paired && !f.InStep:
			fail("writes although the other leg counts and may differ")
		case s == Paired && !f.Peer:
			fail("paired without the other leg")
		case (s == Alone || s == Catching || s == Exchanging) && !f.Excluded:
			fail("alone before the exclusion is durable (O5)")
		case Reads(f) && (!f.Self || !f.Owner && !Coordinates(f)):
			fail("reads of a leg that may be stale")
		case Reads(f) && !f.InStep && !f.Sound && !f.Excluded:
			fail("reads of a leg that was never known to be right")
		case Reads(f) && f.Mode == control.Paired && f.Peer && f.Role != NoCopy && !f.InStep:
			fail("reads while the legs are made equal (P3)")
		case TakesWrites(f) && f.Owner && f.Self && f.Mode == control.Paired && f.Drain != Drained:
			fail("the owner takes writes of the other node")
		case (Admits(f) || AdmitsReads(f)) && f.Drain != NoDrain:
			fail("a request begins during a drain (R22)")
		case Admits(f) && !Writes(f) || AdmitsReads(f) && !Reads(f):
			fail("begun but never done")
		case (Writes(f) || Reads(f)) && f.Drain == Drained:
			fail("the old owner goes on after its drain (R22)")
		case TakesWrites(f) && Writes(f) && f.Owner:
			fail("both nodes write")
		case f.Failed && (Writes(f) || Reads(f)):
			fail("a dead leg answers")
		case !f.Ready && (Writes(f) || Reads(f) || TakesWrites(f)):
			fail("no leg answers")
		case (f.Mode == control.Revoked || f.Mode == control.Joining || f.Mode == control.Prepared || f.Mode == control.Resolving) &&
			(Writes(f) || Reads(f) || Replies(f)):
			fail("a node without a right serves")
		case Writes(f) && !Replies(f):
			fail("issued but never answered")
		case s == Preparing && Writes(f):
			fail("a write is issued after the proof began (R14)")
		}
	})
}

func TestWordsOfTheTable(t *testing.T) {
	base := Facts{Ready: true, Owner: true, Self: true, Peer: true}
	with := func(change func(*Facts)) Facts { f := base; change(&f); return f }
	for _, c := range []struct {
		want Stage
		f    Facts
	}{
		{Creating, Facts{Mode: control.Paired}},
		{Failed, with(func(f *Facts) { f.Failed = true })},
		{Held, base},
		{Held, with(func(f *Facts) { f.Mode = control.Paired })},
		{Paired, with(func(f *Facts) { f.Mode, f.InStep = control.Paired, true })},
		{Reconciling, with(func(f *Facts) { f.Mode, f.Role = control.Paired, Source })},
		{Reconciling, with(func(f *Facts) { f.Mode, f.Role = control.Resolving, Sink })},
		{Preparing, with(func(f *Facts) { f.Mode, f.Role, f.Phase = control.Resolving, Source, Holding })},
		{Held, with(func(f *Facts) { f.Mode, f.Peer = control.Solo, false })},
		{Alone, with(func(f *Facts) { f.Mode, f.Peer, f.Excluded = control.Solo, false, true })},
		{Exchanging, with(func(f *Facts) { f.Mode, f.Peer, f.Excluded, f.Role = control.Solo, false, true, Source })},
		{Catching, with(func(f *Facts) {
			f.Mode, f.Peer, f.Excluded, f.Role, f.Phase = control.Solo, false, true, Source, Copying
		})},
		{Preparing, with(func(f *Facts) { f.Mode, f.Peer, f.Role, f.Phase = control.Solo, false, Source, Holding })},
		{Target, with(func(f *Facts) { f.Mode, f.Self, f.Role = control.Joining, false, Sink })},
		{Target, with(func(f *Facts) { f.Mode, f.InStep = control.Prepared, true })},
		{Held, with(func(f *Facts) { f.Mode, f.Self = control.Paired, false })},
		{Remote, with(func(f *Facts) { f.Mode, f.Self, f.Linked = control.Paired, false, true })},
		{Remote, with(func(f *Facts) { f.Mode, f.Self, f.Linked, f.Failed = control.Paired, false, true, true })},
		{Remote, Facts{Mode: control.Paired, Peer: true, Linked: true}},
		{Target, with(func(f *Facts) { f.Mode, f.Self, f.Linked, f.Role = control.Paired, false, true, Sink })},
		{Held, with(func(f *Facts) { f.Mode, f.Peer = control.Paired, false })},
		{Alone, with(func(f *Facts) { f.Mode, f.Peer, f.Excluded = control.Paired, false, true })},
		{Catching, with(func(f *Facts) {
			f.Mode, f.Peer, f.Excluded, f.Role, f.Phase = control.Paired, false, true, Source, Copying
		})},
		{Preparing, with(func(f *Facts) { f.Mode, f.Peer, f.Role, f.Phase = control.Paired, false, Source, Holding })},
	} {
		if got := Of(c.f); got != c.want {
			t.Errorf("%s, want %s: %+v", got, c.want, c.f)
		}
	}
}
