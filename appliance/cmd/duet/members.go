package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"duet/appliance/api"
	"duet/appliance/event"
)

func (c *cli) leave() *cobra.Command {
	var l api.Leaving
	var yes bool
	var site string
	cmd := &cobra.Command{
		Use: "leave NODE", Short: "Let this node leave the pair: the planned stop of a node", Args: exact(1),
		Long: "Everything that runs on NODE, which must be the node of this command and own the pair, stops; the other node goes\n" +
			"on alone at once and takes it over. NODE stays away until `duet node return`, or until it starts again, and may\n" +
			"be switched off: the other one does not switch it on. A database is handed over first. It is refused while a volume is\n" +
			"not in sync on the other node, or the database cannot be handed over, unless --waiting accepts that it waits for NODE. The name of the site confirms it.",
		Example: "  duet node leave a --reason 'new fan'\n  duet node leave a --reason 'new fan' --yes --confirm-site demo",
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(l.Reason) == "" {
				return usageError{fmt.Errorf("--reason is needed; use: %s", cmd.UseLine())}
			}
			client := c.client()
			defer client.Close()
			s, err := client.Site(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.confirmSite(s.Name, site, yes, "Everything on node "+args[0]+" stops."); err != nil {
				return err
			}
			l.ConfirmSite = s.Name
			if s, err = client.Leave(cmd.Context(), args[0], l); err != nil {
				return err
			}
			return c.print(s, func(w io.Writer) { sentenceLines(w, s) })
		},
	}
	cmd.Flags().StringVar(&l.Reason, "reason", "", "why; shown on the other node while this one is away")
	cmd.Flags().BoolVar(&l.Waiting, "waiting", false, "also if a volume is not in sync on the other node, or the database cannot be handed over: it waits")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask; needs --confirm-site")
	cmd.Flags().StringVar(&site, "confirm-site", "", "name of the site, as a confirmation")
	return cmd
}

// confirmSite: a destructive order wants the name of the site, typed or as a flag; --yes alone never suffices.
func (c *cli) confirmSite(name, given string, yes bool, what string) error {
	if !yes && given == "" {
		fmt.Fprintf(c.stderr, "%s Type the name of the site to go on: ", what)
		line, err := bufio.NewReader(io.LimitReader(c.stdin, 256)).ReadString('\n')
		if err != nil && line == "" {
			return usageError{fmt.Errorf("not confirmed; a script gives --yes --confirm-site NAME")}
		}
		yes, given = true, strings.TrimSpace(line)
	}
	if !yes || given != name {
		return usageError{fmt.Errorf("not confirmed: the site has another name; nothing was done")}
	}
	return nil
}

func sentenceLines(w io.Writer, s api.Site) {
	fmt.Fprintln(w, s.Sentence)
	if s.Next != "" {
		fmt.Fprintf(w, "next: %s\n", s.Next)
	}
}

func (c *cli) comeBack() *cobra.Command {
	return &cobra.Command{
		Use: "return NODE", Short: "Let a node that left join again", Args: exact(1),
		Long: "Ends `duet node leave` on NODE, which must be the node of this command. It joins as after any absence: what it\n" +
			"lacks is copied, and what runs stays on the other node.",
		RunE: func(cmd *cobra.Command, args []string) error {
			client := c.client()
			defer client.Close()
			s, err := client.Return(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.print(s, func(w io.Writer) { fmt.Fprintf(w, "node %s joins again: duet status\n", args[0]) })
		},
	}
}

func (c *cli) override() *cobra.Command {
	return group("override", "A person's word against a record, with what it may lose",
		c.overrideOf(api.PeerOffOverride, "State that the other node is off and stays off",
			"Counts as evidence that the other node is off, once, for the present epoch: for a node that goes on alone and has no\n"+
				"evidence, and for one that holds I/O where fencing decides.",
			func(o api.Overrides) api.Override { return o.PeerOff }),
		c.overrideOf(api.ForceSoloOverride, "Go on alone against the record",
			"Makes this node the only member although its record does not allow it. The other node must be off and stay off: its\n"+
				"disks are never erased, and what it wrote alone meanwhile is not here. A mark stays in the record.",
			func(o api.Overrides) api.Override { return o.ForceSolo }))
}

func (c *cli) overrideOf(kind, short, long string, pick func(api.Overrides) api.Override) *cobra.Command {
	var o api.Overriding
	cmd := &cobra.Command{
		Use: kind, Short: short, Args: exact(0),
		Long: long + "\n\nThe first call does nothing: it shows what is known of the other node, what may be lost, and a word. The second one,\n" +
			"with that word, does it. The word dies with every change of what was shown. The other node is latched off.",
		Example: "  duet override " + kind + " --reason 'node b burnt'\n  duet override " + kind + " --reason 'node b burnt' --confirm 7QK3-M0TX",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if strings.TrimSpace(o.Reason) == "" {
				return usageError{fmt.Errorf("--reason is needed; use: %s", cmd.UseLine())}
			}
			client := c.client()
			defer client.Close()
			if o.Confirm != "" {
				s, err := client.Override(cmd.Context(), kind, o)
				if err != nil {
					return err
				}
				return c.print(s, func(w io.Writer) { sentenceLines(w, s) })
			}
			all, err := client.Overrides(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.print(all, func(w io.Writer) { overrideLines(w, all, pick(all)) }); err != nil {
				return err
			}
			return c.unconfirmed(kind, pick(all))
		},
	}
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why; it becomes part of the record")
	cmd.Flags().StringVar(&o.Confirm, "confirm", "", "the word that the first call shows")
	return cmd
}

// unconfirmed ends the first call: nothing was done, so it is not done.
func (c *cli) unconfirmed(kind string, o api.Override) error {
	if !o.Possible {
		return faultRefused(event.New(event.OrderRefused, "what", "duet override "+kind, "reason", o.Refused, "next", "Look at the status"))
	}
	return faultRefused(event.New(event.OverrideUnconfirmed, "what", "duet override "+kind, "verb", kind+" --confirm "+o.Word))
}

// faultRefused is a fault in the form of an answer of duetd.
func faultRefused(f *event.Fault) error {
	p := faultProblem(api.AsFault(f, nil))
	p.Status = 409
	return p
}

func overrideLines(w io.Writer, all api.Overrides, o api.Override) {
	forced := "never"
	if all.Forced != "" {
		forced = all.Forced
	}
	holds := "whole when its record was written"
	if !all.Holds {
		holds = "not whole: it was being brought up to date"
	}
	waits := all.Mode
	if all.WaitsFor != "" {
		waits += ", waits for " + all.WaitsFor
	}
	evidence := "none"
	if e := all.Evidence; e != nil {
		evidence = fmt.Sprintf("%s by %s, epoch %d, %s: %s", e.Verdict, e.By, e.Epoch, utc(e.At), e.Detail)
	}
	table(w, "WHAT\tIS", []string{
		row("this node", all.Node), row("its state", waits), row("epoch", all.Epoch), row("prepared epoch", all.Prepared),
		row("highest epoch recorded", all.PeerEpoch), row("members", strings.Join(all.Members, ", ")), row("arbiter", all.Arbiter),
		row("its copy", holds), row("node "+all.Peer+" was heard", age(all.HeardAge)), row("its power", evidence), row("forced before", forced),
	})
	fmt.Fprintf(w, "\ndoes      it %s\n", o.Does)
	for _, l := range o.MayLose {
		fmt.Fprintf(w, "may lose  %s\n", l)
	}
	if o.Possible {
		fmt.Fprintf(w, "word      %s\n", o.Word)
	}
}
