package scenario

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// The same seed gives the same schedule, a longer run begins with the shorter one, another seed gives another.
func TestSchedule(t *testing.T) {
	long, short := Schedule(7, 1000), Schedule(7, 20)
	if !reflect.DeepEqual(long, Schedule(7, 1000)) {
		t.Error("the same seed gave two schedules")
	}
	if !reflect.DeepEqual(long[:20], short) {
		t.Error("a shorter run is not the beginning of a longer one")
	}
	if reflect.DeepEqual(short, Schedule(8, 20)) {
		t.Error("two seeds gave one schedule")
	}
	// Golden: a schedule that changes makes every seed that was written down worthless.
	const want = "6: witness slow 400ms 20% for 2.227s + hang a for 3.904s from 1.301s (the site still recovers)"
	if got := short[5].String(); got != want {
		t.Errorf("episode 6 of seed 7 is %q, was %q", got, want)
	}
	kinds, rushed, double := map[string]int{}, 0, 0
	var sum time.Duration
	for _, e := range long {
		for _, f := range e.Faults {
			kinds[f.Kind]++
		}
		if e.Rush {
			rushed++
		}
		if len(e.Faults) == 2 {
			double++
		}
		moments := e.timeline()
		sum += e.Before + moments[len(moments)-1].at
		for _, m := range moments {
			if _, err := parseStep(m.step); err != nil {
				t.Errorf("%s: %v", e, err)
			}
		}
	}
	for _, k := range chaosKinds {
		if kinds[k.name] < 10 {
			t.Errorf("%s came %d times in 1000 episodes", k.name, kinds[k.name])
		}
	}
	if rushed < 200 || rushed > 400 || double < 300 || double > 550 {
		t.Errorf("%d rushed, %d double of 1000", rushed, double)
	}
	t.Logf("faults last %v an episode on average", sum/time.Duration(len(long)))
}

// What was played is judged: before every episode that is not rushed, and at the end, also when the time is over in the
// middle of a chain of rushed ones. A failure does not end the run.
func TestChaosJudges(t *testing.T) {
	episode := func(n int, rush bool) ChaosEpisode { return ChaosEpisode{Number: n, Rush: rush} }
	schedule := []ChaosEpisode{episode(1, false), episode(2, true), episode(3, false), episode(4, true), episode(5, true)}
	broken := errors.New("broken")
	for _, tc := range []struct {
		name         string
		time         int // episodes
		playFails    int
		judgeFails   int // which verdict
		want         string
		failures     int
		judgedGuests string
	}{
		{"all", 9, 0, 0, "1 2 judge 3 4 5 judge", 0, "[false true]"},
		{"the time is over in a chain", 4, 0, 0, "1 2 judge 3 4 judge", 0, "[false true]"},
		{"the time is over before the first", 0, 0, 0, "", 0, "[]"},
		{"an episode fails", 9, 2, 0, "1 2 failed 3 4 5 judge", 1, "[true]"},
		{"a verdict fails", 9, 0, 1, "1 2 judge failed 3 4 5 judge", 1, "[false true]"},
		{"the last verdict fails", 2, 0, 1, "1 2 judge failed", 1, "[true]"},
	} {
		var did []string
		var guests []bool
		r := NewChaosReport(1)
		err := r.run(schedule, chaosDeeds{
			over: func() bool { return r.Episodes >= tc.time },
			play: func(e ChaosEpisode) error {
				did = append(did, fmt.Sprint(e.Number))
				if e.Number == tc.playFails {
					return broken
				}
				return nil
			},
			judge: func(guest bool) error {
				did, guests = append(did, "judge"), append(guests, guest)
				if len(guests) == tc.judgeFails {
					return broken
				}
				return nil
			},
			failed: func(ChaosEpisode, error) error { did = append(did, "failed"); return nil },
		})
		if got := strings.Join(did, " "); err != nil || got != tc.want || len(r.Failures) != tc.failures || fmt.Sprint(guests) != tc.judgedGuests {
			t.Errorf("%s: %q, guests %v, failures %v, %v; want %q, guests %s", tc.name, got, guests, r.Failures, err, tc.want, tc.judgedGuests)
		}
	}
}

// A kind of fault that never took effect is no fault that was played.
func TestMootKinds(t *testing.T) {
	r := NewChaosReport(1)
	for range mootMost {
		r.tried(chaosMoment{kind: "panic"}, true)
		r.tried(chaosMoment{kind: "hang"}, true)
		r.tried(chaosMoment{}, true) // a resume
		r.tried(chaosMoment{kind: "cable"}, false)
	}
	r.tried(chaosMoment{kind: "hang"}, false)
	r.tried(chaosMoment{kind: "kill-duetd"}, true) // once: that happens
	if r.judgeKinds(); len(r.Failures) != 1 || !strings.Contains(r.Failures[0], "panic") || r.Moot != 3*mootMost+1 {
		t.Errorf("%d moot, failures %q", r.Moot, r.Failures)
	}
	if r.Kinds["hang"] != mootMost+1 || r.MootKinds["hang"] != mootMost || r.MootKinds["cable"] != 0 {
		t.Errorf("%v, moot %v", r.Kinds, r.MootKinds)
	}
	var begun []string
	for _, m := range (ChaosEpisode{Faults: []Fault{{Kind: "hang", Do: "hang a", Undo: "resume a", For: 1}, {Kind: "kill-duetd", Do: "kill b duetd"}}}).timeline() {
		if m.kind != "" {
			begun = append(begun, m.step)
		}
	}
	if !slices.Equal(begun, []string{"hang a", "kill b duetd"}) {
		t.Errorf("faults begin with %q", begun)
	}
}
