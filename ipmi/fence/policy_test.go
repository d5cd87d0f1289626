package fence

import "testing"

var verdicts = []Verdict{Unknown, Confirmed, Refused}

// sets are all sets of evidence: three verdicts of BMC, outlets and load, a person's word or none, a contradiction or none.
func sets() []Seen {
	var all []Seen
	for _, bmc := range verdicts {
		for _, outlets := range verdicts {
			for _, load := range verdicts {
				for _, person := range []Verdict{Unknown, Confirmed} {
					for _, contradiction := range []bool{false, true} {
						all = append(all, Seen{bmc, outlets, load, person, contradiction})
					}
				}
			}
		}
	}
	return all
}

// row is one line of the table of hardware.md section 4.2, as it stands there.
type row struct {
	name   string
	holds  func(s Seen, strict bool) bool
	allows Allows
}

// The rows in the order of their weight; the first that holds decides. This is the table written a second time: by rows,
// not by cases.
var rows = []row{
	{"Person", func(s Seen, _ bool) bool { return s.Person == Confirmed }, Allows{StartResources: true, WitnessLess: true, Latch: true}},
	{"contradiction", func(s Seen, _ bool) bool { return s.Contradiction }, Allows{}},
	{"LoadGone refused", func(s Seen, _ bool) bool { return s.Load == Refused }, Allows{}},
	{"strict, not both", func(s Seen, strict bool) bool { return strict && (s.BMC != Confirmed || s.Outlets != Confirmed) }, Allows{}},
	{"OutletsOff confirmed, with or without LoadGone", func(s Seen, _ bool) bool { return s.Outlets == Confirmed }, Allows{true, true, true, true, false}},
	{"BMCOff confirmed", func(s Seen, _ bool) bool { return s.BMC == Confirmed }, Allows{StartResources: true, WitnessLess: true, PowerOnByBMC: true}},
	{"nothing confirmed", func(Seen, bool) bool { return true }, Allows{}},
}

// next is what the survivor does with a set of evidence, and when nothing of it can be done, what it waits for: the model
// in which N-14 is asked. Arbitration by the witness has given authority already.
func next(a Allows, witness bool, turn Turn, since Boottime) (does string, until Boottime) {
	switch {
	case witness && a.StartResources:
		return "starts at once", since
	case witness:
		return "starts by peerWait", 6 * Second // R8: no evidence is needed
	case a.WitnessLess:
		return "solo", since
	case turn.Means != Looking:
		return "switches", turn.End
	default:
		return "looks until its turn", turn.Next
	}
}

// Proves: F-08, T-04, N-14. Every set of evidence × strict or not × witness or fence × both nodes' turns.
func TestEverySet(t *testing.T) {
	combinations, hits := 0, map[string]int{}
	for _, s := range sets() {
		for _, strict := range []bool{false, true} {
			var want Allows
			for _, r := range rows {
				if r.holds(s, strict) {
					want = r.allows
					hits[r.name]++
					break
				}
			}
			got := Allow(s, strict)
			if got != want {
				t.Errorf("%+v, strict %v: allows %+v, the table says %+v", s, strict, got, want)
			}
			if whole := s.Whole(strict); (whole == Confirmed) != got.StartResources || (s.Contradiction && s.Person != Confirmed && whole != Unknown) {
				t.Errorf("%+v, strict %v: whole verdict %s", s, strict, whole)
			}
			if got.Latch && (got.PowerOnByBMC || got.OutletsOnFirst) {
				t.Errorf("%+v: latched off and switched on by itself", s)
			}
			for _, witness := range []bool{true, false} {
				for _, first := range []bool{true, false} {
					for since := Boottime(0); since < 60*Second; since += Second {
						combinations++
						turn := TurnAt(since, first)
						does, until := next(got, witness, turn, since)
						if does == "" || until > since+longRound && !witness {
							t.Errorf("%+v, witness %v, first %v, %d s: wedged, %q until %d s", s, witness, first, since/Second, does, until/Second)
						}
						if does == "solo" && s.Person != Confirmed && (s.Contradiction || s.Load == Refused) {
							t.Errorf("%+v: solo on evidence that speaks against itself", s)
						}
					}
				}
			}
			withPerson := s
			withPerson.Person = Confirmed
			if a := Allow(withPerson, strict); !a.StartResources || !a.WitnessLess {
				t.Errorf("%+v: a person cannot end it", s)
			}
		}
	}
	for _, r := range rows {
		if hits[r.name] == 0 {
			t.Errorf("no set reaches the row %q", r.name)
		}
	}
	t.Logf("%d sets of evidence, %d with strict, %d combinations with arbitration and turn", len(sets()), 2*len(sets()), combinations)
}

// More doubt never allows more, and more evidence never allows less.
func TestPolicyIsMonotone(t *testing.T) {
	less := func(a, b Allows) bool { // a allows nothing that b does not
		return (!a.StartResources || b.StartResources) && (!a.WitnessLess || b.WitnessLess)
	}
	for _, s := range sets() {
		for _, strict := range []bool{false, true} {
			for name, worse := range map[string]Seen{
				"contradiction": {s.BMC, s.Outlets, s.Load, s.Person, true},
				"load refused":  {s.BMC, s.Outlets, Refused, s.Person, s.Contradiction},
				"no BMC":        {Unknown, s.Outlets, s.Load, s.Person, s.Contradiction},
				"no outlets":    {s.BMC, Unknown, s.Load, s.Person, s.Contradiction},
			} {
				if !less(Allow(worse, strict), Allow(s, strict)) {
					t.Errorf("%+v, then %s: allows more", s, name)
				}
			}
			if !less(Allow(s, true), Allow(s, false)) {
				t.Errorf("%+v: strict allows more", s)
			}
		}
	}
}

// The zero evidence is unknown, a person's word counts, and what the machine saw is carried in it.
func TestEvidence(t *testing.T) {
	if (Evidence{}).Verdict != Unknown || (Evidence{}).Policy(false) != (Allows{}) {
		t.Error("the zero evidence allows something")
	}
	e := ByPerson(B, 57, 3*Second, "anna")
	if e.Verdict != Confirmed || e.Epoch != 57 || e.Node != B || !e.Policy(true).Latch || e.Why != "confirmed by person: anna" {
		t.Errorf("%+v", e)
	}
}
