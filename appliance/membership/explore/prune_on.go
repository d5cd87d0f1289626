//go:build !mutants

package explore

// prune allows Canonical to remove what the unmutated core ignores.
const prune = true
