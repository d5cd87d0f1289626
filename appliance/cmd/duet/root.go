package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"

	"duet/appliance/api"
)

// cli is what every command needs.
type cli struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	socket         string
	output         string
}

func (c *cli) client() *api.Client { return api.NewClient(c.socket) }

func newRoot(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:   "duet",
		Short: "Show and order a site of two nodes",
		Long: "duet speaks to duetd on this node. Exit codes: 0 done, 1 refused or failed, 2 wrong use,\n" +
			"3 no contact with duetd.",
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if c.output != "table" && c.output != "json" {
				return usageError{fmt.Errorf("-o %s: the forms are table and json", c.output)}
			}
			return nil
		},
	}
	root.PersistentFlags().StringVar(&c.socket, "socket", api.DefaultSocket, "duetd's socket")
	root.PersistentFlags().StringVarP(&c.output, "output", "o", "table", "form of the output: table or json")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(c.status(), c.setup(), c.vm(), c.volume(), c.fence(), c.witness(), c.node(), c.override(), c.database(), c.task(), c.support(), c.version())
	return root
}

// group is a noun: alone it is wrong use, with its verbs in the message.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, RunE: func(cmd *cobra.Command, args []string) error {
		names := ""
		for _, v := range verbs {
			names += " " + v.Name()
		}
		if len(args) > 0 {
			return usageError{fmt.Errorf("duet %s has no %q; it has:%s", cmd.Name(), args[0], names)}
		}
		return usageError{fmt.Errorf("duet %s needs one of:%s", cmd.Name(), names)}
	}}
	cmd.AddCommand(verbs...)
	return cmd
}

// exact wants n arguments; anything else is wrong use.
func exact(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.ExactArgs(n)(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; use: %s", err, cmd.UseLine())}
		}
		return nil
	}
}

// print writes v as json, or as the table.
func (c *cli) print(v any, table func(io.Writer)) error {
	if c.output != "json" {
		table(c.stdout)
		return nil
	}
	enc := json.NewEncoder(c.stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	return nil
}

func (c *cli) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which duet this is", Args: exact(0),
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": "unknown", "go": "unknown", "revision": "unknown"}
			if info, ok := debug.ReadBuildInfo(); ok {
				v["version"], v["go"] = info.Main.Version, info.GoVersion
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v["revision"] = s.Value
					}
				}
			}
			return c.print(v, func(w io.Writer) {
				fmt.Fprintf(w, "duet %s, revision %s, %s\n", v["version"], v["revision"], v["go"])
			})
		},
	}
}
