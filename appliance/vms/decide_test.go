package vms

import (
	"slices"
	"testing"
)

// Every state × wanted × permitted, written down by hand.
func TestDecideTable(t *testing.T) {
	const none = Verb(255)
	for _, c := range []struct {
		state                                    State
		wantMay, wantMayNot, stopMay, stopMayNot Verb
	}{
		{Absent, DoWant, none, none, none},
		{Paused, DoResume, DoKill, DoKill, DoKill},
		{PausedOnError, DoResume, DoKill, DoKill, DoKill},
		{Running, none, DoKill, DoKill, DoKill},
		{Unclear, none, DoKill, DoKill, DoKill},
		{Ending, none, none, none, none},
	} {
		for _, w := range []struct {
			run, may bool
			want     Verb
		}{{true, true, c.wantMay}, {true, false, c.wantMayNot}, {false, true, c.stopMay}, {false, false, c.stopMayNot}} {
			right := Right{Epoch: 4}
			if w.may {
				right.IDs = []string{"1"}
			}
			got := none
			if a := Decide([]Wish{{"1", "vm", w.run}}, []Seen{{"1", "vm", c.state}}, right); len(a) == 1 {
				got = a[0].Verb
			} else if len(a) > 1 {
				t.Fatalf("%v", a)
			}
			if got != w.want {
				t.Errorf("%s wanted=%v permitted=%v: %v, want %v", c.state, w.run, w.may, got, w.want)
			}
		}
	}
}

func TestDecideTakesAwayFirst(t *testing.T) {
	got := Decide(
		[]Wish{{"1", "start", true}, {"2", "foreign", true}, {"3", "paused", true}},
		[]Seen{{"2", "foreign", Running}, {"3", "paused", Paused}, {"9", "stray", Running}},
		Right{Epoch: 2, IDs: []string{"1", "3"}})
	var verbs []Verb
	for _, a := range got {
		verbs = append(verbs, a.Verb)
	}
	if !slices.Equal(verbs, []Verb{DoKill, DoReport, DoResume, DoWant}) {
		t.Fatalf("%v", got)
	}
}

// Epoch 0 is no grant, whatever the list says.
func TestNoEpochNoRight(t *testing.T) {
	if (Right{IDs: []string{"1"}}).Has("1") {
		t.Fatal("a right without an epoch")
	}
}
