// Command mirror measures what mirroring costs: `make bench-mirror`.
//
// Two real duet-mirrord in two network namespaces, a veth between them, TCP; once with TLS, as in the product unless its cable
// is inside the chassis, and once without. Legs are full of random data. Beside them, on the same file system: the raw file, one copy behind QEMU's storage daemon, and QEMU's
// quorum over a unix socket and over TCP through the same veth. For each job all of them in turn, in an order drawn
// from a printed seed, round after round. Every figure that counts is a ratio within one round: a machine that is slow
// for a while is slow for all. Both legs share one disk here, which R2 (two raw files at once) puts a number to.
//
// The QEMU graphs have real flushes and no sums, no log, no rejoin; the one over a unix socket has no network either.
//
// It ends with one JSON line. targets_missed names rows whose floor was missed, goals_missed those whose goal was. quiet
// says whether the result may be published: raw spreads by at most a quarter, and others use at most half a core.
// Exit status 1 is a run that could not be measured, never a missed target; with -gate also a gate that failed: CPU per
// mirrored write against QEMU's quorum, and operations that wait 40 ms for nothing. It needs root, and leaves nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
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
	program  string
	jobs     string
	subjects string
	rounds   int
	length   time.Duration
	mib      int
	seed     uint64
	gate     bool
	profile  string
	update   string
	inside   string // the folder of legs; empty: not in the namespace yet
	sockets  string
}

var errGate = errors.New("a gate failed")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	var seconds float64
	flags := flag.NewFlagSet("mirror", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.program, "mirrord", "bin/duet-mirrord", "the program to measure")
	flags.StringVar(&o.jobs, "jobs", "", "only these jobs, separated by commas (default: all; -jobs list names them)")
	flags.StringVar(&o.subjects, "subjects", "", "only these beside raw, separated by commas: "+strings.Join(subjectNames, ", "))
	flags.IntVar(&o.rounds, "rounds", 5, "rounds of every job")
	flags.Float64Var(&seconds, "seconds", 3, "length of a cell")
	flags.IntVar(&o.mib, "mib", 512, "size of a leg")
	flags.Uint64Var(&o.seed, "seed", 0, "order of the cells (default: drawn and printed)")
	flags.BoolVar(&o.gate, "gate", false, "the gates: exit status 1 when one fails")
	flags.StringVar(&o.profile, "profile", "", "one more cell a job, with a perf profile of both daemons in this folder")
	flags.StringVar(&o.update, "update", "", "write the tables into this document, between its markers")
	flags.StringVar(&o.inside, "inside", "", "already in the namespace (used by the program itself)")
	flags.StringVar(&o.sockets, "sockets", "", "folder of sockets (used by the program itself)")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if o.jobs == "list" {
		for _, j := range jobs {
			fmt.Fprintf(stdout, "%-18s %s\n", j.Name, j.Text)
		}
		return 0
	}
	o.length = time.Duration(seconds * float64(time.Second))
	if o.seed == 0 {
		o.seed = uint64(rand.Uint32())
	}
	if err := o.check(); err != nil {
		fmt.Fprintln(stderr, "bench-mirror:", err)
		return 2
	}
	var err error
	if o.inside != "" {
		err = measure(ctx, o, stdout, stderr)
	} else {
		err = isolated(ctx, o, args, stdout, stderr)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
		return exit.ExitCode() // the other process has said why
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench-mirror:", err)
		return 1
	}
	return 0
}

func (o options) check() error {
	if o.rounds < 1 || o.length < time.Second/2 || o.mib < 8 {
		return errors.New("at least 1 round, 0.5 s and 8 MiB")
	}
	if _, err := chosen(o.jobs, o.gate); err != nil {
		return err
	}
	_, err := chosenSubjects(o.subjects, o.gate)
	return err
}
