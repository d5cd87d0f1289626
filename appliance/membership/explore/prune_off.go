//go:build mutants

package explore

import "duet/appliance/membership"

// prune is not allowed where the core believes answers to dead nonces.
func prune() bool { return !mutant("M17") }

func mutant(id string) bool { return id == membership.Mutant }

// unmutated lets a world begin as it should, and gives back what undoes that.
func unmutated() func() {
	old := membership.Mutant
	membership.Mutant = ""
	return func() { membership.Mutant = old }
}
