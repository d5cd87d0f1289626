// Command duet-leg reads a leg that nobody has open: what it says about itself, and whether its data is what was written.
//
//	duet-leg dump  [--json] DIR
//	duet-leg check [--json] [--progress] [--limit N] DIR
//
// DIR is the folder of the leg with the files data and meta. Both are opened for reading alone, under a lock that keeps
// duet-mirrord away, and nothing is ever written, synced or repaired: a leg that is all that is left of a volume may be looked
// at without a risk, also on a read-only medium. A leg that is damaged is told about as far as it can be read.
//
// Exit status: 0 nothing is wrong, 1 something wrong was found, 2 the leg could not be read to its end, or wrong usage.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it in a read that hangs, too
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}
