//go:build mutants

package explore

import "testing"

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
