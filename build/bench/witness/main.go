// Command witness measures what one duet-witness costs: `make bench-witness`.
//
// The witness is the real program, alone on one core, over its real store on this machine's disk, with real TLS 1.3 and
// pinned keys. Beside it this process plays both nodes of every site: each keeps one connection and asks for STATUS each
// 30 s, as duetd does. Both are in a network namespace of their own, so that the kernel's count of bytes is theirs
// alone (IP, TCP and TLS included). Then a storm: a thousand sites ask for the vote at the same moment. It needs root.
//
// It ends with one JSON line; targets_missed names what was promised and not reached. Exit status 1 is a run that could
// not be measured, never a missed target.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// options of a run.
type options struct {
	program string
	sites   int
	storm   int
	idle    time.Duration
	renew   time.Duration
	inside  bool
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("witness", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.program, "witness", "bin/duet-witness", "the program to measure")
	flags.IntVar(&o.sites, "sites", 10_000, "simulated sites, two nodes each")
	flags.IntVar(&o.storm, "storm", 1000, "sites that ask for the vote at once")
	flags.DurationVar(&o.idle, "idle", 60*time.Second, "how long the idle sites are measured")
	flags.DurationVar(&o.renew, "renew", 30*time.Second, "between two STATUS of a node")
	flags.BoolVar(&o.inside, "inside", false, "already in the namespace (used by the program itself)")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	var err error
	if o.inside {
		err = measure(ctx, o, stdout, stderr)
	} else {
		err = isolated(ctx, args, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench-witness:", err)
		return 1
	}
	return 0
}
