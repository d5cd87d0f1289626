package scenario

import (
	"reflect"
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
