package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"duet/appliance/api"
	"duet/appliance/event"
)

func (c *cli) witness() *cobra.Command {
	return group("witness", "The third vote",
		show(c, "status", "Show the witness, the register in use, and how a node may go on alone", 0,
			func(ctx context.Context, a *api.Client, _ []string) (api.Witness, error) { return a.Witness(ctx) }, witnessTable),
		c.witnessTest(),
		c.witnessChange("add", "Admit a witness to a site that has none",
			"Admits the witness at --address with the key --key (duet-witness key prints it). Enrol both nodes there first.\n"+
				"It is asked before anything changes, makes a register, and becomes the arbiter on both nodes; nothing stops.",
			"  duet witness add --address 203.0.113.13:7443 --key BASE64 --reason 'first witness'", (*api.Client).WitnessAdd),
		c.witnessChange("replace", "Admit another witness, or a fresh register at the present one",
			"With --address and --key: admits that witness in the place of the present one, which is never asked again.\n"+
				"Without: makes a fresh register at the present one, for a witness that lost its store. Nothing stops, paired or\n"+
				"alone; while I/O is held it is refused, because nobody may change the arbiter while it is needed.",
			"  duet witness replace --reason 'it lost its disk'", (*api.Client).WitnessReplace))
}

func witnessTable(w io.Writer, v api.Witness) {
	reached := "no"
	if v.Reached {
		reached = "yes"
	}
	if v.ForMS >= 0 {
		reached += ", for " + lasted(v.ForMS)
	}
	known := ""
	switch {
	case v.Register == "":
	case v.Reached && !v.Known:
		known = " (the witness does not know it)"
	case !v.Confirmed:
		known = " (has not confirmed this epoch)"
	}
	rows := []string{row("arbiter", v.Arbiter)}
	if v.Changing != "" {
		rows = append(rows, row("changing to", v.Changing))
	}
	if v.Configured {
		rows = append(rows, row("witness", v.Address), row("key", v.Key), row("reached", reached), row("last answer", age(v.AgeMS)))
		if v.AgeMS >= 0 {
			rows = append(rows, row("round trip", fmt.Sprintf("%d ms", v.RTTMS)))
		}
	} else {
		rows = append(rows, row("witness", "none"))
	}
	rows = append(rows, row("register", v.Register+known))
	if v.Former != "" {
		rows = append(rows, row("former witness", v.Former))
	}
	table(w, "WHAT\tIS", rows)
}

// lasted is a time that something has lasted.
func lasted(ms int64) string {
	switch d := time.Duration(ms) * time.Millisecond; {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", ms/1000)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", ms/60_000)
	default:
		return fmt.Sprintf("%d h", ms/3_600_000)
	}
}

// witnessFlags are how a witness is named.
func witnessFlags(cmd *cobra.Command, o *api.WitnessOrder) {
	cmd.Flags().StringVar(&o.Address, "address", "", "host:port of the witness")
	cmd.Flags().StringVar(&o.Key, "key", "", "its ed25519 public key, base64")
}

func (c *cli) witnessTest() *cobra.Command {
	var o api.WitnessOrder
	cmd := &cobra.Command{
		Use: "test", Short: "Ask the witness, or another one, and show the round trip", Args: exact(0),
		Long: "Asks over a connection of its own, twice; the second round trip, without the handshake, is shown. Without flags\n" +
			"the site's witness is asked. Nothing is changed.",
		Example: "  duet witness test --address 203.0.113.13:7443 --key BASE64",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := c.client()
			defer client.Close()
			t, err := client.WitnessTest(cmd.Context(), o)
			if err != nil {
				return err
			}
			return c.print(t, func(w io.Writer) { fmt.Fprintf(w, "%s answers in %.1f ms\n", t.Address, t.RTTMS) })
		},
	}
	witnessFlags(cmd, &o)
	return cmd
}

func (c *cli) witnessChange(use, short, long, example string, order func(*api.Client, context.Context, api.WitnessOrder) (api.Task, error)) *cobra.Command {
	var o api.WitnessOrder
	limit := 2 * time.Minute
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Example: example, Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		switch {
		case strings.TrimSpace(o.Reason) == "":
			return usageError{fmt.Errorf("--reason is needed; use: %s", cmd.UseLine())}
		case (o.Address == "") != (o.Key == "") || use == "add" && o.Address == "":
			return usageError{fmt.Errorf("--address and --key belong together; use: %s", cmd.UseLine())}
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), limit)
		defer cancel()
		client := c.client()
		defer client.Close()
		task, err := order(client, ctx, o)
		if err != nil {
			return err
		}
		if err := c.followTask(ctx, client, task.ID, "The change of the witness"); err != nil {
			return err
		}
		w, err := client.Witness(ctx)
		if err != nil {
			return err
		}
		return c.print(w, func(out io.Writer) { witnessTable(out, w) })
	}}
	witnessFlags(cmd, &o)
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why; kept in the log")
	cmd.Flags().DurationVar(&limit, "timeout", limit, "how long to follow")
	return cmd
}

// followTask prints each change of a step until the task is over. A duetd that was restarted has forgotten it: then
// nobody knows how it ended, and the status has to be asked.
func (c *cli) followTask(ctx context.Context, client *api.Client, id, what string) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	begin, shown := time.Now(), map[string]string{}
	for {
		task, err := client.Task(ctx, id)
		switch {
		case err == nil:
			c.steps(task.Steps, shown)
			if task.State == "failed" && task.Problem != nil {
				return faultProblem(task.Problem)
			}
			if task.State != "running" {
				return nil
			}
		case !lost(err): // duetd restarts within a second, and then says that it does not know the task
			return err
		}
		select {
		case <-ctx.Done():
			return faultProblem(api.AsFault(event.New(event.StillRunning, "what", what, "seconds", fmt.Sprint(int(time.Since(begin).Seconds()))), nil))
		case <-tick.C:
		}
	}
}
