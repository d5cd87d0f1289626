//go:build mutants

package explore

const prune = false
