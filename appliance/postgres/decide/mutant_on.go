//go:build mutants

package decide

// Mutant is the guard that is switched off. Only test binaries built with the tag mutants have it.
var Mutant string

func mutant(id string) bool { return id == Mutant }
