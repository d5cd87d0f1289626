package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"duet/build/lab"
	"duet/build/scenario"
)

// runLiveness plays the liveness table, prints it, and ends in one line of JSON.
func runLiveness(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("liveness", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("run", "", "regular expression: only cases whose ROW/CASE matches")
	budget := flags.Duration("budget", time.Hour, "no case begins after this time")
	list := flags.Bool("list", false, "print the names of rows and cases, and end")
	matrix := flags.String("matrix", "", "write the failure matrix to this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	want, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	rows := scenario.Rows()
	if *list {
		return listCases(stdout, rows)
	}
	started := time.Now()
	var l *scenario.Liveness
	left, err := staged(ctx, "liveness", 0, scenario.Usual, stderr, func(g *scenario.Stage) error {
		l, err = g.Play(ctx, rows, want.MatchString, *budget)
		return err
	})
	if l == nil {
		return err
	}
	l.Commit, l.Machine, l.Leftovers = commit(ctx), machine(), left
	l.Seconds = time.Since(started).Round(time.Second).Seconds()
	if err != nil || left > 0 {
		l.Liveness = "failed"
	}
	if *matrix != "" {
		err = errors.Join(err, writeMatrix(*matrix, l, rows))
	}
	err = errors.Join(err, l.Table(stdout, rows), l.Write(stdout))
	if err == nil && l.Liveness != "ok" {
		return fmt.Errorf("not ok: %s", strings.Join(l.Failed, "; "))
	}
	return err
}

func listCases(w io.Writer, rows []scenario.Row) error {
	for _, row := range rows {
		for _, c := range row.Cases {
			fmt.Fprintf(w, "%s/%s\n", row.Name, c.Name)
		}
		if row.Reason != "" {
			fmt.Fprintf(w, "%s: not measured: %s\n", row.Name, row.Reason)
		}
	}
	return nil
}

// runMatrix makes the failure matrix from the JSON lines of liveness runs on standard input: a run that was cut short and
// the one that played the rest make one page.
func runMatrix(_ context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("matrix", flag.ContinueOnError)
	flags.SetOutput(stderr)
	if err := flags.Parse(args); err != nil {
		return err
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var runs []scenario.Liveness
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "{") { // the table for people
			continue
		}
		var l scenario.Liveness
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			return fmt.Errorf("the last line of a liveness run is expected: %w", err)
		}
		runs = append(runs, l)
	}
	if len(runs) == 0 {
		return errors.New("no line of JSON of a liveness run on standard input")
	}
	merged := scenario.Merge(scenario.Rows(), runs)
	for _, text := range merged.Failed {
		fmt.Fprintf(stderr, "failed in one of these runs, so its row is not shown: %s\n", text)
	}
	return merged.WriteMatrix(stdout, scenario.Rows())
}

func writeMatrix(path string, l *scenario.Liveness, rows []scenario.Row) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(l.WriteMatrix(f, rows), f.Close())
}

// staged gives play a stage, ends it, and counts what was left behind.
func staged(ctx context.Context, kind string, seed uint64, sizes scenario.Sizes, stderr io.Writer, play func(*scenario.Stage) error) (int, error) {
	say := teller(stderr)
	name := labName(kind)
	state, err := filepath.Abs(filepath.Join("out", "lab", name))
	if err != nil {
		return 0, err
	}
	before, err := scenario.Footprint(state)
	if err != nil {
		return 0, err
	}
	g := &scenario.Stage{Say: say, Fresh: func(ctx context.Context) (*scenario.Site, error) {
		return scenario.UpSized(ctx, lab.Options{Name: name, State: state, Seed: seed}, sizes, say)
	}}
	err = errors.Join(play(g), g.Down())
	left, leftErr := scenario.Leftovers(context.WithoutCancel(ctx), state, before)
	for _, l := range left {
		say("LEFT BEHIND: %s", l)
	}
	return len(left), errors.Join(err, leftErr)
}

// commit is where the tree stands; a plus: with changes.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty=+", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// machine is the class of machine that was measured on: what matters for times, and nothing that names it.
func machine() string {
	memory := "unknown memory"
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if m := regexp.MustCompile(`MemTotal: +([0-9]+) kB`).FindSubmatch(text); m != nil {
			if kib, err := strconv.Atoi(string(m[1])); err == nil {
				memory = fmt.Sprintf("%d GiB", (kib+1<<19)>>20)
			}
		}
	}
	return fmt.Sprintf("%d cores, %s, %s/%s, nodes in namespaces, guests under QEMU TCG", runtime.NumCPU(), memory, runtime.GOOS, runtime.GOARCH)
}
