// Package tidy holds the rules of this repository as ordinary Go tests: what must hold is checked, not hoped for.
//
// A rule is a function from a file tree to findings; it reads nothing else, so each rule also runs on a little tree of
// its own, the canary, in which it must find exactly what was planted. A rule without a canary does not run: a checker
// that cannot fail proves nothing. The rules need the standard library only and guard a machine that has no linter.
//
// Directions of imports come from the table in docs/architecture.md between its markers, so that the picture which
// people read is the one that is enforced. Findings name the file, the line where there is one, and what to do.
//
// It refuses to judge taste: length and wording are for reviewers. It skips what git ignores, and testdata where a rule
// is about the code that ships.
package tidy
