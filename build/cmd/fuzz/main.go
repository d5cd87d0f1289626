// Command fuzz runs every native fuzz target of the module one after the other, each for a given time. It is
// `make fuzz T=10s`.
//
// `go test` alone replays the saved corpora; this searches on. Targets are found by asking each test binary for its
// list, so that a new target cannot be forgotten. The first failing target ends the run with its output; Go leaves
// the failing input in the package's testdata, to be committed with the fix.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("fuzz", flag.ContinueOnError)
	flags.SetOutput(stderr)
	each := flags.Duration("time", 10*time.Second, "how long each target is fuzzed")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	targets, err := list(ctx)
	if err != nil {
		fmt.Fprintln(stderr, "fuzz:", err)
		return 1
	}
	for i, t := range targets {
		fmt.Fprintf(stderr, "fuzz %d/%d: %s %s for %s\n", i+1, len(targets), t.pkg, t.name, *each)
		cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String(), t.pkg)
		cmd.Stdout, cmd.Stderr = stderr, stderr
		if err := cmd.Run(); err != nil {
			fmt.Fprintf(stderr, "fuzz: %s in %s: %v\n", t.name, t.pkg, err)
			return 1
		}
	}
	fmt.Fprintf(stdout, "{\"fuzz_targets\":%d,\"seconds_each\":%g,\"failures\":0}\n", len(targets), each.Seconds())
	return 0
}

type target struct{ pkg, name string }

// list asks every package for its fuzz targets. `go test -list` prints the names, then "ok <package> <time>".
func list(ctx context.Context) ([]target, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", "test", "-list", "^Fuzz", "./...")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go test -list: %w\n%s%s", err, out, stderr.Bytes())
	}
	var found []target
	var names []string
	for line := range strings.Lines(string(out)) {
		switch fields := strings.Fields(line); {
		case strings.HasPrefix(line, "Fuzz"):
			names = append(names, fields[0])
		case len(fields) > 1 && fields[0] == "ok":
			for _, n := range names {
				found = append(found, target{fields[1], n})
			}
			names = nil
		}
	}
	return found, nil
}
