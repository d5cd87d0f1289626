package explore

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestComplete visits the small worlds whole, those with clocks as far as a test has time (make explore does the rest).
func TestComplete(t *testing.T) {
	for _, p := range Complete {
		bounds := Bounds{States: 200_000}
		if p.Clocks || p.Large {
			bounds.States = 30_000
		}
		r := p.BFS(bounds)
		t.Log(r)
		if r.Violation != nil {
			t.Errorf("%v", r.Violation)
		} else if !r.Complete && !p.Clocks && !p.Large {
			t.Errorf("%s is not complete", p.Name)
		}
	}
}

// TestWalks walks a little with new seeds in each run.
func TestWalks(t *testing.T) {
	for _, p := range Wide {
		r := p.Walks(uint64(time.Now().UnixNano()), 300, time.Now().Add(2*time.Second))
		t.Log(r)
		if v := r.Violation; v != nil {
			t.Errorf("seed %d %v\n%s", v.Seed, v, v.Actions())
		}
	}
}

func TestSeeds(t *testing.T) {
	n, err := Replay(os.DirFS("."))
	if err != nil {
		t.Error(err)
	}
	if n == 0 {
		t.Error("no seeds")
	}
}

// The checks can fail: each sees a world that was spoilt by hand. That a search finds a violation, and that its seed repeats
// it, is a test of the mutant gate.
func TestChecksSeeASpoiltWorld(t *testing.T) {
	p := Params{Name: "spoilt", Start: FromPaired, Eager: true, Witness: true, Budget: Budget{Cut: 1}}
	begin, err := p.Begin()
	if err != nil {
		t.Fatal(err)
	}
	begin.N[0].Disk.Owners[1].Node ^= 1 // a runs what its record gives to b
	if err := p.Check(&begin); err == nil || !strings.HasPrefix(err.Error(), "I10") {
		t.Errorf("I10 is not seen: %v", err)
	}
	begin, _ = p.Begin()
	begin.N[1].Run = begin.N[0].Run
	if err := p.Check(&begin); err == nil || !strings.HasPrefix(err.Error(), "I1 ") {
		t.Errorf("I1 is not seen: %v", err)
	}
	begin, _ = p.Begin()
	begin.Acked[0] = 1
	if err := p.Check(&begin); err == nil || !strings.HasPrefix(err.Error(), "I3") {
		t.Errorf("I3 is not seen: %v", err)
	}
	begin, _ = p.Begin()
	begin.N[0].Core.Push.Nonce, begin.N[0].Armed = 1, 0
	if err := p.Check(&begin); err == nil || !strings.HasPrefix(err.Error(), "asks-again") {
		t.Errorf("asks-again is not seen: %v", err)
	}
	begin, _ = p.Begin()
	begin.Forced = true
	begin.Store[0].Content.Epoch = 9
	if err := p.Check(&begin); err == nil || !strings.HasPrefix(err.Error(), "I13") {
		t.Errorf("I13 is not seen after an override: %v", err)
	}
}

func TestActionsParse(t *testing.T) {
	for k := range kindCount {
		a := Action{k, 1, 3}
		if got, err := ParseAction(a.String()); err != nil || got != a {
			t.Errorf("%v: %v, %v", a, got, err)
		}
	}
	for _, bad := range []string{"", "a", "c crash 0", "a nothing 0", "a crash x"} {
		if _, err := ParseAction(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestMain_exitCodes(t *testing.T) {
	var out, errs strings.Builder
	if code := Main([]string{"-budget", "200ms", "-world", "walk-cuts", "-seed", "5"}, &out, &errs); code != 0 {
		t.Errorf("code %d: %s", code, errs.String())
	}
	if !strings.HasPrefix(out.String(), `{"states":`) || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("stdout is not one JSON line: %s", out.String())
	}
	if code := Main([]string{"-world", "nowhere"}, &out, &errs); code != 2 {
		t.Errorf("unknown world: code %d", code)
	}
}
