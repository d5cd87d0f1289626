//go:build mutants

// Command explore-mutants switches the guards of the membership core off, one after the other, and demands that the
// searches of explore notice (protocol.md section 12.5). It is built with the tag mutants; nothing that ships has it.
// It ends with one JSON line on stdout; exit 1 means that a guard can go unnoticed.
package main

import (
	"os"

	"duet/appliance/membership/explore"
)

func main() { os.Exit(explore.Gate(os.Stdout, os.Stderr)) }
