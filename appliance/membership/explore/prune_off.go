//go:build mutants

package explore

import "duet/appliance/membership"

// prune is not allowed where a mutant believes what the core ignores: answers to dead nonces and attempts, messages and
// frames of ended sessions.
func prune() bool {
	switch membership.Mutant {
	case "M17", "M8", "M23", "N7b", "N21", "N22":
		return false
	}
	return true
}

func mutant(id string) bool { return id == membership.Mutant }

// unmutated lets a world begin as it should, and gives back what undoes that.
func unmutated() func() {
	old := membership.Mutant
	membership.Mutant = ""
	return func() { membership.Mutant = old }
}
