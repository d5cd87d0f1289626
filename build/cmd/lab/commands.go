package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"duet/build/lab"
)

type streams struct{ in, out, err *os.File }

const usage = `usage: lab [--name NAME] [--state DIR] COMMAND

  up [--keep] [--bin DIR] [--bare] [--off] [--seed N] [--cache random|drop|keep]
                             start a site and stay; Ctrl-C ends it and leaves nothing
  down                       end it
  status | truth | legs      what it was told | what is so (JSON) | compare the copies (JSON)
  watch                      print events as they happen
  exec MACHINE -- COMMAND    in a, b, witness or client
  log MACHINE [UNIT]         a service's log, or the names of the logs
  wait [--for D] CONDITION   e.g. a:mode=paired (duet status), truth:machines.b.power=off
  cut | on | cycle | reset | crash | panic | hang | resume  NODE
  psu a.1 off|on
  link mirror0|lan|all|lan NODE|wan NODE|bmc NODE  cut|restore
  bmc NODE ok|mute|badpass|refuse|slow D           pdu mute|ok|late D
  witness stop|start|pause|resume|slow D LOSS%|fast
  clock NODE DURATION        its boot clock, that much ahead from its next power-on
  kill|stop|start MACHINE UNIT
  disk a.1 ok|eio|hang [read|write|flush] [skip=N] [once]
`

func run(ctx context.Context, args []string, s streams) int {
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	flags.SetOutput(s.err)
	flags.Usage = func() { fmt.Fprint(s.err, usage) }
	name := flags.String("name", "demo", "")
	state := flags.String("state", "", "")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() == 0 {
		flags.Usage()
		return 2
	}
	verb, rest := flags.Arg(0), flags.Args()[1:]
	if verb == "help" {
		fmt.Fprint(s.out, usage)
		return 0
	}
	given := *state != ""
	if !given {
		*state = filepath.Join("out", "lab", *name)
	}
	var code int
	var err error
	if verb == "up" {
		err = runUp(ctx, lab.Options{Name: *name, State: *state}, given, rest, s)
	} else {
		code, err = runVerb(ctx, *state, verb, rest, s)
	}
	if err != nil {
		fmt.Fprintln(s.err, "lab:", err)
		return 1
	}
	return code
}

// runUp starts a lab and waits for its end. --name may stand before or after the word up.
func runUp(ctx context.Context, o lab.Options, stateGiven bool, args []string, s streams) error {
	flags := flag.NewFlagSet("lab up", flag.ContinueOnError)
	flags.SetOutput(s.err)
	flags.StringVar(&o.Name, "name", o.Name, "name of the lab")
	flags.BoolVar(&o.Keep, "keep", false, "keep and use again the disks")
	flags.StringVar(&o.Bin, "bin", "", "folder of the product's programs")
	flags.BoolVar(&o.Bare, "bare", false, "machines without services")
	flags.BoolVar(&o.Off, "off", false, "the nodes stay off")
	flags.Uint64Var(&o.Seed, "seed", 0, "of the power cuts")
	flags.StringVar(&o.Cache, "cache", "random", "what a cut leaves of the drives' caches: random, drop or keep")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !stateGiven {
		o.State = "" // the default of that name
	}
	o.Progress = func(what string) { fmt.Fprintln(s.err, " ", what) }
	began := time.Now()
	l, err := lab.Up(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.err, "lab %q is up after %.1f s; state in %s; Ctrl-C ends it\n", o.Name, time.Since(began).Seconds(), l.State())
	select {
	case <-ctx.Done():
	case <-l.Done():
	}
	return l.Down(context.WithoutCancel(ctx))
}

