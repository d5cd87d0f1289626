package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"duet/appliance/api"
)

func (c *cli) task() *cobra.Command {
	return group("task", "Long actions",
		show(c, "show ID", "Show a long action and its steps", 1, func(ctx context.Context, a *api.Client, args []string) (api.Task, error) {
			return a.Task(ctx, args[0])
		}, taskLines),
		c.cancel())
}

func taskLines(w io.Writer, t api.Task) {
	fmt.Fprintf(w, "task %s, %s: %s\n", t.ID, t.Kind, t.State)
	for _, s := range t.Steps {
		fmt.Fprintln(w, stepLine(s))
	}
	if t.Problem != nil {
		faultLines(w, []api.Fault{*t.Problem})
	}
}

func (c *cli) cancel() *cobra.Command {
	reason := ""
	cmd := &cobra.Command{
		Use: "cancel ID", Short: "End a long action", Args: exact(1),
		Long: "Ends a founding, a live fence test or a change of the witness. It puts back what it must, for example the power of a\n" +
			"node under test, and is over when `duet task show ID` says so. An order that is refused because of it names its ID.",
		Example: "  duet task cancel 5f0c6f2a9b1d7e34 --reason 'wrong node'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return usageError{fmt.Errorf("--reason is needed; use: %s", cmd.UseLine())}
			}
			client := c.client()
			defer client.Close()
			t, err := client.CancelTask(cmd.Context(), args[0], reason)
			if err != nil {
				return err
			}
			return c.print(t, func(w io.Writer) { taskLines(w, t) })
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for everybody who follows it")
	return cmd
}
