package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"duet/appliance/api"
)

// show is a command that asks for one thing and prints it.
func show[T any](c *cli, use, short string, args int, ask func(context.Context, *api.Client, []string) (T, error), lines func(io.Writer, T)) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: exact(args), RunE: func(cmd *cobra.Command, args []string) error {
		client := c.client()
		defer client.Close()
		v, err := ask(cmd.Context(), client, args)
		if err != nil {
			return err
		}
		return c.print(v, func(w io.Writer) { lines(w, v) })
	}}
}

func (c *cli) vm() *cobra.Command {
	acted := func(w io.Writer, a api.Acted) {
		fmt.Fprintf(w, "VM %s is %s (node %s)\n", a.VM.Name, a.VM.State, a.ActedOn)
	}
	return group("vm", "Virtual machines",
		show(c, "list", "List the VMs", 0, func(ctx context.Context, a *api.Client, _ []string) ([]api.VM, error) { return a.VMs(ctx) }, vmTable),
		show(c, "show NAME", "Show one VM", 1, func(ctx context.Context, a *api.Client, args []string) (api.VM, error) { return a.VM(ctx, args[0]) }, vmLines),
		show(c, "start NAME", "Start a VM, and keep it running", 1, func(ctx context.Context, a *api.Client, args []string) (api.Acted, error) {
			return a.StartVM(ctx, args[0])
		}, acted),
		show(c, "stop NAME", "End a VM at once, and keep it stopped", 1, func(ctx context.Context, a *api.Client, args []string) (api.Acted, error) {
			return a.StopVM(ctx, args[0])
		}, acted),
		c.move())
}

func vmTable(w io.Writer, vms []api.VM) {
	var rows []string
	for _, v := range vms {
		rows = append(rows, row(v.Name, v.State, v.Desired, v.Owner, fmt.Sprintf("%d MiB", v.MemoryMiB), v.VCPUs, strings.Join(v.Disks, ", "), v.Why))
	}
	table(w, "VM\tSTATE\tWANTED\tOWNER\tMEMORY\tVCPUS\tDISKS\tWHY", rows)
}

func vmLines(w io.Writer, v api.VM) {
	table(w, row("name", v.Name), []string{
		row("id", v.ID), row("state", v.State), row("wanted", v.Desired), row("why", v.Why), row("owner", v.Owner),
		row("memory", fmt.Sprintf("%d MiB", v.MemoryMiB)), row("vcpus", v.VCPUs), row("disks", strings.Join(v.Disks, ", ")),
	})
}

func (c *cli) volume() *cobra.Command {
	return group("volume", "Mirrored virtual disks",
		show(c, "list", "List the volumes", 0, func(ctx context.Context, a *api.Client, _ []string) ([]api.Volume, error) {
			return a.Volumes(ctx)
		}, volumeTable),
		show(c, "show NAME", "Show one volume", 1, func(ctx context.Context, a *api.Client, args []string) (api.Volume, error) {
			return a.Volume(ctx, args[0])
		}, volumeLines),
		c.scrub(), c.readmit())
}

// scrub has both legs compared.
func (c *cli) scrub() *cobra.Command {
	return &cobra.Command{
		Use: "scrub NAME", Short: "Read, compare and repair both legs of a volume", Args: exact(1),
		Long: "Read both legs of a volume whole, compare them block by block, and repair what is bad on either, while guests run. It is " +
			"done once a week by itself; the order is for now. It is given on the node that serves the volume, while both legs " +
			"are in sync, and yields to guests.",
		Example: "  duet volume scrub disk0",
		RunE: func(cmd *cobra.Command, args []string) error {
			client := c.client()
			defer client.Close()
			a, err := client.ScrubVolume(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.print(a, func(w io.Writer) {
				fmt.Fprintf(w, "node %s scrubs volume %s; follow it with: duet volume show %s\n", a.ActedOn, a.Volume.Name, a.Volume.Name)
			})
		},
	}
}

// readmit gives this node a new leg.
func (c *cli) readmit() *cobra.Command {
	return &cobra.Command{
		Use: "readmit NAME", Short: "Give this node a new leg in the place of its dead one", Args: exact(1),
		Long: "Give this node a new leg of a volume in the place of its dead one, after its drive was mended or its error has passed. " +
			"What the old leg held counts no more; the other node's leg brings the new one up to date while guests run, and it " +
			"counts when both are proved equal. The order is given on the node whose leg is dead. A leg that works or counts is " +
			"left alone.",
		Example: "  duet volume readmit disk0",
		RunE: func(cmd *cobra.Command, args []string) error {
			client := c.client()
			defer client.Close()
			a, err := client.ReadmitLeg(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.print(a, func(w io.Writer) {
				fmt.Fprintf(w, "node %s makes a new leg of volume %s; follow it with: duet volume show %s\n", a.ActedOn, a.Volume.Name, a.Volume.Name)
			})
		},
	}
}

func volumeTable(w io.Writer, volumes []api.Volume) {
	var rows []string
	for _, v := range volumes {
		rows = append(rows, row(v.Name, size(v.SizeBytes), v.Owner, strings.Join(v.InSync, ", "), volumeState(v), v.UsedBy))
	}
	table(w, "VOLUME\tSIZE\tOWNER\tIN SYNC\tSTATE\tUSED BY", rows)
}

// volumeState is the stage, and what there is to wait for.
func volumeState(v api.Volume) string {
	text := v.Stage
	if v.RemainingBytes > 0 {
		text += fmt.Sprintf(", %s to go", size(v.RemainingBytes))
	}
	if v.DirtyBytes > 0 {
		text += fmt.Sprintf(", peer lacks %s", size(v.DirtyBytes))
	}
	if v.DamagedBlocks > 0 {
		text += fmt.Sprintf(", %d blocks damaged", v.DamagedBlocks)
	}
	if v.Held {
		text += fmt.Sprintf(", held: %d requests wait", v.HeldOps)
	}
	return text
}

// scrubState is how far a scrub is, or when the last one ended and what it found.
func scrubState(v api.Volume) string {
	s := v.Scrub
	text := "none yet"
	switch {
	case s.Running:
		text = fmt.Sprintf("%s of %s", size(s.DoneBytes), size(v.SizeBytes))
	case s.Why != "":
		text = "ended early: " + s.Why
	case s.AgeSeconds >= 0 && s.Passes > 0:
		text = "ended " + age(s.AgeSeconds*1000)
	}
	if s.PeerRepaired > 0 {
		text += fmt.Sprintf(", %d blocks of the peer repaired", s.PeerRepaired)
	}
	if s.Different > 0 {
		text += fmt.Sprintf(", %d blocks were different", s.Different)
	}
	return text
}

func volumeLines(w io.Writer, v api.Volume) {
	table(w, row("name", v.Name), []string{
		row("id", v.ID), row("size", size(v.SizeBytes)), row("owner", v.Owner), row("in sync", strings.Join(v.InSync, ", ")),
		row("state", volumeState(v)), row("leg here", v.Leg), row("generation", v.Generation),
		row("proved equal", fmt.Sprintf("epoch %d", v.ProvenEpoch)), row("last copy", fmt.Sprintf("%s sent, %s digested", size(v.ResyncBytes), size(v.DigestBytes))),
		row("bad blocks", fmt.Sprintf("%d repaired, %d damaged", v.RepairedBlocks, v.DamagedBlocks)),
		row("scrub", scrubState(v)),
		row("last stall", fmt.Sprintf("%d ms", v.LastStallMS)), row("used by", v.UsedBy),
	})
}
