package handshake

import (
	"fmt"
	"testing"
)

var (
	g1 = Generation{1, 11}
	g2 = Generation{2, 22}
	g3 = Generation{3, 33}
)

func leg(node uint8, change ...func(*Leg)) Leg {
	l := Leg{
		Site: ID{1}, Volume: ID{2}, Leg: ID{3, node}, Node: node, FormatMajor: 1, BlockBytes: 4096, VolumeBytes: 1 << 20,
		State: UpToDate, Zeroed: true, Current: g1, Clean: true,
	}
	for _, f := range change {
		f(&l)
	}
	return l
}

func with(r Right, l Leg) Leg { l.Right = r; return l }

func state(s State) func(*Leg)         { return func(l *Leg) { l.State = s } }
func current(g Generation) func(*Leg)  { return func(l *Leg) { l.Current = g } }
func base(g Generation) func(*Leg)     { return func(l *Leg) { l.Base = g } }
func knows(g ...Generation) func(*Leg) { return func(l *Leg) { l.History = g } }
func becoming(g Generation) func(*Leg) {
	return func(l *Leg) { l.State, l.Current, l.SyncSource = Inconsistent, Generation{}, g }
}
func unclean(l *Leg)     { l.Clean = false }
func rebooted(l *Leg)    { l.Clean, l.Rebooted = false, true }
func crashed(l *Leg)     { l.Clean, l.HotKnown = false, true }
func unconfirmed(l *Leg) { l.Unconfirmed = true }
func dirty(l *Leg)       { l.DirtyBlocks = 3 }
func inFlight(l *Leg)    { l.InFlightBlocks = 2 }
func suspect(l *Leg)     { l.SuspectBlocks = 1 }
func dataOfUse(l *Leg)   { l.State, l.Current, l.Zeroed = New, Generation{}, false }
func fresh(l *Leg)       { l.State, l.Current = New, Generation{} }

const (
	onlyA = 1
	onlyB = 2
	pair  = 3
)

