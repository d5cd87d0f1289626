package slow

import "testing"

// after feeds the same look for some ticks and says after how many a leg was taken out; 0: never.
func after(k Look, ticks int) int {
	var l Leg
	for n := 1; n <= ticks; n++ {
		if l.Judge(k) != "" {
			return n
		}
	}
	return 0
}

// Proves: replication.md 9.6: only if all hold.
func TestJudge(t *testing.T) {
	hung, slow, well := Stat{OldestTicks: hangTicks + 1}, Stat{P50MicroS: 200_000}, Stat{P50MicroS: 5000}
	for name, c := range map[string]struct {
		k    Look
		want int
	}{
		"hangs":                          {Look{Own: hung, Other: well, InStep: true}, 1},
		"hangs, the other one is idle":   {Look{Own: hung, InStep: true}, 1},
		"not long enough":                {Look{Own: Stat{OldestTicks: hangTicks}, Other: well, InStep: true}, 0},
		"hangs, not in step":             {Look{Own: hung, Other: well}, 0},
		"hangs, nothing heard":           {Look{Own: hung, Other: well, InStep: true, HeardFor: -1}, 0},
		"hangs, heard just lately":       {Look{Own: hung, Other: well, InStep: true, HeardFor: freshTicks}, 1},
		"hangs, not heard of lately":     {Look{Own: hung, Other: well, InStep: true, HeardFor: freshTicks + 1}, 0},
		"both hang":                      {Look{Own: hung, Other: hung, InStep: true}, 0},
		"the other one begins to hang":   {Look{Own: hung, Other: Stat{OldestTicks: healthTicks + 1}, InStep: true}, 0},
		"hangs, the other one is slow":   {Look{Own: hung, Other: slow, InStep: true}, 0},
		"slow":                           {Look{Own: slow, Other: well, InStep: true}, slowTicks + 1},
		"slow, the other one is idle":    {Look{Own: slow, InStep: true}, 0},
		"slow, but not by so much":       {Look{Own: Stat{P50MicroS: 19 * 9000}, Other: Stat{P50MicroS: 9000}, InStep: true}, 0},
		"slow by much, but quick enough": {Look{Own: Stat{P50MicroS: 100_000}, Other: Stat{P50MicroS: 10}, InStep: true}, 0},
		"both slow":                      {Look{Own: Stat{P50MicroS: 5_000_000}, Other: slow, InStep: true}, 0},
		"well":                           {Look{Own: well, Other: well, InStep: true}, 0},
	} {
		if got := after(c.k, 3*slowTicks); got != c.want {
			t.Errorf("%s: taken out after %d ticks, want %d", name, got, c.want)
		}
	}
}

// A garbage collection of a drive, one quick tick between slow ones, an unproved moment: each begins the count anew.
func TestSlowMustLast(t *testing.T) {
	slow := Look{Own: Stat{P50MicroS: 200_000}, Other: Stat{P50MicroS: 5000}, InStep: true}
	quick, apart, late := slow, slow, slow
	quick.Own.P50MicroS = 900
	apart.InStep = false
	late.HeardFor = freshTicks + 1
	for _, between := range []Look{quick, apart, late} {
		var l Leg
		for n := range 20 * slowTicks {
			k := slow
			if n%slowTicks == 0 {
				k = between
			}
			if why := l.Judge(k); why != "" {
				t.Fatalf("%+v between: taken out at tick %d: %s", between, n, why)
			}
		}
	}
}
