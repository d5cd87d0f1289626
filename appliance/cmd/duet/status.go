package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"duet/appliance/api"
	"duet/appliance/event"
)

// watchEvery is how often --watch asks: a change is seen within it, and a look costs duetd well under a millisecond.
const watchEvery = 250 * time.Millisecond

func (c *cli) status() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "status", Short: "What the site can lose right now, and the facts behind it", Args: exact(0),
		Long: "The first line says what the site can lose right now. --watch prints a line for every change until\n" +
			"it is interrupted.",
		Example: "  duet status\n  duet status -o json\n  duet status --watch",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := c.client()
			defer client.Close()
			if watch {
				return c.watch(cmd.Context(), client)
			}
			s, err := client.Site(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(s, func(w io.Writer) { statusTable(w, s) })
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "print every change until interrupted")
	return cmd
}

func statusTable(w io.Writer, s api.Site) {
	fmt.Fprintln(w, s.Sentence)
	if s.Next != "" {
		fmt.Fprintf(w, "next: %s\n", s.Next)
	}
	if s.Setup == "fresh" {
		faultLines(w, s.Faults)
		return
	}
	fmt.Fprintf(w, "\nnode %s: %s, epoch %d, members %s, pair owner %s\n", s.Node, s.Mode, s.Epoch, strings.Join(s.Members, ", "), s.PairOwner)
	if s.WaitsFor != "" {
		fmt.Fprintf(w, "waits for: %s\n", s.WaitsFor)
	}
	fmt.Fprintf(w, "witness: %s\n", witnessLine(s.Witness))
	fmt.Fprintln(w)
	var rows []string
	for _, n := range s.Nodes {
		heard := "is this node"
		if !n.Self {
			heard = age(n.LastAck)
		}
		var paths []string
		for _, p := range n.Paths {
			state := "down"
			if p.Up {
				state = "up"
			}
			paths = append(paths, p.Name+" "+state)
		}
		rows = append(rows, row(n.Node, n.Mode, heard, n.DataPath, strings.Join(paths, ", ")))
	}
	table(w, "NODE\tMODE\tHEARD\tDATA LANE\tPATHS", rows)
	fmt.Fprintln(w)
	volumeTable(w, s.Volumes)
	fmt.Fprintln(w)
	vmTable(w, s.VMs)
	fmt.Fprintln(w)
	fenceTable(w, s.Fence)
	faultLines(w, s.Faults)
}

func faultLines(w io.Writer, faults []api.Fault) {
	for _, f := range faults {
		if f.Code != string(event.NotFounded) { // the sentence says that
			fmt.Fprintf(w, "\n%-8s %s  %s\nwhy      %s\nnext     %s\n", f.Severity, f.Code, f.What, f.Why, f.Next)
		}
	}
}

func witnessLine(v api.Witness) string {
	by := map[string]string{"fencing": "; fencing decides", "none": "; nobody decides"}[v.Arbiter]
	switch {
	case !v.Configured:
		return "none" + by
	case !v.Reached:
		return v.Address + ", not reached, last answer " + age(v.AgeMS) + by
	case by != "":
		return fmt.Sprintf("%s, %d ms%s", v.Address, v.RTTMS, by)
	case !v.Confirmed:
		return fmt.Sprintf("%s, %d ms, has not confirmed this epoch", v.Address, v.RTTMS)
	}
	return fmt.Sprintf("%s, %d ms, confirmed", v.Address, v.RTTMS)
}

// watch prints a line whenever the sentence, the mode or the VMs change. No contact is a change too, not the end.
func (c *cli) watch(ctx context.Context, client *api.Client) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	last := ""
	for {
		s, err := client.Site(ctx)
		if ctx.Err() != nil {
			return nil
		}
		line := s.Sentence
		if err != nil {
			line = "no answer: " + err.Error()
		}
		var vms []string
		for _, v := range s.VMs {
			vms = append(vms, v.Name+" "+v.State+" on "+v.Owner)
		}
		if key := fmt.Sprint(line, s.Mode, s.Epoch, vms); key != last {
			last = key
			if err := c.watchLine(s, line, vms, err); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (c *cli) watchLine(s api.Site, line string, vms []string, problem error) error {
	if c.output == "json" {
		if problem != nil {
			return nil
		}
		return json.NewEncoder(c.stdout).Encode(s)
	}
	_, err := fmt.Fprintf(c.stdout, "%s  %s  [%s, epoch %d] %s\n", time.Now().UTC().Format("15:04:05.0"), line, s.Mode, s.Epoch, strings.Join(vms, ", "))
	return err
}
