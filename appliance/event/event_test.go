package event

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var form = regexp.MustCompile(`^(SITE-1|REPL-2|DISK-3|PG-4|FENCE-5|VM-6|NET-7|CHAS-8|SYS-9)\d{3}$`)

func TestCatalogueIsWhole(t *testing.T) {
	numbers := map[string]Code{}
	for _, e := range All() {
		if !form.MatchString(string(e.Code)) {
			t.Errorf("%s is not a code of its area", e.Code)
		}
		number := string(e.Code[len(e.Code)-4:])
		if other, taken := numbers[number]; taken {
			t.Errorf("%s and %s share a number", e.Code, other)
		}
		numbers[number] = e.Code
		for _, text := range []string{e.Title, e.What, e.Why, e.Next} {
			if strings.TrimSpace(text) == "" || strings.HasSuffix(text, ".") {
				t.Errorf("%s: %q", e.Code, text)
			}
		}
	}
	if !slices.IsSortedFunc(All(), func(a, b Entry) int {
		return strings.Compare(string(a.Code[len(a.Code)-4:]), string(b.Code[len(b.Code)-4:]))
	}) {
		t.Error("not in order of the numbers")
	}
}

// Every constant of codes.go has an entry: a code without texts would be shown as SYS-9000.
func TestEveryConstantHasAnEntry(t *testing.T) {
	source, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`"([A-Z]+-\d{4})"`).FindAllStringSubmatch(string(source), -1)
	if len(found) != len(All()) {
		t.Errorf("%d constants, %d entries", len(found), len(All()))
	}
	for _, m := range found {
		if Lookup(Code(m[1])).Code != Code(m[1]) {
			t.Errorf("%s has no entry", m[1])
		}
	}
}

// Each code has its page in the manual, with the title of the catalogue, and no page is left over.
func TestPages(t *testing.T) {
	pages, err := filepath.Glob("../../docs/faults/*-*.md")
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) != len(All()) {
		t.Errorf("%d pages, %d codes", len(pages), len(All()))
	}
	index, err := os.ReadFile("../../docs/faults/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range All() {
		if row := fmt.Sprintf("| [%s](%s.md) | %s |", e.Code, e.Code, e.Title); !strings.Contains(string(index), row) {
			t.Errorf("README.md lacks %s", row)
		}
		text, err := os.ReadFile(filepath.Join("../../docs/faults", string(e.Code)+".md"))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, want := range []string{fmt.Sprintf("# %s: %s\n", e.Code, e.Title), "**Meaning.**", "**Evidence to look at.**", "**Next safe step.**"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s.md lacks %q", e.Code, want)
			}
		}
	}
}

func TestFaultTexts(t *testing.T) {
	cause := errors.New("connection refused")
	err := fmt.Errorf("takeover: %w", New(FenceUnknown, "node", "b", "detail", "bmc silent").Because(cause))
	f := As(err)
	if f.What() != "Fencing of node b gave no evidence: bmc silent" || f.Command() != "duet fence status" ||
		!strings.Contains(f.Why(), "(connection refused)") || !errors.Is(err, cause) || CodeOf(err) != FenceUnknown {
		t.Fatalf("%q %q", f.What(), f.Why())
	}
	if got := As(errors.New("disk on fire")); got.Code != Internal || got.What() != "disk on fire" {
		t.Fatalf("%v", got)
	}
	if CodeOf(nil) != "" {
		t.Fatal("nil has a code")
	}
}

// A value that looks like a placeholder is not filled again.
func TestValuesAreNotTexts(t *testing.T) {
	f := New(FenceUnknown, "detail", "{node}", "node", "b")
	if got := f.What(); got != "Fencing of node b gave no evidence: {node}" {
		t.Fatalf("%q", got)
	}
}

// What another package found arrives as it was written; the rest is the catalogue's.
func TestReported(t *testing.T) {
	words := Words{What: "The BMC of node {b} does not answer", Why: "i/o timeout", Next: "check its cable"}
	f := As(fmt.Errorf("test: %w", Reported(BMCSilent, words, "node", "b")))
	if f.Code != "FENCE-5012" || f.What() != words.What || f.Why() != words.Why || f.Next() != words.Next || f.Command() != "duet fence status" {
		t.Fatalf("%s %q %q %q %q", f.Code, f.What(), f.Why(), f.Next(), f.Command())
	}
}
