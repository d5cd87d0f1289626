package scenario

import (
	"strings"
	"testing"
	"time"

	"duet/build/lab"
)

// Only the loss of the last holder counts: a pair of which one node loses its power loses nothing, flushed or not.
func TestTotalLosses(t *testing.T) {
	at := func(s int) time.Time { return time.Date(2026, 1, 1, 0, 0, s, 0, time.UTC) }
	event := func(s int, node, kind string) lab.Event { return lab.Event{Time: at(s), Machine: node, Kind: kind} }
	start := []lab.Event{event(0, "a", "power-on"), event(0, "b", "power-on")}
	paired := "2026-01-01T00:00:01Z time=x level=INFO msg=mode node=a from=init to=paired epoch=3\n"
	solo := "2026-01-01T00:00:05Z time=x level=INFO msg=report what=solo to=nothing\n2026-01-01T00:00:05Z msg=mode node=a from=frozen to=solo epoch=4\n"
	again := "2026-01-01T00:00:09Z msg=mode node=b from=joining to=paired epoch=4\n"
	for _, tc := range []struct {
		name string
		then []lab.Event
		a, b string
		want int
	}{
		{"one of a pair", []lab.Event{event(4, "b", "power-cut")}, paired, paired, 0},
		{"both of a pair, one after the other", []lab.Event{event(4, "b", "power-cut"), event(4, "a", "power-cut")}, paired, paired, 1},
		{"then the solo node", []lab.Event{event(4, "b", "power-cut"), event(7, "a", "power-cut")}, paired + solo, paired, 1},
		{"the solo node while the other has power", []lab.Event{event(7, "a", "power-cut")}, paired + solo, paired, 1},
		{"the one that is excluded", []lab.Event{event(7, "b", "power-cut")}, paired + solo, paired, 0},
		{"the other is back but not in sync", []lab.Event{
			event(4, "b", "power-cut"), event(6, "b", "power-on"), event(7, "a", "power-cut"),
		}, paired, paired, 1},
		{"the other is back and in sync", []lab.Event{
			event(4, "b", "power-cut"), event(6, "b", "power-on"), event(12, "a", "power-cut"),
		}, paired + solo + strings.ReplaceAll(again, "joining", "solo"), paired + again, 0},
		{"the survivor crashes before it knows", []lab.Event{event(4, "b", "power-cut"), event(4, "a", "panic")}, paired, paired, 1},
		{"the survivor crashes after it went on alone", []lab.Event{event(4, "b", "power-cut"), event(7, "a", "panic")}, paired + solo, paired, 0},
		{"the solo node crashes after the other lost its power", []lab.Event{event(6, "b", "power-cut"), event(7, "a", "panic")}, paired + solo, paired, 0},
		{"a reset keeps what is in the drives", []lab.Event{event(4, "b", "reset"), event(4, "a", "reset")}, paired, paired, 0},
	} {
		modes := map[string][]modeChange{}
		for node, log := range map[string]string{"a": tc.a, "b": tc.b} {
			changes, err := modeChanges(strings.NewReader(log))
			if err != nil {
				t.Fatal(err)
			}
			modes[node] = changes
		}
		if got := totalLosses(append(start[:2:2], tc.then...), modes); len(got) != tc.want {
			t.Errorf("%s: %v, want %d", tc.name, got, tc.want)
		}
	}
}
