//go:build !mutants

package explore

// Without is the mutant "W without the joiner", of the membership core and not of Step.
const Without = false
