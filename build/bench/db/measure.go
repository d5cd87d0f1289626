package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"time"

	"duet/build/pgwriter"
	"duet/build/scenario"
)

// episode is one fault on one pair.
type episode struct {
	Pair, Fault  string
	Outage       time.Duration // longest time between two acknowledged commits, from before the fault until in sync again
	Return       time.Duration // the same since the node was switched on again; 0: none was off
	InSync       time.Duration // from the fault until either node can be lost again; a node that was off is switched on at once when writes go on
	Lost, Twice  int
	TwoPrimaries string
	Failure      string // empty: it came back by itself
}

// phase is drawn for each episode: faults fall anywhere in the loops of whoever watches, the longest of which takes as long.
const phase = 10 * time.Second

// steady is what writers do before a fault, and after it before it counts as over.
const steady = 100

func measure(ctx context.Context, o options, stdout io.Writer) error {
	// Children of a lab are killed when the thread that started it ends; this one ends with the process.
	runtime.LockOSThread()
	before, err := scenario.Footprint(o.state)
	if err != nil {
		return err
	}
	f := newFigures(ctx, o)
	o.progress("seed %d, %d runs; %s", o.seed, o.runs, f.Versions)
	rng := rand.New(rand.NewPCG(o.seed, 0))
	meter := startMeter(ctx)
	var all []episode
	for round := range o.runs {
		for _, i := range rng.Perm(len(o.pairs)) {
			some, err := playRound(ctx, o, o.pairs[i], round, rng)
			all = append(all, some...)
			if err != nil {
				return errors.Join(fmt.Errorf("%s: %w", o.pairs[i], err), os.RemoveAll(o.state))
			}
		}
	}
	f.Foreign, f.ForeignMax = meter.stop()
	f.take(o, all)
	left, err := scenario.Leftovers(context.WithoutCancel(ctx), o.state, before)
	if err != nil {
		return err
	}
	for _, l := range left {
		o.progress("LEFT BEHIND: %s", l)
	}
	f.Leftovers = len(left)
	if err := os.RemoveAll(o.state); err != nil {
		return err
	}
	if o.update != "" {
		text, err := os.ReadFile(o.update)
		if err != nil {
			return err
		}
		if text, err = replaceGenerated(text, f.tables()); err != nil {
			return fmt.Errorf("%s: %w", o.update, err)
		}
		if err := os.WriteFile(o.update, text, 0o644); err != nil {
			return err
		}
	}
	return json.NewEncoder(stdout).Encode(f)
}

// playRound brings a pair up, plays every fault once, and ends it. A fault from which it did not come back ends the round.
func playRound(ctx context.Context, o options, name string, round int, rng *rand.Rand) (all []episode, err error) {
	o.progress("run %d of %d: %s: bringing it up", round+1, o.runs, name)
	p, err := up(ctx, o, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.down()) }()
	primary, err := waitInSync(ctx, p, syncLimit)
	if err != nil {
		return nil, err
	}
	if err := prepare(ctx, p, primary); err != nil {
		return nil, err
	}
	w := write(p)
	defer w.stop()
	var lost, twice int
	for _, f := range faults {
		if !slices.Contains(o.faults, f.name) {
			continue
		}
		e, err := playFault(ctx, p, w, f, time.Duration(rng.Int64N(int64(phase))))
		e.Pair = name
		if ctx.Err() != nil {
			return all, ctx.Err()
		}
		if err != nil {
			e.Failure = err.Error()
			all = append(all, e)
			o.progress("run %d: %s: %s: FAILED: %v", round+1, name, f.name, err)
			return all, keep(p, o, name, round)
		}
		// A row that is gone stays gone.
		e.Lost, lost = e.Lost-lost, e.Lost
		e.Twice, twice = e.Twice-twice, e.Twice
		all = append(all, e)
		o.progress("run %d: %s: %s: no commit for %.2f s, in sync after %.1f s, lost %d %s", round+1, name, f.name,
			e.Outage.Seconds(), e.InSync.Seconds(), e.Lost, e.TwoPrimaries)
	}
	return all, nil
}

func playFault(ctx context.Context, p pair, w *writers, f fault, after time.Duration) (episode, error) {
	e := episode{Fault: f.name}
	primary, err := waitInSync(ctx, p, syncLimit)
	if err == nil {
		err = w.more(ctx, steady)
	}
	if err == nil {
		err = pause(ctx, after)
	}
	if err != nil {
		return e, fmt.Errorf("before the fault: %w", err)
	}
	began := time.Now()
	off, err := f.play(ctx, p, primary)
	if err == nil {
		err = w.more(ctx, steady)
	}
	if err != nil {
		e.Outage = time.Since(began)
		return e, err
	}
	returned := time.Now()
	if off != "" {
		if err := p.site().On(ctx, off); err != nil {
			return e, err
		}
	}
	primary, err = waitInSync(ctx, p, syncLimit)
	e.InSync = time.Since(began)
	if err != nil {
		return e, err
	}
	if err := w.more(ctx, steady); err != nil {
		return e, err
	}
	ended := time.Now()
	v, ops, err := w.judge(ctx, primary)
	if err != nil {
		return e, err
	}
	e.Lost, e.Twice, e.TwoPrimaries = len(v.Lost), len(v.Twice), v.TwoPrimaries
	e.Outage = longest(ops, began, ended)
	if off != "" {
		e.Return = longest(ops, returned, ended)
	}
	return e, nil
}

// longest is the longest time between two acknowledgements that touches a span.
func longest(ops []pgwriter.Op, from, to time.Time) time.Duration {
	var ends []int64
	for _, o := range ops {
		if o.State == pgwriter.Acked {
			ends = append(ends, o.End)
		}
	}
	slices.Sort(ends)
	var gap int64
	for i := 1; i < len(ends); i++ {
		if ends[i] >= from.UnixMicro() && ends[i-1] <= to.UnixMicro() {
			gap = max(gap, ends[i]-ends[i-1])
		}
	}
	return time.Duration(gap) * time.Microsecond
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// keep saves the logs of a pair that did not come back.
func keep(p pair, o options, name string, round int) error {
	where := fmt.Sprintf("%s-%s-%d", o.state, name, round+1)
	o.progress("its logs are in %s", where)
	for _, machine := range []string{"a", "b", "witness"} {
		from := os.DirFS(p.site().State() + "/" + machine + "/log")
		if err := os.CopyFS(where+"/"+machine, from); err != nil {
			return err
		}
	}
	return nil
}
