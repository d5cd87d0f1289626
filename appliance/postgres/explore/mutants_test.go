//go:build mutants

package explore

import (
	"strings"
	"testing"
	"time"

	"duet/appliance/postgres/decide"
)

// mutants of the design's list: one guard off at a time. caught are the invariants that may notice.
var mutants = []struct{ id, guard, caught string }{
	{"release early", "L3 waits for the record", "PG4 PG2"},
	{"shrink owner-first", "W: a shrink is pending on the peer first", "PG2 PG3"},
	{"grow peer-first", "W: a growth is current on the owner first", "PG2 PG3"},
	{"grow on sync_state", "G3: the marker is seen waiting", "PG2"},
	{"open unproven", "S2, S4, C3: closed until the marker", "PG2"},
	{"promote anyone", "S1, N3: only in copies", "PG2 PG3"},
	{"joiner", "W: from PREPARE on a joiner counts", "PG2 PG3"},
	{"old record", "the newest record counts, pending or not", "PG2 PG3"},
	{"unknown fence", "N2: unknown is not confirmed", "PG1 PG3"},
	{"lease end", "N2: silence is not evidence", "PG1 PG3"},
	{"rewind the only copy", "J4: copies before the fork", "PG5"},
	{"rewind early", "J5: the primary's checkpoint", "J5"},
	{"initdb again", "B2: an empty directory is not a new database", "PG6"},
	{"start marked", "J8: a marked directory is never started", "J8"},
	{"timeline", "N3: the record numbers timelines", "number"},
}

// survivors are not noticed in this model, and why.
var survivors = map[string]string{
	"start marked": "the mark is taken away before `current` is switched, so no path of the model has it there; the transcript J8 notices, and the driver refuses it a second time",
}

// TestMutants: each must be noticed, by the invariant that it breaks, or be listed.
func TestMutants(t *testing.T) {
	const most, within = 40000, 40 * time.Second
	defer func() { decide.Mutant, Without = "", false }()
	for _, m := range mutants {
		t.Run(m.id, func(t *testing.T) {
			decide.Mutant, Without = m.id, m.id == "joiner"
			began := time.Now()
			for seed := range uint64(most) {
				if m.id == "start marked" && seed > 500 {
					break
				}
				_, v, _ := walk(seed)
				if v == nil {
					if time.Since(began) > within {
						break
					}
					continue
				}
				by, _, _ := strings.Cut(v.err.Error(), ":")
				if !strings.Contains(m.caught, by) {
					t.Errorf("noticed by %s, not by %s: %v", by, m.caught, v)
				}
				t.Logf("%s: %s, seed %d, %d actions, %.1f s", m.guard, by, seed, len(v.path), time.Since(began).Seconds())
				return
			}
			if why := survivors[m.id]; why != "" {
				t.Logf("survives: %s", why)
				return
			}
			t.Error("survives")
		})
	}
}
