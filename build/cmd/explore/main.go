// Command explore searches the membership core for violated invariants: seeds first, then small worlds to completion,
// deep ones to a depth, and random walks, for a time. It ends with one JSON line on stdout; exit 1 means a violation,
// whose shortest known trace is on stderr.
package main

import (
	"os"

	"duet/appliance/membership/explore"
)

func main() { os.Exit(explore.Main(os.Args[1:], os.Stdout, os.Stderr)) }