func runVerb(ctx context.Context, state, verb string, args []string, s streams) (int, error) {
	if verb == "log" {
		return 0, runLog(state, args, s)
	}
	l, err := lab.Attach(ctx, state)
	if err != nil {
		return 1, err
	}
	switch verb {
	case "down":
		return 0, l.Down(ctx)
	case "exec":
		return runExec(ctx, l, args, s)
	case "wait":
		return 0, runWait(ctx, l, args, s)
	case "watch":
		return 0, l.Watch(ctx, func(e lab.Event) {
			fmt.Fprintf(s.out, "%8.1f  %-8s %-16s %s\n", float64(e.TimeMS)/1000, e.Machine, e.Kind, e.Text)
		})
	case "status":
		return 0, runStatus(ctx, l, args, s)
	}
	var value json.RawMessage
	if err := l.Call(ctx, &value, verb, args...); err != nil {
		return 1, err
	}
	return 0, printJSON(s.out, value)
}

func printJSON(w io.Writer, value json.RawMessage) error {
	if len(value) == 0 {
		return nil
	}
	var v any
	if err := json.Unmarshal(value, &v); err != nil {
		return err
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func runExec(ctx context.Context, l *lab.Lab, args []string, s streams) (int, error) {
	if len(args) > 1 && args[1] == "--" {
		args = append(args[:1:1], args[2:]...)
	}
	if len(args) < 2 {
		return 2, errors.New("usage: lab exec MACHINE -- COMMAND [ARGUMENTS]")
	}
	return l.ExecFiles(ctx, args[0], s.in, s.out, s.err, args[1:]...)
}

func runWait(ctx context.Context, l *lab.Lab, args []string, s streams) error {
	flags := flag.NewFlagSet("lab wait", flag.ContinueOnError)
	flags.SetOutput(s.err)
	limit := flags.Duration("for", 30*time.Second, "how long at most")
	var conditions []string
	for len(args) > 0 { // flags and conditions in any order
		if err := flags.Parse(args); err != nil {
			return err
		}
		if args = flags.Args(); len(args) > 0 {
			conditions, args = append(conditions, args[0]), args[1:]
		}
	}
	if len(conditions) == 0 {
		return errors.New("usage: lab wait [--for 30s] CONDITION [MORE]")
	}
	return l.Wait(ctx, *limit, conditions...)
}

// runLog prints a log; it lies outside the nodes, so the lab need not run.
func runLog(state string, args []string, s streams) error {
	if len(args) == 0 || len(args) > 2 {
		return errors.New("usage: lab log MACHINE [UNIT]")
	}
	dir := filepath.Join(state, filepath.Base(args[0]), "log")
	if len(args) == 1 {
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			fmt.Fprintln(s.out, strings.TrimSuffix(e.Name(), ".log"))
		}
		return err
	}
	f, err := os.Open(filepath.Join(dir, filepath.Base(args[1])+".log"))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(s.out, f)
	return err
}

func runStatus(ctx context.Context, l *lab.Lab, args []string, s streams) error {
	st, err := l.Status(ctx)
	if err != nil {
		return err
	}
	if len(args) == 2 && args[0] == "-o" && args[1] == "json" {
		b, err := json.Marshal(st)
		if err != nil {
			return err
		}
		return printJSON(s.out, b)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "lab %s, up %d s, seed %d, %s\n", st.Name, st.UpMS/1000, st.Seed, st.State)
	for _, name := range slices.Sorted(maps.Keys(st.Machines)) {
		m := st.Machines[name]
		fmt.Fprintf(w, "%s\t%s\tboot %d\t%s\t%s\n", name, m.Power, m.Boots, m.Cause, m.Watchdog)
		for _, unit := range slices.Sorted(maps.Keys(m.Services)) {
			u := m.Services[unit]
			fmt.Fprintf(w, "  %s\t%s\tpid %d\trestarts %d\t%s\n", unit, u.State, u.PID, u.Restarts, u.LastExit)
		}
	}
	for _, link := range slices.Sorted(maps.Keys(st.Links)) {
		fmt.Fprintf(w, "link %s\t%s\n", link, st.Links[link])
	}
	fmt.Fprintf(w, "bmc a\t%s\nbmc b\t%s\npdu\t%s\toutlets %v\n", st.BMC[lab.A], st.BMC[lab.B], st.PDU, st.Outlets)
	return w.Flush()
}
