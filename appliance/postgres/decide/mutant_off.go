//go:build !mutants

package decide

// mutant says whether a guard is switched off on purpose. Never in what is shipped: the constant makes the compiler drop
// the switch.
func mutant(string) bool { return false }
