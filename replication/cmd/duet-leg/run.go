package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
)

const usage = `duet-leg reads a leg that nobody has open, and never writes.

  duet-leg dump  [--json] DIR                           what the leg says about itself
  duet-leg check [--json] [--progress] [--limit N] DIR  read everything, compare the data with its sums

DIR is the folder of one leg, POOL/VOLUME-ID, with the files data and meta.

  --json      one JSON object
  --progress  tell on stderr how far it is, also without a terminal
  --limit N   list at most N bad blocks (default 100); all are counted
`

const (
	statusFine  = 0
	statusWrong = 1 // something wrong was found
	statusUnfit = 2 // could not be read to its end, or wrong usage

	// limitDefault of bad blocks that are listed: a drive that is gone must not fill the log of whoever looks.
	limitDefault = 100
)

// errUsage is a wrong command line: the message says what is wrong.
var errUsage = errors.New("wrong usage")

type command struct {
	verb, dir      string
	json, progress bool
	limit          int
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		fmt.Fprint(stdout, usage)
		if len(args) == 0 {
			return statusUnfit
		}
		return statusFine
	}
	c, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return statusFine
	case err != nil:
		fmt.Fprintf(stderr, "duet-leg %s: %v\n%s", args[0], err, usage)
		return statusUnfit
	}
	l, failure := openLeg(c.dir)
	defer l.Close()
	var r report
	switch {
	case c.verb == "dump":
		r = dump(ctx, l, failure)
	default:
		r = check(ctx, l, failure, c.limit, newProgress(stderr, c.progress))
	}
	if c.json {
		out := json.NewEncoder(stdout)
		out.SetIndent("", "  ")
		err = out.Encode(r)
	} else {
		err = r.print(stdout)
	}
	p := r.failure()
	if p == nil && err != nil {
		p = &problem{"output", "the result cannot be written", err.Error(), "give it another place to go"}
	}
	if p != nil {
		fmt.Fprintf(stderr, "duet-leg %s: %s\n", c.verb, p)
		return statusUnfit
	}
	if len(r.problems()) > 0 {
		return statusWrong
	}
	return statusFine
}

// report is the result of a command: an object for --json, and text.
type report interface {
	print(w io.Writer) error
	failure() *problem // why it did not come to its end
	problems() []problem
}

// parse takes flags before and after DIR.
func parse(args []string) (command, error) {
	c := command{verb: args[0], limit: limitDefault}
	flags := flag.NewFlagSet(c.verb, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&c.json, "json", false, "one JSON object")
	switch c.verb {
	case "dump":
	case "check":
		flags.BoolVar(&c.progress, "progress", false, "tell on stderr how far it is")
		flags.IntVar(&c.limit, "limit", limitDefault, "bad blocks that are listed")
	default:
		return c, fmt.Errorf("%w: no such command", errUsage)
	}
	err := flags.Parse(args[1:])
	if err == nil && flags.NArg() > 0 {
		c.dir = flags.Arg(0)
		err = flags.Parse(flags.Args()[1:])
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return c, err
	case err != nil:
		return c, fmt.Errorf("%w: %w", errUsage, err)
	case c.dir == "":
		return c, fmt.Errorf("%w: DIR is missing", errUsage)
	case flags.NArg() > 0:
		return c, fmt.Errorf("%w: %q is too much", errUsage, flags.Arg(0))
	case c.limit < 0:
		return c, fmt.Errorf("%w: --limit is negative", errUsage)
	}
	return c, nil
}
