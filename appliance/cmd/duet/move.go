package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"duet/appliance/api"
)

// move hands a VM to the other node.
func (c *cli) move() *cobra.Command {
	cmd := show(c, "move NAME", "End a VM on this node, and let the other one run it", 1,
		func(ctx context.Context, a *api.Client, args []string) (api.Acted, error) {
			return a.MoveVM(ctx, args[0])
		},
		func(w io.Writer, a api.Acted) {
			fmt.Fprintf(w, "VM %s belongs to node %s now (it was on node %s); wanted there: %s\n", a.VM.Name, a.VM.Owner, a.ActedOn, a.VM.Desired)
		})
	cmd.Long = "End a VM on this node, and let the other one run it. For the guest it is a power cut: shut it down first if it minds. " +
		"What it wrote is on both nodes before the other one begins. A VM that is stopped moves too, and stays stopped. " +
		"The order is given on the node that owns the VM, while the nodes are paired and in sync."
	return cmd
}
