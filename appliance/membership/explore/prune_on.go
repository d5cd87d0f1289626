//go:build !mutants

package explore

// prune allows Canonical to remove what the unmutated core ignores.
func prune() bool { return true }

// mutant says whether a guard of the model's surroundings is switched off. Never without the tag mutants.
func mutant(string) bool { return false }

func unmutated() func() { return func() {} }
