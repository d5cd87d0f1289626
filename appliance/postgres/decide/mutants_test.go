//go:build mutants

package decide

import (
	"os"
	"strings"
	"testing"
)

// TestMutantsJ8 is the gate for the one guard whose loss the explorer cannot see: the transcript J8 differs without it.
func TestMutantsJ8(t *testing.T) {
	text, err := os.ReadFile("testdata/scenarios/J8")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { Mutant = "" }()
	for _, id := range []string{"", "start marked"} {
		Mutant = id
		p := newPlay()
		body, _, _ := strings.Cut(string(text), "----")
		for line := range strings.Lines(body[strings.Index(body, "play\n")+5:]) {
			if err := p.command(strings.Fields(line)); err != nil {
				t.Fatal(err)
			}
		}
		if started := strings.Contains(p.out.String(), "start as standby"); started != (id != "") {
			t.Errorf("%q: %s", id, p.out.String())
		}
	}
}
