//go:build mutants

package explore

import "duet/appliance/membership"

const prune = false

func mutant(id string) bool { return id == membership.Mutant }

// unmutated lets a world begin as it should, and gives back what undoes that.
func unmutated() func() {
	old := membership.Mutant
	membership.Mutant = ""
	return func() { membership.Mutant = old }
}
