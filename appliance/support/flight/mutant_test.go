//go:build mutants

package flight

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"duet/appliance/membership"
)

// switches are the guards that the core of this build can switch off.
func switches(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../membership/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`mutant\("([^"]+)"\)`).FindAllStringSubmatch(string(text), -1) {
			ids = append(ids, m[1])
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// felt are guards that aLife needs: a replay without one of them must differ. The others guard against what does not
// happen in that life; membership/explore finds the lives in which they matter.
var felt = []string{"M1", "M3", "M4", "M9", "M12", "M15", "M18", "M20", "M21", "M22", "M28", "N16", "R11 wait"}

// Proves: issue 3, item 4; interfaces.md section 10. What was recorded by the core as it is shipped does not replay
// through a core with a guard missing. Without this, a replay that compares nothing would look perfect.
func TestMutantsDifferInReplay(t *testing.T) {
	defer func() { membership.Mutant = "" }()
	membership.Mutant = ""
	ts, _ := recorded(t)
	var differ []string
	for _, id := range switches(t) {
		membership.Mutant = id
		for _, n := range []membership.Node{membership.A, membership.B} {
			s, err := Replay(ts.folder(n), Options{})
			if err != nil {
				t.Fatalf("%s: %v", id, err)
			}
			if !s.Equal && !slices.Contains(differ, id) {
				differ = append(differ, id)
				t.Logf("%s on %v: %d differences, the first at %s", id, n, s.Differences, s.Difference)
			}
		}
	}
	for _, id := range felt {
		if !slices.Contains(differ, id) {
			t.Errorf("%s is switched off, and the replay is equal", id)
		}
	}
	t.Logf("%d of %d: %s", len(differ), len(switches(t)), strings.Join(differ, ", "))
	membership.Mutant = ""
	for _, n := range []membership.Node{membership.A, membership.B} {
		if s, err := Replay(ts.folder(n), Options{}); err != nil || !s.Equal {
			t.Errorf("with every guard on: %+v %v", s, err)
		}
	}
}
