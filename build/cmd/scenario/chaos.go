package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"duet/build/scenario"
)

// runChaos plays random fault episodes and ends in one line of JSON.
func runChaos(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	n := flags.Int("n", 1000, "episodes")
	seed := flags.Uint64("seed", 0, "of the schedule; 0: a fresh one")
	from := flags.Int("from", 1, "the first episode that is played: to come to a late one quickly")
	budget := flags.Duration("budget", 24*time.Hour, "no episode begins after this time")
	list := flags.Bool("list", false, "print the schedule, and end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *from < 1 || *from > *n {
		return fmt.Errorf("-from %d: must be from 1 to %d", *from, *n)
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	schedule := scenario.Schedule(*seed, *n)[*from-1:]
	schedule[0].Rush = false // there is nothing before it
	fmt.Fprintf(stderr, "chaos: to repeat this schedule: make chaos N=%d SEED=%d\n", *n, *seed)
	if *list {
		for _, e := range schedule {
			fmt.Fprintln(stdout, e)
		}
		return nil
	}
	r := scenario.NewChaosReport(*seed)
	left, err := staged(ctx, "chaos", *seed, scenario.Small, stderr, func(g *scenario.Stage) error {
		return g.Chaos(ctx, schedule, *budget, r)
	})
	r.Leftovers = left
	if err != nil {
		r.Failures = append(r.Failures, err.Error())
	}
	r.Chaos = "ok"
	if !r.Safe() {
		r.Chaos = "failed"
	}
	err = errors.Join(err, r.Write(stdout))
	if err == nil && r.Chaos != "ok" {
		return fmt.Errorf("not ok: %d of %d episodes failed", len(r.Failures), r.Episodes)
	}
	return err
}
