// Command duet-mirrord is the data plane of a node: it keeps the legs of the mirrored volumes, the data lane to
// the other node and the NBD socket of the guests. It serves nothing before duetd, over the control socket, has
// told it what exists and has granted a right, and it holds everything when that right ends.
//
// It needs a run directory (sockets) and a pool directory (legs). The NBD socket is taken from the service
// manager when it passes one (LISTEN_FDS, named "nbd"), so that a guest that connects during a restart waits
// instead of failing. SIGTERM is a planned stop: requests in progress end, legs are closed clean.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with everything explicit: 0 a planned stop, 1 a failure, 2 wrong use.
func run(ctx context.Context, args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("duet-mirrord", flag.ContinueOnError)
	flags.SetOutput(stderr)
	runDir := flags.String("run", "/run/duet", "directory of the sockets")
	poolDir := flags.String("pool", "/pool", "directory of the legs")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() != 0 {
		fmt.Fprintf(stderr, "duet-mirrord: unexpected argument %q\n", flags.Arg(0))
		return 2
	}
	if err := serve(ctx, *runDir, *poolDir, stderr); err != nil {
		fmt.Fprintf(stderr, "duet-mirrord: %v\n", err)
		return 1
	}
	return 0
}
