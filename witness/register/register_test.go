package register

import (
	"testing"
)

// contents are all the registers of a small world: every set at every epoch up to 3.
func contents() []Content {
	var all []Content
	for e := range Epoch(4) {
		for s := Nobody; s <= Both; s++ {
			all = append(all, Content{e, s})
		}
	}
	return all
}

func TestCASComparesTheWholeContent(t *testing.T) {
	for _, now := range contents() {
		for _, expected := range contents() {
			for _, next := range contents() {
				before := Register{RID: ID{1}, Site: ID{2}, CreateNonce: 3, Content: now, Sequence: 7}
				after, done, changed := before.CAS(expected, next)
				repeat := now == next
				wins := now == expected
				if done != (repeat || wins) || changed != (wins && !repeat) {
					t.Fatalf("%v: CAS(%v→%v) done %t changed %t", now, expected, next, done, changed)
				}
				checkOnlyContent(t, before, after, changed)
				if done && after.Content != next || !done && after.Content != now {
					t.Fatalf("%v: CAS(%v→%v) left %v", now, expected, next, after.Content)
				}
				// A repeat of what took effect is answered as the first time, and changes nothing.
				if again, ok, c := after.CAS(expected, next); done && (!ok || c || again != after) {
					t.Fatalf("%v: the repeat of CAS(%v→%v) is answered otherwise", now, expected, next)
				}
			}
		}
	}
}

// Of two nodes that expect the same content only one can win: the sets differ, so the second finds another content.
func TestOneWinner(t *testing.T) {
	r := Register{Content: Content{5, Both}}
	r, a, _ := r.CAS(Content{5, Both}, Content{6, OnlyA})
	r, b, _ := r.CAS(Content{5, Both}, Content{6, OnlyB})
	if !a || b || r.Content != (Content{6, OnlyA}) {
		t.Errorf("a won %t, b won %t, register %v", a, b, r.Content)
	}
	// A newer epoch alone is not enough (protocol.md mutant M2).
	if _, done, _ := r.CAS(Content{5, Both}, Content{9, OnlyB}); done {
		t.Error("a CAS from an old content won by its epoch")
	}
}

func TestPushOnlyRaises(t *testing.T) {
	for _, now := range contents() {
		for ep := range Epoch(5) {
			before := Register{Content: now, Sequence: 7}
			after, confirmed, changed := before.Push(ep)
			checkOnlyContent(t, before, after, changed)
			if after.Content.Epoch < now.Epoch {
				t.Fatalf("%v: PUSH(%d) lowered it to %v", now, ep, after.Content)
			}
			if confirmed != (after.Content == Content{ep, Both}) || changed != (ep > now.Epoch) {
				t.Fatalf("%v: PUSH(%d) confirmed %t changed %t, register %v", now, ep, confirmed, changed, after.Content)
			}
		}
	}
}

// The register of a founding says (0, {}): no CAS that a node can send matches it before the first PUSH
// (protocol.md section 9.2).
func TestNobodyWinsBeforeTheFirstPush(t *testing.T) {
	for ep := range Epoch(9) {
		for _, s := range []Set{OnlyA, OnlyB, Both} {
			if _, done, _ := (Register{}).CAS(Content{ep, s}, Content{ep + 1, OnlyB}); done {
				t.Errorf("CAS from (%d,%d) won", ep, s)
			}
		}
	}
}

func checkOnlyContent(t *testing.T, before, after Register, changed bool) {
	t.Helper()
	want := before
	want.Content = after.Content
	if changed {
		want.Sequence++
	} else {
		want.Content = before.Content
	}
	if after != want {
		t.Fatalf("%+v became %+v, changed %t", before, after, changed)
	}
}