// One case per row of replication.md section 8, and per line of its table 10.1.
var rows = []struct {
	name  string
	a, b  Leg
	legs  uint8
	owner uint8
	want  string
}{
	{"H1 site", leg(0), leg(1, func(l *Leg) { l.Site = ID{9} }), pair, 0, "refused H1 REPL-2001"},
	{"H1 volume", leg(0), leg(1, func(l *Leg) { l.Volume = ID{9} }), pair, 0, "refused H1 REPL-2001"},
	{"H1 size", leg(0), leg(1, func(l *Leg) { l.VolumeBytes = 9 << 20 }), pair, 0, "refused H1 REPL-2001"},
	{"H1 block size", leg(0), leg(1, func(l *Leg) { l.BlockBytes = 512 }), pair, 0, "refused H1 REPL-2001"},
	{"H1 format", leg(0), leg(1, func(l *Leg) { l.FormatMajor = 2 }), pair, 0, "refused H1 REPL-2001"},
	{"H1 clone", leg(0), leg(1, func(l *Leg) { l.Leg = ID{3, 0} }), pair, 0, "refused H1 REPL-2001"},
	{"H3 failed", leg(0), leg(1, state(Failed)), pair, 0, "wait H3"},
	{"H3 ejected", leg(0, state(Ejected)), leg(1), pair, 0, "wait H3"},
	{"H3 missing", leg(0, state(Missing)), leg(1), onlyB, 0, "sole H3 b"},
	{"H3 failed and out", leg(0), leg(1, state(Failed)), onlyA, 0, "sole H3 a"},
	{"H3 failed and out, the other behind", leg(0, state(Outdated)), leg(1, state(Failed)), onlyA, 0, "wait H3"},
	{"H3 the only one failed", leg(0, state(Failed)), leg(1), onlyA, 0, "wait H3"},
	{"H4 both new", leg(0, fresh), leg(1, fresh), pair, 1, "found H4 b"},
	{"H4 not zeroed", leg(0, fresh), leg(1, dataOfUse), pair, 0, "copy H4 a digest"},
	{"H5 peer new", leg(0), leg(1, fresh), pair, 1, "copy H5 a digest"},
	{"H5 no source", leg(0, state(Inconsistent)), leg(1, fresh), pair, 0, "refused H5 REPL-2002"},
	{"H5 excluded new", leg(0), leg(1, fresh), onlyA, 0, "copy H5 a digest"},
	{"H5 source new", leg(0, fresh), leg(1), onlyA, 0, "refused H5 REPL-2002"},
	{"H6a", leg(0, state(Inconsistent)), leg(1), onlyA, 0, "refused H6a REPL-2002"},
	{"H6a outdated", leg(0, state(Outdated)), leg(1), onlyA, 0, "refused H6a REPL-2002"},
	{"H6b base", leg(0, current(g2), base(g1), knows(g1)), leg(1), onlyA, 0, "copy H6b a map"},
	{"H6b current", leg(0), leg(1), onlyA, 1, "copy H6b a map"},
	{"H6b target crashed", leg(0, current(g2), base(g1)), leg(1, unclean), onlyA, 0, "copy H6b a digest"},
	{"H6b source crashed", leg(0, current(g2), base(g1), unclean), leg(1), onlyA, 0, "copy H6b a digest"},
	{"H6b target crashed with its log", leg(0, current(g2), base(g1)), leg(1, crashed), onlyA, 0, "copy H6b a hot"},
	{"H6b source crashed with its log", leg(0, current(g2), base(g1), crashed), leg(1), onlyA, 0, "copy H6b a hot"},
	{"H6b one log lost", leg(0, current(g2), base(g1), crashed), leg(1, unclean), onlyA, 0, "copy H6b a digest"},
	{"H6b by b", leg(0), leg(1, current(g2), base(g1)), onlyB, 0, "copy H6b b map"},
	{"H6c", leg(0, current(g3), base(g2), knows(g2, g1)), leg(1), onlyA, 0, "copy H6c a digest"},
	{"H6c begun", leg(0, current(g3), base(g2)), leg(1, becoming(g2)), onlyA, 0, "copy H6c a digest"},
	{"H6d other is newer", leg(0), leg(1, current(g2), base(g1), knows(g1)), onlyA, 0, "refused H6d REPL-2003"},
	{"H6d both alone", leg(0, current(g2), base(g1), knows(g1)), leg(1, current(g3), base(g1), knows(g1)), onlyA, 0, "refused H6d REPL-2003"},
	{"H6d common past", leg(0, current(g2), knows(g1)), leg(1, current(g3), knows(g1)), onlyA, 0, "refused H6d REPL-2003"},
	{"H6e", leg(0, current(g2)), leg(1, current(g3)), onlyA, 0, "refused H6e REPL-2001"},
	{"H6e foreign copy", leg(0, current(g2)), leg(1, becoming(g3)), onlyA, 0, "refused H6e REPL-2001"},
	{"H7a", leg(0), leg(1, current(g2)), pair, 0, "refused H7a REPL-2004"},
	{"H7b", leg(0), leg(1, unconfirmed), pair, 0, "copy H7b b map"},
	{"H7b target crashed", leg(0, crashed), leg(1, unconfirmed), pair, 0, "copy H7b b hot"},
	{"H7b log lost", leg(0, unclean), leg(1, unconfirmed), pair, 0, "copy H7b b digest"},
	{"H7d with logs", leg(0, crashed), leg(1, crashed), pair, 1, "copy H7d b hot"},
	{"H7d ran through beside a log", leg(0), leg(1, crashed), pair, 0, "copy H7d a hot"},
	{"H7c", leg(0), leg(1, state(Inconsistent)), pair, 1, "copy H7c a digest"},
	{"H7c neither", leg(0, state(Inconsistent)), leg(1, state(Inconsistent)), pair, 1, "refused H7c REPL-2002"},
	{"H7d owner ran through", leg(0), leg(1, rebooted), pair, 0, "copy H7d a digest"},
	{"H7d peer ran through", leg(0, unclean), leg(1), pair, 0, "copy H7d b digest"},
	{"H7d owner rebooted", leg(0, rebooted), leg(1, unclean), pair, 0, "copy H7d b digest"},
	{"H7d peer rebooted", leg(0, unclean), leg(1, rebooted), pair, 0, "copy H7d a digest"},
	{"H7d both rebooted", leg(0, rebooted), leg(1, rebooted), pair, 1, "copy H7d b digest"},
	{"H7d none rebooted", leg(0, unclean), leg(1, unclean), pair, 1, "copy H7d b digest"},
	{"H7e owner", leg(0, dirty), leg(1), pair, 0, "copy H7e a digest"},
	{"H7e peer", leg(0), leg(1, dirty), pair, 0, "copy H7e b digest"},
	{"H7e both", leg(0, dirty), leg(1, dirty), pair, 1, "copy H7e b digest"},
	{"H7g", leg(0, inFlight), leg(1), pair, 0, "insync H7g a"},
	{"H7g given up", leg(0, suspect), leg(1), pair, 0, "copy H7g a map"},
	{"H7g former owner", leg(0), leg(1, inFlight), pair, 0, "copy H7g a map"},
}

func text(d Decision) string {
	who := string('a' + rune(d.Source))
	switch d.Action {
	case Wait:
		return "wait " + d.Row
	case InSync:
		return fmt.Sprintf("insync %s %s", d.Row, who)
	case Found:
		return fmt.Sprintf("found %s %s", d.Row, who)
	case Sole:
		return fmt.Sprintf("sole %s %s", d.Row, who)
	case Refused:
		return fmt.Sprintf("refused %s %s", d.Row, d.Code)
	case Copy:
		return fmt.Sprintf("copy %s %s %s", d.Row, who, map[How]string{ByMap: "map", ByDigest: "digest", ByHot: "hot"}[d.How])
	}
	return "?"
}

