package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"duet/appliance/site"
	"duet/appliance/support/flight"
)

// bootstrapFile tells where this node's data directory is.
const bootstrapFile = "/etc/duet/node.json"

func (c *cli) support() *cobra.Command {
	return group("support", "What explains this node: its flight recorder", c.flight(), c.replay())
}

// ringOf is the folder that was named, or this node's own.
func ringOf(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	boot, err := site.LoadBootstrap(bootstrapFile)
	if err != nil {
		return "", fmt.Errorf("this machine is no node: name a folder or a file: %w", err)
	}
	return filepath.Join(boot.DataDir, "flight"), nil
}

// upTo wants at most n arguments.
func upTo(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.MaximumNArgs(n)(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; use: %s", err, cmd.UseLine())}
		}
		return nil
	}
}

// decision is one line of `duet support flight -o json`.
type decision struct {
	Sequence   uint64   `json:"sequence"`
	Wall       string   `json:"wall"` // for people
	BoottimeMS int64    `json:"boottime_ms"`
	Input      string   `json:"input"`
	ModeBefore string   `json:"mode_before"`
	ModeAfter  string   `json:"mode_after"`
	Epoch      uint64   `json:"epoch"`
	Reports    []string `json:"reports"`
	Effects    string   `json:"effects"`
	Difference string   `json:"difference,omitempty"`
}

func (c *cli) flight() *cobra.Command {
	var newest int
	var all bool
	cmd := &cobra.Command{
		Use: "flight [FILE_OR_FOLDER]", Short: "Show the newest decisions of a flight recorder", Args: upTo(1),
		Long: "Shows what a node knew, what it decided, and by which rule's report: of this node, or of a copy of a\n" +
			"node's flight folder. Needs no duetd. Beats and what changed nothing are left out.",
		Example: "  duet support flight\n  duet support flight -n 200 --all ./flight-a",
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := ringOf(args)
			if err != nil {
				return err
			}
			var kept []flight.Moment
			sum, err := flight.Replay(path, flight.Options{Each: func(m flight.Moment) {
				if !all && m.Calm() {
					return
				}
				if kept = append(kept, m); len(kept) > 2*newest+64 {
					kept = append(kept[:0], kept[len(kept)-newest:]...)
				}
			}})
			if err != nil {
				return err
			}
			kept = kept[max(0, len(kept)-newest):]
			return c.print(decisionsOf(kept), func(w io.Writer) {
				for _, m := range kept {
					fmt.Fprintln(w, m.Line())
				}
				refusals(c.stderr, sum)
			})
		},
	}
	cmd.Flags().IntVarP(&newest, "newest", "n", 50, "how many")
	cmd.Flags().BoolVar(&all, "all", false, "beats too")
	return cmd
}

func decisionsOf(moments []flight.Moment) []decision {
	out := []decision{}
	for _, m := range moments {
		d := decision{
			Sequence: m.Seq, Wall: m.Wall.Format("2006-01-02T15:04:05.000Z"), BoottimeMS: int64(m.Input.Now) / 1e6,
			ModeBefore: m.Before.Mode.String(), ModeAfter: m.After.Mode.String(), Epoch: uint64(m.After.Rec.Ep),
			Reports: append([]string{}, flight.Reports(m.Done)...), Difference: m.Difference,
		}
		if m.Snapshot != nil {
			d.Input = "state: " + m.Snapshot.Reason.String()
		} else {
			d.Input, d.Effects = flight.EventWords(m.Input.Event), flight.EffectsWords(m.Done)
		}
		out = append(out, d)
	}
	return out
}

func refusals(w io.Writer, s flight.Summary) {
	for _, r := range s.Refused {
		fmt.Fprintf(w, "refused  %s\n", r)
	}
}

func (c *cli) replay() *cobra.Command {
	var until uint64
	var verbose bool
	cmd := &cobra.Command{
		Use: "replay [FILE_OR_FOLDER]", Short: "Run a recording through the same code and compare", Args: upTo(1),
		Long: "Runs every recorded input through membership.Step of this build and compares state and effects, entry\n" +
			"by entry, with what the node had. Exits with 1 at a difference: that is a bug report in itself. A\n" +
			"recording of another build is refused by name; use the duet of that build. Needs no duetd.",
		Example: "  duet support replay ./flight-a\n  duet support replay --until 4711 -v ./flight-a\n  duet support replay -o json ./flight-a",
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := ringOf(args)
			if err != nil {
				return err
			}
			opt := flight.Options{Until: until}
			if c.output != "json" {
				opt.Each = func(m flight.Moment) {
					if verbose || !m.Calm() {
						fmt.Fprintln(c.stdout, m.Line())
					}
				}
			}
			sum, err := flight.Replay(path, opt)
			if err != nil {
				return err
			}
			if err := c.print(sum, func(w io.Writer) { summaryLines(w, sum) }); err != nil {
				return err
			}
			refusals(c.stderr, sum)
			return judged(sum)
		},
	}
	cmd.Flags().Uint64Var(&until, "until", 0, "the last entry to replay; 0: all")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "every entry, beats too")
	return cmd
}

// judged is the exit code.
func judged(s flight.Summary) error {
	switch {
	case s.Difference != "":
		return errors.New("the recording differs from what this build decides: " + s.Difference)
	case s.Violation != "":
		return errors.New("the recording shows a broken invariant: " + s.Violation)
	case !s.Equal:
		return errors.New("nothing was replayed")
	}
	return nil
}

func summaryLines(w io.Writer, s flight.Summary) {
	verdict := "equal: every state and every effect"
	if s.Difference != "" {
		verdict = fmt.Sprintf("%d differences, the first at %s", s.Differences, s.Difference)
	}
	fmt.Fprintf(w, "\nentries  %d to %d of %d files, %s to %s\n", s.First, s.Last, s.Files, s.From, s.To)
	fmt.Fprintf(w, "inputs   %d, whole states %d, starts of duetd %d, boots %d\n", s.Inputs, s.Snapshots, s.Starts, s.Boots)
	if s.Gaps+s.Lost > 0 || s.TornBytes > 0 {
		fmt.Fprintf(w, "missing  %d entries left out, %d gaps, %d bytes of torn ends\n", s.Lost, s.Gaps, s.TornBytes)
	}
	fmt.Fprintf(w, "ends     %s, epoch %d, state %s\n", s.EndMode, s.EndEpoch, s.StateDigest)
	fmt.Fprintf(w, "replay   %s\n", verdict)
}
