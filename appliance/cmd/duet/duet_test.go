package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"duet/appliance/api"
	"duet/appliance/api/fakenode"
	"duet/appliance/event"
)

var update = flag.Bool("update", false, "write docs/reference/cli.md")

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"duet": main}) }

// TestTranscripts runs the real program against a real API server in this process.
func TestTranscripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		UpdateScripts:       *update,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"node": node, "exits": exits,
		},
	})
}

// node starts duetd's API at $WORK/s over a node in memory: node [fresh] [alone] [broken].
func node(ts *testscript.TestScript, _ bool, args []string) {
	n := fakenode.New()
	for _, a := range args {
		switch a {
		case "fresh":
			n.Fresh()
		case "alone":
			n.PeerOff()
		case "nodatabase":
			n.NoDatabase()
		case "frozen":
			n.Fail(event.New(event.FrozenWaits, "node", "a", "waits_for", "the witness"))
		default:
			ts.Fatalf("node: %s", a)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	l, err := api.Listen(ctx, ts.MkAbs("s"))
	ts.Check(err)
	done := make(chan error, 1)
	go func() {
		done <- api.NewServer(api.ServerConfig{Backend: n, Node: "a", AllowUID: uint32(os.Getuid())}).Serve(ctx, l)
	}()
	ts.Defer(func() {
		cancel()
		if err := <-done; err != nil {
			ts.Logf("%v", err)
		}
	})
}

// exits runs a command and compares its exit code: exits 1 duet vm start x. Output goes to the files out and err.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	var stdout, stderr bytes.Buffer
	args = append(args[:1:1], args[2:]...) // without "duet": the program runs in here
	for i, a := range args {
		if a == "FILE" {
			args[i] = ts.MkAbs("answers.json")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	code := run(ctx, append([]string{"--socket", ts.MkAbs("s")}, args[1:]...), strings.NewReader(""), &stdout, &stderr)
	ts.Check(os.WriteFile(ts.MkAbs("out"), stdout.Bytes(), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("err"), stderr.Bytes(), 0o600))
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s\n%s%s", code, args[0], stdout.String(), stderr.String())
	}
}

// TestReference: docs/reference/cli.md is made from the commands themselves.
func TestReference(t *testing.T) {
	file := "../../../docs/reference/cli.md"
	var want strings.Builder
	want.WriteString(referenceHead)
	example, err := os.ReadFile("testdata/answers.json")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&want, "\n## Answers\n\nThe file of `duet setup answer` is one JSON object. Ids, slots and versions are made by setup. Sizes are multiples\nof 4096. Addresses are numbers, because a site works without a name service.\n\n```json\n%s```\n", example)
	describe(&want, newRoot(&cli{}))
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != want.String() {
		t.Fatalf("docs/reference/cli.md is stale (%v): go test ./appliance/cmd/duet -run TestReference -update", err)
	}
}

const referenceHead = `# The command duet

` + "`duet`" + ` speaks to duetd on the node where it runs, over a unix socket that only root may use. Data goes to stdout, everything
else to stderr; ` + "`-o json`" + ` prints the object of the API. The first line of ` + "`duet status`" + ` says what the site can lose.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | refused or failed; stderr has the code, what, why and next; each code has a [page](../faults/README.md) |
| 2 | wrong use |
| 3 | no contact with duetd |
`

func describe(w *strings.Builder, cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() {
			continue
		}
		if !sub.HasSubCommands() {
			text := sub.Long
			if text == "" {
				text = sub.Short + "."
			}
			fmt.Fprintf(w, "\n## %s\n\n%s\n\n```\n%s\n", sub.CommandPath(), text, sub.UseLine())
			if flags := sub.LocalNonPersistentFlags().FlagUsages(); flags != "" {
				fmt.Fprint(w, flags)
			}
			fmt.Fprint(w, "```\n")
		}
		describe(w, sub)
	}
}

func TestSizes(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 B", 4096: "4 KiB", 5000: "5000 B", 64 << 20: "64 MiB", 3 << 40: "3 TiB", 1536 << 20: "1536 MiB"} {
		if got := size(bytes); got != want {
			t.Errorf("%d: %s, want %s", bytes, got, want)
		}
	}
	for ms, want := range map[int64]string{-1: "never", 120: "0.1 s ago", 40_000: "40 s ago", 600_000: "10 min ago"} {
		if got := age(ms); got != want {
			t.Errorf("%d: %s, want %s", ms, got, want)
		}
	}
}
