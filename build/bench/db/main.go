// Command db measures how long a database pair does not take writes: `make bench-pg`.
//
// The same writers, the same laboratory, the same faults for three pairs: duet's, and Patroni's with etcd, with its
// default timings and with the smallest that it documents, both with synchronous_mode, so that an acknowledged commit is
// worth the same. Patroni is Debian's own program with an ordinary configuration (patroni.yml); its two nodes take the
// places of nodes a and b, its etcd that of the witness. Cables, drives and the order of a power cut are the lab's, so a
// node that dies says no farewell to anybody, and its drives forget what was not synced. Only duet is told that there is
// a BMC and a PDU; only duet has service addresses, and Patroni's clients know both nodes and look for the one that takes
// writes, as libpq's target_session_attrs does.
//
// A round brings up each pair anew, in an order drawn from the printed seed, and plays every fault once, at a random moment
// of the loops of whoever watches. The outage is the longest time between two acknowledged commits, over all writers, from
// before the fault until the pair is in sync again. After every fault each acknowledged row is looked for.
//
// It ends with one line of JSON on stdout. targets_missed names what duet missed, targets_open what this run could not
// say. Exit status 1 is a run that could not be measured, never a missed target. It needs root, and leaves nothing running.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"duet/build/lab"
)

func main() {
	lab.Reexec()
	if len(os.Args) > 2 && os.Args[1] == askVerb { // inside a node
		os.Exit(ask(os.Args[2], os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options of a run.
type options struct {
	runs     int
	pairs    []string
	faults   []string
	seed     uint64
	bin      string
	state    string
	update   string
	progress func(format string, args ...any)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o := options{}
	flags := flag.NewFlagSet("db", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.runs, "runs", 5, "how often every fault is played on every pair")
	pairs := flags.String("pairs", strings.Join(pairNames, ","), "which pairs")
	faults := flags.String("faults", strings.Join(faultNames(), ","), "which faults")
	flags.Uint64Var(&o.seed, "seed", 0, "order of the pairs and moments of the faults (default: drawn and printed)")
	flags.StringVar(&o.bin, "bin", "", "folder of duet's programs and of this one (default: where this one is)")
	flags.StringVar(&o.update, "update", "", "write the tables into this document, between its markers")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	err := o.fill(*pairs, *faults)
	if err != nil {
		fmt.Fprintln(stderr, "bench-pg:", err)
		return 2
	}
	started := time.Now()
	o.progress = func(format string, args ...any) {
		fmt.Fprintf(stderr, "%6.0f s  %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	}
	if err := measure(ctx, o, stdout); err != nil {
		fmt.Fprintln(stderr, "bench-pg:", err)
		return 1
	}
	return 0
}

// fill gives what was not given, and refuses what is unknown.
func (o *options) fill(pairs, faults string) error {
	if o.runs < 1 {
		return errors.New("-runs: at least 1")
	}
	var err error
	if o.pairs, err = chosen(pairs, pairNames); err != nil {
		return err
	}
	if o.faults, err = chosen(faults, faultNames()); err != nil {
		return err
	}
	if o.seed == 0 {
		o.seed = uint64(rand.Uint32())
	}
	if o.bin == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		o.bin = filepath.Dir(self)
	}
	o.state, err = filepath.Abs(filepath.Join("out", "lab", fmt.Sprintf("bench-pg-%d", os.Getpid())))
	return err
}

// chosen are the names of a list, in the order of all.
func chosen(list string, all []string) ([]string, error) {
	wanted := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		wanted[name] = true
	}
	var some []string
	for _, name := range all {
		if wanted[name] {
			some = append(some, name)
			delete(wanted, name)
		}
	}
	for name := range wanted {
		return nil, fmt.Errorf("%q: one of %s", name, strings.Join(all, ", "))
	}
	return some, nil
}
