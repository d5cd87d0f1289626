package scenario

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"duet/appliance/api"
)

// Every step of every row is understood, every name is its own, and every row either measures or says why not. A case
// ends with something that it demands: steps alone would prove nothing.
func TestRows(t *testing.T) {
	names := map[string]bool{}
	for _, row := range Rows() {
		if names[row.Name] || row.Name == "" || row.Situation == "" || row.Own == "" || row.Other == "" || row.Person == "" {
			t.Errorf("row %q: without a cell, or twice", row.Name)
		}
		names[row.Name] = true
		if (len(row.Cases) == 0) == (row.Reason == "") {
			t.Errorf("row %s: %d cases and the reason %q", row.Name, len(row.Cases), row.Reason)
		}
		for _, c := range row.Cases {
			for _, p := range c.Phases {
				checkPhase(t, row.Name+"/"+c.Name, p)
			}
			if last := c.Phases[len(c.Phases)-1]; last.Quiet == 0 && last.Own == "" && last.Starts == "" && !last.One {
				t.Errorf("%s/%s demands nothing at its end", row.Name, c.Name)
			}
		}
	}
}

func checkPhase(t *testing.T, name string, p Phase) {
	for _, text := range append(slices.Clone(p.Do), healed...) {
		if _, err := parseStep(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, who := range append([]string{p.Own, p.Starts}, p.Holds...) {
		if node := role(who, "b"); who != "" && node != "a" && node != "b" {
			t.Errorf("%s: %q is no node", name, who)
		}
	}
	if len(p.Holds) > 0 && p.Waits == "" {
		t.Errorf("%s: whom it waits for is not demanded", name)
	}
}

func TestParseStep(t *testing.T) {
	for text, want := range map[string]string{
		"cut owner": "", "pause 2s": "", "until a solo": "", "pause": "words follow", "pause soon": "duration",
		"": "empty", "explode a": "no such word", "paired now": "words follow",
	} {
		_, err := parseStep(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if got := (step{"link", "wan", "other", "cut"}).roles("b"); !slices.Equal(got, step{"link", "wan", "a", "cut"}) {
		t.Errorf("roles: %v", got)
	}
}

// The worst case of a row counts, a bound that is passed is named, one that nothing measured too, a failed case takes the
// row out of the matrix, and what was not measured is named with its reason.
func TestCollect(t *testing.T) {
	f := func(v float64) *float64 { return &v }
	rows := []Row{
		{Name: "fine", Situation: "s1", OwnWithin: 1e9, Cases: make([]Case, 2)},
		{Name: "late", Situation: "s2", OtherWithin: 1e9, Cases: make([]Case, 1)},
		{Name: "broken", Situation: "s3", Cases: make([]Case, 1)},
		{Name: "half", Situation: "s4", Cases: make([]Case, 2)},
		{Name: "later", Situation: "s5", Reason: "not there yet"},
		{Name: "open", Situation: "s6", OwnWithin: 1e9, BackWithin: 1e9, Cases: make([]Case, 1)},
	}
	l := Collect(rows, []Measured{
		{Row: "fine", Own: f(0.5)},
		{Row: "fine", Own: f(0.9)},
		{Row: "late", Other: f(3)},
		{Row: "broken", Case: "c", Failed: "why"},
		{Row: "half", Own: f(1)},
		{Row: "open", Other: f(1)},
	}, "no time")
	if *l.Rows[0].Own != 0.9 || !slices.Equal(l.TargetsMissed, []string{"late"}) || l.Liveness != "failed" || len(l.Failed) != 1 {
		t.Errorf("%+v", l)
	}
	if l.NotCovered["later"] != "not there yet" || l.NotCovered["half"] != "no time" || len(l.NotCovered) != 2 {
		t.Errorf("not covered: %v", l.NotCovered)
	}
	if want := []string{"open: own", "open: back"}; !slices.Equal(l.TargetsOpen, want) {
		t.Errorf("not measured: %v, want %v", l.TargetsOpen, want)
	}
	var page strings.Builder
	if err := l.WriteMatrix(&page, rows); err != nil {
		t.Fatal(err)
	}
	shown, err := MatrixRows(page.String())
	if err != nil || !slices.Equal(shown, []string{"fine", "late", "open"}) {
		t.Errorf("the matrix shows %v, %v; want fine, late and open", shown, err)
	}
	for _, row := range rows {
		if below := MatrixNames(page.String(), row); below == slices.Contains(shown, row.Name) {
			t.Errorf("row %s, shown or named as not measured: both or neither", row.Name)
		}
	}
	if !strings.Contains(page.String(), "| not measured; the way back was not measured |") {
		t.Errorf("nothing says what nothing measured:\n%s", page.String())
	}
	if !strings.Contains(page.String(), "**3.0 s**") || !strings.Contains(page.String(), "- s5: not there yet") {
		t.Errorf("the page:\n%s", page.String())
	}
}

// A run in which no case was played has shown nothing: a name that no case has, a budget that was used up.
func TestNothingPlayed(t *testing.T) {
	if l := Collect(Rows(), nil, "not asked for in this run"); l.Liveness != "failed" || len(l.Failed) != 1 {
		t.Errorf("%+v", l)
	}
}

// A run that was cut short and the one that played the rest make one report; a whole row is worth more than half of it.
// What failed in one of them stays failed, whatever the others say.
func TestMerge(t *testing.T) {
	rows := []Row{
		{Name: "one", Situation: "s1", Cases: make([]Case, 2)},
		{Name: "two", Situation: "s2", Cases: make([]Case, 1)},
		{Name: "three", Situation: "s3", Cases: make([]Case, 1)},
	}
	first := Collect(rows, []Measured{{Row: "one", Case: "x"}, {Row: "one", Case: "y"}, {Row: "two", Case: "old"}}, "no time")
	second := Collect(rows, []Measured{{Row: "one", Case: "x"}, {Row: "two", Case: "new"}}, "not asked for")
	broken := Collect(rows, []Measured{{Row: "two", Case: "old", Failed: "17 acknowledged writes lost"}}, "no time")
	first.Commit, second.Commit, broken.Commit = "c1", "c2", "c0"
	l := Merge(rows, []Liveness{*first, *second})
	if len(l.Rows) != 2 || len(l.Rows[0].Cases) != 2 || l.Rows[1].Cases[0].Case != "new" || l.Liveness != "ok" || l.Commit != "c1, c2" {
		t.Errorf("%+v", l)
	}
	for name, runs := range map[string][]Liveness{"before": {*broken, *first, *second}, "after": {*first, *second, *broken}} {
		l := Merge(rows, runs)
		if l.Liveness != "failed" || len(l.Failed) != 1 || l.Rows[1].Green || !l.Rows[0].Green {
			t.Errorf("%s: %+v", name, l)
		}
		var page strings.Builder
		if err := l.WriteMatrix(&page, rows); err != nil {
			t.Fatal(err)
		}
		if shown, err := MatrixRows(page.String()); err != nil || !slices.Equal(shown, []string{"one"}) {
			t.Errorf("%s: the matrix shows %v, %v", name, shown, err)
		}
	}
	left := *first
	left.Liveness, left.Leftovers = "failed", 3
	if l := Merge(rows, []Liveness{left, *second}); l.Liveness != "failed" || l.Leftovers != 3 {
		t.Errorf("what a run left behind: %+v", l)
	}
}

// The failure matrix in the tree parses, shows only rows that this release knows, and names the others below.
func TestMatrixInTree(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("../..", MatrixFile))
	if err != nil {
		t.Fatal(err)
	}
	shown, err := MatrixRows(string(page))
	if err != nil || len(shown) == 0 {
		t.Fatalf("%s shows %d rows, %v (make liveness writes it)", MatrixFile, len(shown), err)
	}
	rows := Rows()
	for i, name := range shown {
		if !slices.ContainsFunc(rows, func(r Row) bool { return r.Name == name && r.Reason == "" }) || slices.Contains(shown[:i], name) {
			t.Errorf("%s shows row %q, which is unknown, unmeasured or twice", MatrixFile, name)
		}
	}
	for _, row := range rows {
		if below := MatrixNames(string(page), row); below == slices.Contains(shown, row.Name) {
			t.Errorf("%s: row %s is neither shown nor named as not measured, or both", MatrixFile, row.Name)
		}
	}
}

// A freeze by design counts only if the node says that it holds, for whom it waits, and shows the fault.
func TestSaysWhy(t *testing.T) {
	good := api.Site{
		Word: "frozen", WaitsFor: "the witness or node b", Faults: []api.Fault{{Code: "NET-7002"}, {Code: frozenCode}},
		Sentence: "demo: frozen. I/O is held, nothing is lost. Node a waits for: the witness or node b.",
	}
	if !saysWhy(good, "the witness") {
		t.Error("a good reason did not count")
	}
	for name, spoil := range map[string]func(*api.Site){
		"another word":           func(s *api.Site) { s.Word = "at risk" },
		"waits for nobody":       func(s *api.Site) { s.WaitsFor = "" },
		"waits for another":      func(s *api.Site) { s.WaitsFor = "node b" },
		"the sentence is silent": func(s *api.Site) { s.Sentence = "demo: frozen." },
		"no fault":               func(s *api.Site) { s.Faults = s.Faults[:1] },
	} {
		bad := good
		if spoil(&bad); saysWhy(bad, "the witness") {
			t.Errorf("%s: it counted", name)
		}
	}
}
