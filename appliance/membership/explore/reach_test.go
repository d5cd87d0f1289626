package explore

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the generated tables; read the diff")

const protocolPage = "../../../docs/protocol.md"

// TestReach is the situations of protocol.md section 12.2, as far as the rules of this core cover them. The page's
// table is what it found.
func TestReach(t *testing.T) {
	table := "| situation | states | service comes back |\n| --- | --- | --- |\n"
	for _, row := range Rows {
		r, err := row.Reach()
		if err != nil {
			t.Errorf("%s: %v", row.Situation, err)
			continue
		}
		answer := "always"
		if !row.Always {
			answer = fmt.Sprintf("not from %d of them: %s", r.Stuck, row.Why)
		}
		table += fmt.Sprintf("| %s | %d | %s |\n", row.Situation, r.States, answer)
		if (r.Stuck == 0) != row.Always {
			w := &r.Example
			t.Errorf("%s: %d of %d states never serve again, wanted always: %t\n%v | %v | %v",
				row.Situation, r.Stuck, r.States, row.Always, &w.N[0], &w.N[1], w.witness())
		}
	}
	fresh(t, table)
}

func fresh(t *testing.T, table string) {
	page, err := os.ReadFile(protocolPage)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- generated: reach -->\n", "<!-- end -->"
	head, rest, ok := strings.Cut(string(page), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", protocolPage)
	}
	want := head + begin + table + end + tail
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
