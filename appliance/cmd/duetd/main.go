// Command duetd is the control plane of one node: membership, fencing, VMs, and the API that people and programs use.
//
//	duetd --config /etc/duet/node.json
//
// It logs to standard error, tells systemd when it is ready, and ends by SIGTERM without stopping what runs: guests and
// disks go on until the end of the lease, and the next duetd goes on from where this one was. It exits with 1 when it
// could not start or had to stop, and says why on the last line.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"duet/appliance/node"
	"duet/appliance/site"
)

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

func run(args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("duetd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	config := flags.String("config", "/etc/duet/node.json", "bootstrap configuration of this node")
	debug := flags.Bool("debug", false, "log every input and effect of the membership core")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	level := slog.LevelInfo
	if *debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx, *config, log); err != nil {
		log.Error("duetd ends", "error", err.Error())
		return 1
	}
	return 0
}

func serve(ctx context.Context, config string, log *slog.Logger) error {
	boot, err := site.LoadBootstrap(config)
	if err != nil {
		return err
	}
	n, err := node.New(node.Config{Boot: boot, ProcDir: "/proc", Log: log.With("node", boot.Node)})
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return n.Run(ctx, func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyReady) }) //nolint:errcheck // without systemd nobody asks
}
