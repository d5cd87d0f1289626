// Command lab runs a whole duet site on this machine and does to it what happens to hardware: pulls cords and cables,
// hangs nodes, silences a BMC, stops the witness. `lab up` stays in the foreground and takes everything with it when it
// ends; the other verbs talk to it through its state folder. See docs/testing.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"duet/build/lab"
)

func main() {
	lab.Reexec()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}
