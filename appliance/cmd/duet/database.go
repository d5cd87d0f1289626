package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"duet/appliance/api"
)

func (c *cli) database() *cobra.Command {
	status := show(c, "status", "Show the PostgreSQL pair", 0, func(ctx context.Context, a *api.Client, _ []string) (api.Database, error) {
		return a.Database(ctx)
	}, databaseLines)
	status.Long = "Show the PostgreSQL pair: who is primary, who holds every acknowledged commit (copies), where clients reach it, and what each " +
		"server is. What the other node said last is UNKNOWN when it is older than 1.5 s. -o json has the record with its history of promotions."
	return group("db", "The PostgreSQL pair", status, c.setDatabase(), c.switchover())
}

func (c *cli) switchover() *cobra.Command {
	var o confirmation
	cmd := &cobra.Command{
		Use: "switchover", Short: "Move the primary to the other node", Args: exact(0),
		Long: "Move the primary to the other node. Clients are cut off and reach it again at the same address, about a second later. No " +
			"acknowledged commit is lost. The order is given on the node that has the primary, while the nodes are paired and the standby " +
			"holds everything. It needs a reason, and the name of the site confirms it.",
		Example: "  duet db switchover --reason 'new memory for a'\n  duet db switchover --reason 'new memory for a' --yes --confirm-site demo",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := c.client()
			defer client.Close()
			given, err := c.confirm(cmd.Context(), client, cmd, &o, "Clients of the database are cut off and reach it on the other node.")
			if err != nil {
				return err
			}
			db, err := client.Switchover(cmd.Context(), given)
			if err != nil {
				return err
			}
			return c.print(db, func(w io.Writer) {
				fmt.Fprintf(w, "the primary is on node %s now, timeline %d\n", db.Owner, db.Record.Timeline)
			})
		},
	}
	o.flags(cmd, "why, for everybody who looks")
	return cmd
}

func (c *cli) setDatabase() *cobra.Command {
	var o api.DatabaseSettings
	cmd := &cobra.Command{
		Use: "set", Short: "Change what the site wants of the database", Args: exact(0),
		Long: "Change what the site wants of the database. available: when the standby is lost for 3 s, the record says so on both nodes and the " +
			"primary goes on alone. strict: commits wait for a standby that is lost, however long; a standby that " +
			"was promoted because the primary's node is lost serves alone. The order is given on the pair owner.",
		Example: "  duet db set --durability strict --reason 'audit'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case strings.TrimSpace(o.Reason) == "":
				return usageError{fmt.Errorf("--reason is needed; use: %s", cmd.UseLine())}
			case o.Durability != "available" && o.Durability != "strict":
				return usageError{fmt.Errorf("--durability is available or strict; use: %s", cmd.UseLine())}
			}
			client := c.client()
			defer client.Close()
			db, err := client.SetDatabase(cmd.Context(), o)
			if err != nil {
				return err
			}
			return c.print(db, func(w io.Writer) { fmt.Fprintf(w, "durability is %s\n", db.Durability) })
		},
	}
	cmd.Flags().StringVar(&o.Durability, "durability", "", "available or strict")
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why, for everybody who looks")
	return cmd
}

func databaseLines(w io.Writer, db api.Database) {
	r := db.Record
	table(w, row("owner", db.Owner), []string{
		row("copies", strings.Join(r.Copies, ", ")), row("durability", db.Durability),
		row("write address", fmt.Sprintf("%s port %d", db.WriteAddress, db.Port)), row("read address", fmt.Sprintf("%s port %d", db.ReadAddress, db.Port)),
		row("timeline", fmt.Sprintf("%d from %s", r.Timeline, r.PromoteLSN)), row("record", fmt.Sprintf("%d.%d", r.Epoch, r.Version)),
	})
	var rows []string
	for _, n := range db.Nodes {
		open := "closed"
		switch {
		case n.WriteOpen && n.ReadOpen:
			open = "write, read"
		case n.WriteOpen:
			open = "write"
		case n.ReadOpen:
			open = "read"
		}
		promotable := "no"
		if n.Promotable {
			promotable = "yes"
		}
		rows = append(rows, row(n.Node, n.PGStatus, n.DataStatus, n.Activity, promotable+" ("+n.Why+")", open, n.ReceiveLSN, n.Failures, age(n.AgeMS)))
	}
	fmt.Fprintln(w)
	table(w, "NODE\tSTATUS\tDATA\tDOES\tPROMOTABLE\tGATES\tLOG\tFAILURES\tSEEN", rows)
}
