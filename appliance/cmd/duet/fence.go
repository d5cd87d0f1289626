package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"duet/appliance/api"
)

func (c *cli) fence() *cobra.Command {
	return group("fence", "Ways to make sure that a node is off",
		show(c, "status", "Show every way, its proof, and the last evidence", 0, func(ctx context.Context, a *api.Client, _ []string) (api.Fence, error) {
			return a.Fence(ctx)
		}, fenceLines),
		c.fenceTest(), c.fenceHistory())
}

func fenceLines(w io.Writer, f api.Fence) {
	for _, line := range f.Says {
		fmt.Fprintln(w, line)
	}
	if len(f.Says) > 0 {
		fmt.Fprintln(w)
	}
	fenceTable(w, f)
	mapLines(w, f.Paths)
	for _, l := range f.Latches {
		fmt.Fprintf(w, "latched: node %s is off and stays off, by %s, epoch %d, %s: %s\n", l.Node, l.By, l.Epoch, utc(l.At), l.Reason)
	}
	pathFaults(w, f.Paths)
}

func pathFaults(w io.Writer, paths []api.FencePath) {
	for _, p := range paths {
		if p.Fault != nil {
			faultLines(w, []api.Fault{*p.Fault})
		}
	}
}

func fenceTable(w io.Writer, f api.Fence) {
	pathTable(w, f.Paths)
	if e := f.Last; e != nil {
		fmt.Fprintf(w, "last: node %s %s off by %s, epoch %d, %s: %s\n", e.Node, e.Verdict, e.By, e.Epoch, utc(e.At), e.Detail)
	}
}

func pathTable(w io.Writer, paths []api.FencePath) {
	var rows []string
	for _, p := range paths {
		tested := "no"
		if p.Proven {
			tested = "yes"
		}
		problem := p.Problem
		if p.Fault != nil { // its words come below
			problem = p.Fault.Code
		}
		rows = append(rows, row(p.Node, p.Kind, p.Target, p.State, seenPower(p), tested, age(p.ProofAgeMS), p.By, problem))
	}
	table(w, "FENCES\tBY\tAT\tSTATE\tPOWER\tTESTED\tPROVED\tFROM\tPROBLEM", rows)
}

// seenPower is how the way sees the node.
func seenPower(p api.FencePath) string {
	if p.Watts >= 0 {
		return fmt.Sprintf("%s, %.0f W", p.Power, p.Watts)
	}
	return p.Power
}

// mapLines say how the register maps of the PDUs are known: V the vendor's text, I an independent map, A arithmetic, S
// the site's own, N not seen.
func mapLines(w io.Writer, paths []api.FencePath) {
	for _, p := range paths {
		switch {
		case p.Numbers == "":
		case p.Supported:
			fmt.Fprintf(w, "map of %s: %s; tried on a device\n", p.Target, p.Numbers)
		default:
			fmt.Fprintf(w, "map of %s: %s; not tried on a device\n", p.Target, p.Numbers)
		}
	}
}

