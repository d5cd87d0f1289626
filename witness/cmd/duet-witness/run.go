package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"

	"duet/witness/enrolment"
	"duet/witness/pinned"
	"duet/witness/systemd"
)

const usage = `duet-witness keeps the third vote of two-node sites.

  duet-witness serve  --data DIR --listen HOST:PORT [--new-identity]
                      [--store etcd://HOST:PORT,... [--etcd-ca FILE] [--etcd-cert FILE --etcd-key FILE]]
  duet-witness enroll --data DIR --name SITE --key-a BASE64 --key-b BASE64
  duet-witness key    --data DIR               print the key that sites pin
  duet-witness status --data DIR [-o json]     what a running witness does
  duet-witness unit                            print the systemd unit
  duet-witness version
`

// errUsage is a wrong command line: the message says what is missing.
var errUsage = errors.New("wrong usage")

type command struct {
	data, listen, name, keyA, keyB, output string
	newIdentity                            bool
	store                                  storeFlags
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		fmt.Fprint(stdout, usage)
		if len(args) == 0 {
			return 2
		}
		return 0
	}
	err := dispatch(ctx, args[0], args[1:], stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "duet-witness %s: %v\n%s", args[0], err, usage)
		return 2
	default:
		fmt.Fprintf(stderr, "duet-witness %s: %v\n", args[0], err)
		return 1
	}
}

func dispatch(ctx context.Context, verb string, args []string, stdout, stderr io.Writer) error {
	var c command
	flags := flag.NewFlagSet(verb, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var do func() error
	var required []string
	switch verb {
	case "serve":
		flags.StringVar(&c.listen, "listen", "", "address to listen on")
		flags.BoolVar(&c.newIdentity, "new-identity", false, "set all registers aside")
		c.store.define(flags)
		required = []string{"data", "listen"}
		do = func() error { return c.serve(ctx, slog.New(slog.NewTextHandler(stderr, nil))) }
	case "enroll":
		flags.StringVar(&c.name, "name", "", "name of the site")
		flags.StringVar(&c.keyA, "key-a", "", "public key of node a")
		flags.StringVar(&c.keyB, "key-b", "", "public key of node b")
		required = []string{"data", "name", "key-a", "key-b"}
		do = func() error { return c.enroll() } // not a method value: it would copy c before the flags are parsed
	case "status":
		flags.StringVar(&c.output, "o", "text", "text or json")
		required = []string{"data"}
		do = func() error { return c.status(ctx, stdout) }
	case "key":
		required = []string{"data"}
		do = func() error { return c.printKey(stdout) }
	case "unit":
		_, err := io.WriteString(stdout, systemd.Unit)
		return err
	case "version":
		fmt.Fprintln(stdout, "duet-witness", version())
		return nil
	default:
		return fmt.Errorf("no such command: %w", errUsage)
	}
	flags.StringVar(&c.data, "data", "", "folder of identity, enrolments and registers")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stdout, usage)
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%w: %q is too much", errUsage, flags.Arg(0))
	}
	for _, name := range required {
		if flags.Lookup(name).Value.String() == "" {
			return fmt.Errorf("%w: --%s is missing", errUsage, name)
		}
	}
	if err := c.prepare(); err != nil {
		return err
	}
	return do()
}

func (c command) sites() string { return filepath.Join(c.data, "sites") }

// prepare makes the folders; enrolling before the first start is allowed.
func (c command) prepare() error {
	if err := os.MkdirAll(c.sites(), 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	return nil
}

func (c command) identity() (ed25519.PrivateKey, error) {
	return pinned.LoadOrCreate(filepath.Join(c.data, "identity.pem"))
}

func (c command) printKey(stdout io.Writer) error {
	identity, err := c.identity()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, pinned.FormatKey(identity.Public().(ed25519.PublicKey)))
	return err
}

func (c command) enroll() error {
	keyA, errA := pinned.ParseKey(c.keyA)
	keyB, errB := pinned.ParseKey(c.keyB)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	return enrolment.Write(c.sites(), enrolment.Site{Name: c.name, KeyA: keyA, KeyB: keyB})
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
