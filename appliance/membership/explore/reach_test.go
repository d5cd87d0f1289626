package explore

import "testing"

// The situations of protocol.md section 12.2, as far as the rules of this core cover them.
func TestReach(t *testing.T) {
	for _, row := range Rows {
		r, err := row.Reach()
		if err != nil {
			t.Errorf("%s: %v", row.Situation, err)
			continue
		}
		t.Logf("%-55s %d states, %d stuck", row.Situation, r.States, r.Stuck)
		if (r.Stuck == 0) != row.Always {
			w := &r.Example
			t.Errorf("%s: %d of %d states never serve again, wanted always: %t\n%v | %v | %v",
				row.Situation, r.Stuck, r.States, row.Always, &w.N[0], &w.N[1], w.witness())
		}
	}
}
