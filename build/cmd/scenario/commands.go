package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"duet/build/lab"
	"duet/build/pgwriter"
	"duet/build/probe"
	"duet/build/scenario"
)

const nbdSocket = "/run/duet/nbd.sock"

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	commands := map[string]func(context.Context, []string, io.Writer, io.Writer) error{
		"run": runSite, "demo": runDemo, "soak": runSoak,
		"liveness": runLiveness, "matrix": runMatrix, "chaos": runChaos, "probe": runProbe, "readback": runReadback,
		"pgwriter": runPGWriter,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprintln(stderr, "usage: scenario run|demo|soak|liveness|matrix|chaos|probe|readback|pgwriter [flags]")
		return 2
	}
	err := commands[args[0]](ctx, args[1:], stdout, stderr)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 2
	}
	fmt.Fprintf(stderr, "scenario %s: %v\n", args[0], err)
	return 1
}

// teller prints what happens, with the seconds since the start.
func teller(stderr io.Writer) func(string, ...any) {
	started := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(stderr, "%6.1f s  %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	}
}

func runSite(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.SetOutput(stderr)
	name := flags.String("name", "demo", "name of the lab: several may run beside each other")
	if err := flags.Parse(args); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "duet lab %q: two nodes, a witness, two BMCs and a PDU on this machine\n", *name)
	say := teller(stderr)
	s, err := scenario.Up(ctx, lab.Options{Name: *name}, say)
	if err != nil {
		return err
	}
	text, statusErr := s.Lab.Exec(ctx, lab.A, "duet", "status")
	fmt.Fprintf(stdout, "\n%s\n%s", text, tryThis(*name))
	if statusErr == nil {
		<-ctx.Done()
		say("ending; nothing is left behind")
	}
	return errors.Join(statusErr, s.Down())
}

func tryThis(name string) string {
	labCommand := "bin/lab"
	if name != "demo" {
		labCommand += " --name " + name
	}
	return fmt.Sprintf(`Try this in a second terminal:
  %[1]s exec a -- duet status --watch    the site in its own words
  %[1]s cut a                            pull both power cords of node a, which runs vm1
  %[1]s exec b -- duet status            b asked the witness, fenced a, runs vm1
  %[1]s on a                             plug them in again: a is brought up to date and proved
  %[1]s link all cut                     every path between the nodes; "link all restore" heals it
  %[1]s truth                            what is so, whatever the product says
  %[1]s help                             all verbs
Ctrl-C ends it; nothing is left behind.
`, labCommand)
}

// labName keeps two unattended runs on one machine apart.
func labName(kind string) string { return fmt.Sprintf("%s-%d", kind, os.Getpid()) }

func runDemo(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	if err := flags.Parse(args); err != nil {
		return err
	}
	return unattended(ctx, "demo", 0, stdout, stderr, func(s *scenario.Site, r *scenario.Report) error {
		for _, e := range scenario.Episodes() {
			if err := s.Play(ctx, e, r); err != nil {
				return err
			}
		}
		return nil
	})
}

func runSoak(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(stderr)
	n := flags.Int("n", 100, "cycles")
	seed := flags.Uint64("seed", 0, "of the order of events; 0: a fresh one")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	return unattended(ctx, "soak", *seed, stdout, stderr, func(s *scenario.Site, r *scenario.Report) error {
		return s.Soak(ctx, *n, *seed, r)
	})
}

// unattended brings up a site, plays, looks for leftovers, and ends in one line of JSON whatever happened.
func unattended(ctx context.Context, kind string, seed uint64, stdout, stderr io.Writer, play func(*scenario.Site, *scenario.Report) error) error {
	started := time.Now()
	say := teller(stderr)
	r := scenario.NewReport()
	r.Seed = seed
	name := labName(kind)
	state, err := filepath.Abs(filepath.Join("out", "lab", name))
	if err != nil {
		return err
	}
	before, err := scenario.Footprint(state)
	if err != nil {
		return err
	}
	s, err := scenario.Up(ctx, lab.Options{Name: name, State: state, Seed: seed}, say)
	if err == nil {
		err = play(s, r)
		err = errors.Join(err, s.Down())
	}
	if err != nil {
		r.Failed = err.Error()
	}
	left, leftErr := scenario.Leftovers(context.WithoutCancel(ctx), state, before)
	for _, l := range left {
		say("LEFT BEHIND: %s", l)
	}
	r.Leftovers = len(left)
	r.Judge()
	r.Seconds = time.Since(started).Round(time.Second).Seconds()
	verdict := "ok"
	if !r.Safe() || len(r.TargetsMissed) > 0 {
		verdict = "failed"
	}
	if kind == "demo" {
		r.Demo = verdict
	} else {
		r.Soak = verdict
	}
	if err := r.Write(stdout); err != nil {
		return err
	}
	if err := errors.Join(err, leftErr); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("not ok: targets missed %v", r.TargetsMissed)
	}
	return nil
}

func runProbe(ctx context.Context, args []string, _, stderr io.Writer) error {
	flags := flag.NewFlagSet("probe", flag.ContinueOnError)
	flags.SetOutput(stderr)
	cfg := probe.Config{Socket: nbdSocket}
	flags.StringVar(&cfg.Export, "export", "", "NBD export")
	flags.IntVar(&cfg.Blocks, "blocks", 4096, "blocks from the start of the export")
	flags.Uint64Var(&cfg.First, "first", 1, "first sequence number")
	flags.DurationVar(&cfg.Interval, "interval", 10_000_000, "between two writes")
	flags.IntVar(&cfg.FlushEvery, "flush-every", 16, "a flush after so many writes")
	path := flags.String("log", "", "where acknowledgements are noted")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(*path), 0o755); err != nil {
		return err
	}
	log, err := os.Create(*path)
	if err != nil {
		return err
	}
	return errors.Join(probe.Write(ctx, cfg, log), log.Close())
}

// runPGWriter writes until it is killed: its log is what counts.
func runPGWriter(ctx context.Context, args []string, _, stderr io.Writer) error {
	flags := flag.NewFlagSet("pgwriter", flag.ContinueOnError)
	flags.SetOutput(stderr)
	cfg := pgwriter.Config{}
	flags.StringVar(&cfg.URL, "url", "", "postgres://user:password@host:port/database")
	flags.IntVar(&cfg.Writers, "writers", 4, "side by side")
	flags.IntVar(&cfg.Run, "run", 0, "number of this run: its rows are its own")
	flags.DurationVar(&cfg.Every, "every", 10*time.Millisecond, "between two rows of a writer")
	path := flags.String("log", "", "where answers are noted")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(*path), 0o755); err != nil {
		return err
	}
	log, err := os.Create(*path)
	if err != nil {
		return err
	}
	return errors.Join(pgwriter.Write(ctx, cfg, log), log.Close())
}

func runReadback(_ context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("readback", flag.ContinueOnError)
	flags.SetOutput(stderr)
	export := flags.String("export", "", "NBD export")
	blocks := flags.Int("blocks", 4096, "blocks from the start of the export")
	if err := flags.Parse(args); err != nil {
		return err
	}
	contents, err := probe.ReadAll(nbdSocket, *export, *blocks)
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(contents)
}
