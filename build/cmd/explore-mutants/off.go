//go:build !mutants

// Command explore-mutants works only when it is built with the tag mutants.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "explore-mutants: build it with -tags mutants")
	os.Exit(2)
}
