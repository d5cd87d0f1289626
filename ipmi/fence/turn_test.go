package fence

import (
	"slices"
	"testing"
)

// The plan of protocol.md R21b, written out.
func TestTurns(t *testing.T) {
	type span struct {
		begin, end Boottime // seconds
		means      Means
	}
	plan := map[bool][]span{
		true:  {{0, 6, ByBMC}, {16, 28, Everything}, {44, 56, Everything}, {72, 84, Everything}},
		false: {{8, 14, ByBMC}, {30, 42, Everything}, {58, 70, Everything}},
	}
	for first, spans := range plan {
		for at := Boottime(0); at < 70*Second; at += Second / 4 {
			want := Turn{Means: Looking}
			for _, s := range slices.Backward(spans) {
				begin, end := s.begin*Second, s.end*Second
				switch {
				case at >= begin && at < end:
					want = Turn{s.means, end, at}
				case at < begin:
					want = Turn{Looking, begin, begin}
				}
			}
			if got := TurnAt(at, first); got != want {
				t.Errorf("first %v, %d ms after the loss: %+v, want %+v", first, at/ms, got, want)
			}
		}
	}
}

// Two nodes that noticed the loss up to two seconds apart never switch at the same time, and each gets its turn.
func TestTurnsDoNotOverlap(t *testing.T) {
	for skew := -turnGap + 1; skew < turnGap; skew += Second / 4 {
		shots := [2]int{}
		for at := 2 * turnGap; at < 10*60*Second; at += Second / 8 {
			a, b := TurnAt(at, true), TurnAt(at+skew, false)
			if a.Means != Looking && b.Means != Looking {
				t.Fatalf("both at %d ms, skew %d ms", at/ms, skew/ms)
			}
			for i, turn := range []Turn{a, b} {
				if turn.Means != Looking {
					shots[i]++
				}
			}
		}
		if shots[0] == 0 || shots[1] == 0 {
			t.Fatalf("a node has no turn: %v", shots)
		}
	}
	if got := TurnAt(-Second, true); got.Means != ByBMC {
		t.Errorf("before the loss: %+v", got)
	}
}
