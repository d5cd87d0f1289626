package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"duet/appliance/api"
)

// move hands a VM to the other node.
func (c *cli) move() *cobra.Command {
	var o confirmation
	cmd := &cobra.Command{
		Use: "move NAME", Short: "End a VM on this node, and let the other one run it", Args: exact(1),
		Long: "End a VM on this node, and let the other one run it. For the guest it is a power cut: shut it down first if it minds. " +
			"What it wrote is on both nodes before the other one begins. A VM that is stopped moves too, and stays stopped. " +
			"The order is given on the node that owns the VM, while the nodes are paired and in sync. It needs a reason, and the " +
			"name of the site confirms it.",
		Example: "  duet vm move counter --reason 'more room there'\n  duet vm move counter --reason 'more room there' --yes --confirm-site demo",
		RunE: func(cmd *cobra.Command, args []string) error {
			client := c.client()
			defer client.Close()
			given, err := c.confirm(cmd.Context(), client, cmd, &o, "VM "+args[0]+" is cut off and begins on the other node.")
			if err != nil {
				return err
			}
			a, err := client.MoveVM(cmd.Context(), args[0], given)
			if err != nil {
				return err
			}
			return c.print(a, func(w io.Writer) {
				fmt.Fprintf(w, "VM %s belongs to node %s now (it was on node %s); wanted there: %s\n", a.VM.Name, a.VM.Owner, a.ActedOn, a.VM.Desired)
			})
		},
	}
	o.flags(cmd, "why, for everybody who looks")
	return cmd
}

// confirmation is what an order that stops something wants from a person, or from a script as flags.
type confirmation struct {
	reason, site string
	yes          bool
}

func (o *confirmation) flags(cmd *cobra.Command, reason string) {
	cmd.Flags().StringVar(&o.reason, "reason", "", reason)
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask; needs --confirm-site")
	cmd.Flags().StringVar(&o.site, "confirm-site", "", "name of the site, as a confirmation")
}

// confirm is the confirmed order; duetd checks both again.
func (c *cli) confirm(ctx context.Context, client *api.Client, cmd *cobra.Command, o *confirmation, what string) (api.Confirmed, error) {
	if strings.TrimSpace(o.reason) == "" {
		return api.Confirmed{}, usageError{fmt.Errorf("--reason is needed; use: %s", cmd.UseLine())}
	}
	s, err := client.Site(ctx)
	if err != nil {
		return api.Confirmed{}, err
	}
	if err := c.confirmSite(s.Name, o.site, o.yes, what); err != nil {
		return api.Confirmed{}, err
	}
	return api.Confirmed{Reason: o.reason, ConfirmSite: s.Name}, nil
}
