// Command scenario plays episodes in the lab and judges them: `make run`, `make demo`, `make soak`, `make liveness` and
// `make chaos`.
//
//	scenario run      brings up a whole site and keeps it until Ctrl-C
//	scenario demo     power cuts, witness and links, unattended; ends in one line of JSON
//	scenario soak     N random power-cut cycles; ends in one line of JSON
//	scenario liveness the liveness table, measured; ends in one line of JSON
//	scenario matrix   the failure matrix as a page, from that line on standard input
//	scenario chaos    N random fault episodes from a seed; ends in one line of JSON
//	scenario probe    (inside a node) the block client of the oracles
//	scenario readback (inside a node) what the probe's blocks hold now
//	scenario pgwriter (inside the client) writes to the database, and notes what it was told
//
// Progress goes to stderr, results to stdout. Exit code 0: nothing was lost, nothing ran twice and, for the demo, no
// target was missed; 1: not so; 2: usage.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"duet/build/lab"
)

func main() {
	lab.Reexec()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