func TestRows(t *testing.T) {
	for _, c := range rows {
		r := Right{Epoch: 4, Session: 5, Legs: c.legs, Owner: c.owner}
		a, b := with(r, c.a), with(r, c.b)
		if got := text(Decide(a, b, r)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if got := text(Decide(b, a, r)); got != c.want {
			t.Errorf("%s, asked by b: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestH0TheGrantMoved(t *testing.T) {
	r := Right{Epoch: 4, Session: 5, Legs: pair}
	later := r
	later.Epoch = 5
	if got := text(Decide(with(r, leg(0)), with(later, leg(1)), later)); got != "wait H0" {
		t.Error(got)
	}
}

func TestH2(t *testing.T) {
	r := Right{Epoch: 4, Session: 5, Legs: pair}
	for _, change := range []func(*Right){
		func(r *Right) { r.Epoch++ }, func(r *Right) { r.Session++ }, func(r *Right) { r.Legs = onlyA }, func(r *Right) { r.Owner = 1 },
	} {
		other := r
		change(&other)
		if got := text(Decide(with(r, leg(0)), with(other, leg(1)), r)); got != "wait H2" {
			t.Error(got)
		}
	}
	none := Right{Epoch: 4, Legs: pair}
	if got := text(Decide(with(none, leg(0)), with(none, leg(1)), none)); got != "wait H2" {
		t.Error(got)
	}
}

// A solo node takes a volume over while its peer is joining with the owners of the HELLO: the owner says nothing about
// the direction there, and waiting for equal owners was waiting for ever (met by a soak).
func TestOwnerMovesDuringJoin(t *testing.T) {
	r := Right{Epoch: 4, Session: 5, Legs: onlyA, Owner: 0}
	joiner := r
	joiner.Owner = 1
	if got := text(Decide(with(r, leg(0)), with(joiner, leg(1)), r)); got != "copy H6b a map" {
		t.Error(got)
	}
	if got := text(Decide(with(joiner, leg(1)), with(r, leg(0)), joiner)); got != "copy H6b a map" {
		t.Error(got)
	}
}

// All pairs of the canonical legs under all grants: mirrored arguments give the same order, the source is never
// outside Legs nor an unreadable leg, a grant that excludes is never overruled, and a second call says the same.
func TestAllPairs(t *testing.T) {
	shapes := [][]func(*Leg){{fresh}, {dataOfUse}}
	for _, id := range [][]func(*Leg){
		{},
		{current(g2)},
		{current(g2), base(g1), knows(g1)},
		{current(g3), base(g2), knows(g2, g1)},
		{current(g3), base(g1), knows(g1)},
		{becoming(g1)},
		{becoming(g2)},
		{state(Inconsistent)},
		{state(Outdated)},
		{state(Failed)},
		{state(Missing)},
	} {
		shapes = append(shapes, id)
		for _, how := range []func(*Leg){unclean, rebooted, unconfirmed, dirty, inFlight, suspect} {
			shapes = append(shapes, append(append([]func(*Leg){}, id...), how))
		}
	}
	n := 0
	for _, sa := range shapes {
		for _, sb := range shapes {
			for legs := range uint8(4) {
				for owner := range uint8(2) {
					r := Right{Epoch: 4, Session: 5, Legs: legs, Owner: owner}
					check(t, with(r, leg(0, sa...)), with(r, leg(1, sb...)), r)
					n++
				}
			}
		}
	}
	t.Logf("%d decisions", n)
}

func check(t *testing.T, a, b Leg, r Right) {
	t.Helper()
	d := Decide(a, b, r)
	if o := Decide(b, a, r); !o.Equal(d) || !Decide(a, b, r).Equal(d) {
		t.Fatalf("%+v\n%+v: %v and %v", a, b, d, o)
	}
	if d.Action != Copy && d.Action != InSync && d.Action != Found {
		return
	}
	source := a
	target := b
	if d.Source == 1 {
		source, target = b, a
	}
	switch {
	case r.Legs&(1<<d.Source) == 0:
		t.Fatalf("source outside Legs: %+v %+v %v", a, b, d)
	case d.Action == Copy && source.State != UpToDate && source.State != New:
		t.Fatalf("source is not readable: %+v %+v %v", a, b, d)
	case source.State == New && target.State != New:
		t.Fatalf("a new leg overwrites a used one: %+v %+v %v", a, b, d)
	case d.Action == InSync && (a.DirtyBlocks != 0 || b.DirtyBlocks != 0 || !a.Clean || !b.Clean || a.Current != b.Current):
		t.Fatalf("called equal: %+v %+v", a, b)
	case d.Action == Copy && d.How == ByMap && (!a.Clean || !b.Clean):
		t.Fatalf("a map of a leg that does not know its differences: %+v %+v %v", a, b, d)
	}
}
