// Command duet shows and orders a site from one of its nodes, over duetd's local socket.
//
// The first line of `duet status` answers the first question: what can this site lose right now? Words come from duetd;
// this program puts them into tables and decides nothing. `-o json` prints exactly the object of the API. Data goes to
// stdout, everything else to stderr. An order that is refused is printed in four words: what, why, next, and the code,
// whose page is in the manual.
//
// Exit codes: 0 done, 1 refused or failed, 2 wrong use, 3 no contact with duetd.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program; it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot(&cli{stdin: stdin, stdout: stdout, stderr: stderr})
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return report(stderr, root.ExecuteContext(ctx))
}
