//go:build mutants

package explore

import (
	"slices"
	"strings"
	"testing"

	"duet/appliance/membership"
)

// TestMutants is the gate of protocol.md section 12.5.
func TestMutants(t *testing.T) {
	for _, mu := range mutants {
		t.Run(mu.id, func(t *testing.T) {
			v := hunted(mu)
			switch {
			case v.Err != nil:
				t.Error(v.Err)
			case v.Caught == "":
				t.Logf("survives, %s", v.Survives)
			default:
				t.Logf("%-40s %s, %d actions, %s, %.1f s", v.Guard, v.Caught, v.Actions, v.By, v.Seconds)
			}
		})
	}
}

// Each seed that names a mutant still breaks what it broke, or it has rotted: actions that have another meaning now lead
// somewhere else.
func TestSeedsKillTheirMutants(t *testing.T) {
	seeds, err := readSeeds(seedFiles)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range seeds {
		if s.mutant == "" {
			continue // TestSeeds plays it whole
		}
		t.Run(s.name, func(t *testing.T) {
			i := slices.IndexFunc(mutants, func(mu mutation) bool { return mu.id == s.mutant })
			if i < 0 {
				t.Fatalf("no mutant %q", s.mutant)
			}
			membership.Mutant = s.mutant
			defer func() { membership.Mutant = "" }()
			err := s.replay()
			if err == nil || !strings.Contains(" "+mutants[i].caught+" ", " "+caughtAs(err)+" ") {
				t.Errorf("mutant %s: %v, wanted one of %s", s.mutant, err, mutants[i].caught)
			} else {
				t.Log(s.mutant, err)
			}
		})
	}
}

// A search finds what a mutant breaks, breadth-first by a shortest path, and the seed file that it prints repeats it.
func TestViolationIsFoundAndRepeated(t *testing.T) {
	membership.Mutant = "M12"
	defer func() { membership.Mutant = "" }()
	p := Worlds["link-lost"]
	v := p.BFS(Bounds{}).Violation
	if v == nil {
		t.Fatal("nothing was found")
	}
	s, err := parseSeed(v.Actions())
	if err != nil || s.world != p || !slices.Equal(s.path, v.Path) {
		t.Fatalf("%v: %s", err, v.Actions())
	}
	if err := s.replay(); err == nil || caughtAs(err) != caughtAs(v.Err) {
		t.Errorf("%v repeats as %v", v.Err, err)
	}
	if r := p.BFS(Bounds{Depth: len(v.Path) - 1}); r.Violation != nil {
		t.Errorf("%d actions are not the fewest", len(v.Path))
	}
}
