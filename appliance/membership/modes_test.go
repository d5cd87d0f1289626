package membership

import (
	"os"
	"strings"
	"testing"
)

const protocolPage = "../../docs/protocol.md"

// TestDiagramIsFresh: the page's picture is the code's table.
func TestDiagramIsFresh(t *testing.T) {
	page, err := os.ReadFile(protocolPage)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- generated: modes -->\n", "<!-- end -->"
	head, rest, ok := strings.Cut(string(page), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the diagram", protocolPage)
	}
	want := head + begin + "```mermaid\n" + Diagram() + "```\n" + end + tail
	if want == string(page) {
		return
	}
	if !*update {
		t.Fatalf("%s is stale; run with -update", protocolPage)
	}
	if err := os.WriteFile(protocolPage, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestModeTable(t *testing.T) {
	if got := Mode(99).String(); got != "mode?" {
		t.Errorf("%q", got)
	}
	checkTransition(Frozen, Frozen)
	defer func() {
		if recover() == nil {
			t.Error("joining to solo is allowed")
		}
	}()
	checkTransition(Joining, Solo)
}

func TestReportNames(t *testing.T) {
	seen := map[string]bool{}
	for c := range reportCount {
		name := c.String()
		if name == "" || seen[name] {
			t.Errorf("report %d is called %q", c, name)
		}
		seen[name] = true
	}
	if reportCount.String() != "report?" {
		t.Error("an unknown report has a name")
	}
	if !ReportDiverged.IsFault() || ReportSolo.IsFault() {
		t.Error("faults are mixed up")
	}
}