func (c *cli) fenceTest() *cobra.Command {
	live, exchanged, o := false, false, confirmation{}
	limit := 10 * time.Minute
	cmd := &cobra.Command{
		Use: "test NODE", Short: "Prove every way to a node now", Args: exact(1),
		Long: "Proves every way to NODE from the other node, now; nothing is switched. With --power-cycle NODE is switched\n" +
			"off and on by each of them: the site must be safe, and nothing may run on NODE; without a witness nothing may run at\n" +
			"all, because the other node holds I/O until NODE is back. It needs a reason, which the ledger keeps, and the name\n" +
			"of the site confirms it. A BMC that was exchanged is made known with --new-bmc, on the node that owns the pair.",
		Example: "  duet fence test b\n  duet fence test b --power-cycle --reason 'new power cords' --yes --confirm-site demo",
		RunE: func(cmd *cobra.Command, args []string) error {
			if live {
				ctx, cancel := context.WithTimeout(cmd.Context(), limit)
				defer cancel()
				return c.livetest(ctx, cmd, args[0], exchanged, &o)
			}
			client := c.client()
			defer client.Close()
			paths, err := client.FenceTest(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.print(paths, func(w io.Writer) { pathTable(w, paths); mapLines(w, paths); pathFaults(w, paths) })
		},
	}
	cmd.Flags().BoolVar(&live, "power-cycle", false, "switch the node off and on")
	cmd.Flags().BoolVar(&exchanged, "new-bmc", false, "with --power-cycle: the BMC of the node was exchanged; record the new one if the test passes")
	o.flags(cmd, "with --power-cycle: why, for everybody who looks")
	cmd.Flags().DurationVar(&limit, "timeout", limit, "how long to follow")
	return cmd
}

// livetest follows the task and shows what the ledger keeps of it: every step with its time.
func (c *cli) livetest(ctx context.Context, cmd *cobra.Command, node string, exchanged bool, o *confirmation) error {
	client := c.client()
	defer client.Close()
	given, err := c.confirm(ctx, client, cmd, o, "Node "+node+" is switched off and on.")
	if err != nil {
		return err
	}
	task, err := client.FenceTestLive(ctx, node, api.Cycling{Reason: given.Reason, ConfirmSite: given.ConfirmSite, NewBMC: exchanged})
	if err != nil {
		return err
	}
	if err := c.follow(ctx, client, task.ID, map[string]string{}); err != nil {
		return err
	}
	entries, err := client.FenceHistory(ctx, 1)
	if err != nil {
		return err
	}
	return c.print(entries, func(w io.Writer) { historyLines(w, entries, true) })
}

func (c *cli) fenceHistory() *cobra.Command {
	limit, steps := 20, false
	cmd := &cobra.Command{
		Use: "history", Short: "Show what was done to switch a node off, newest first", Args: exact(0),
		Long: "Shows every attempt, live test and latch that this node took part in, newest first, with the verdict of each\n" +
			"kind of evidence. It survives restarts; attempts that repeat each other are one line.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := c.client()
			defer client.Close()
			entries, err := client.FenceHistory(cmd.Context(), limit)
			if err != nil {
				return err
			}
			return c.print(entries, func(w io.Writer) { historyLines(w, entries, steps) })
		},
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "how many, at most 1000")
	cmd.Flags().BoolVar(&steps, "steps", false, "with the steps of live tests and their times")
	return cmd
}

func historyLines(w io.Writer, entries []api.FenceEntry, steps bool) {
	var rows []string
	for _, e := range entries {
		why := e.Why
		if e.Code != "" {
			why = e.Code + ": " + why
		}
		if e.Repeats > 0 {
			why += fmt.Sprintf(" (%d repetitions before it)", e.Repeats)
		}
		rows = append(rows, row(utc(e.At), e.What, e.Node, e.Verdict, evidence(e.Evidence), e.Epoch, e.By, fmt.Sprintf("%.1f s", float64(e.TookMS)/1000), why))
	}
	table(w, "AT\tWHAT\tNODE\tVERDICT\tEVIDENCE\tEPOCH\tORDERED BY\tTOOK\tWHY", rows)
	if !steps {
		return
	}
	for _, e := range entries {
		for _, s := range e.Steps {
			fmt.Fprintf(w, "%6.1f s  %s\n", float64(s.TookMS)/1000, s.Name)
		}
	}
}

func evidence(kinds map[string]string) string {
	var words []string
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		words = append(words, k+" "+kinds[k])
	}
	return strings.Join(words, ", ")
}

func (c *cli) node() *cobra.Command {
	return group("node", "Leaving the pair, and the other node's power",
		c.leave(), c.comeBack(),
		c.reasoned("latch NODE", "Keep a node off until the latch is lifted",
			"Nothing switches NODE on by itself while it is latched: neither after a fencing nor after a power cut. It does\n"+
				"not switch NODE off. The latch is lifted by `duet node on`, or when NODE has joined again.",
			(*api.Client).Latch),
		c.reasoned("on NODE", "Lift the latch of a node and switch it on", "", (*api.Client).Unlatch))
}

// reasoned is an order that wants a reason: it is shown to everybody until it is undone.
func (c *cli) reasoned(use, short, long string, order func(*api.Client, context.Context, string, []byte) (api.Fence, error)) *cobra.Command {
	reason := ""
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		if strings.TrimSpace(reason) == "" {
			return usageError{fmt.Errorf("--reason is needed; use: %s", cmd.UseLine())}
		}
		body, err := json.Marshal(map[string]string{"reason": reason})
		if err != nil {
			return fmt.Errorf("reason: %w", err)
		}
		client := c.client()
		defer client.Close()
		f, err := order(client, cmd.Context(), args[0], body)
		if err != nil {
			return err
		}
		return c.print(f, func(w io.Writer) { fenceLines(w, f) })
	}}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for everybody who looks")
	return cmd
}

func utc(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
