//go:build mutants

package explore

import (
	"io/fs"
	"path/filepath"
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
	names, err := fs.Glob(seedFiles, "testdata/seeds/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := seedFiles.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := parseSeed(string(text))
		if err != nil || s.mutant == "" {
			continue // TestSeeds plays it whole
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
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
