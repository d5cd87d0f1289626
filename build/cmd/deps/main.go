// Command deps installs the Debian packages that building, running and testing duet needs. It is `make deps`.
//
// It is idempotent: with everything there it changes nothing and takes a blink. It asks apt only for what is
// missing, waits for another apt to finish, never prompts, and refuses service starts while packages are being
// configured (a policy-rc.d that answers 101, removed afterwards): the lab starts its own libvirtd, in its own
// namespaces. PostgreSQL comes without a cluster. It needs root, and says so; `deps -print` only names what is missing,
// and -bench-pg adds the packages of that benchmark.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"duet/build/deps"
)

// installTimeout bounds one run of apt-get: a mirror that hangs must not hang CI.
const installTimeout = 20 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("deps", flag.ContinueOnError)
	flags.SetOutput(stderr)
	printOnly := flags.Bool("print", false, "name the missing packages and install nothing")
	bench := flags.Bool("bench-pg", false, "what make bench-pg compares with, too")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	wanted := deps.Packages
	if *bench {
		wanted = slices.Concat(wanted, deps.BenchPG)
	}
	missing, err := deps.Missing(ctx, wanted)
	switch {
	case err != nil:
		fmt.Fprintln(stderr, "deps:", err)
		return 1
	case len(missing) == 0:
		return 0
	case *printOnly:
		fmt.Fprintln(stdout, strings.Join(missing, " "))
		return 1
	}
	if err := install(ctx, missing, stderr); err != nil {
		fmt.Fprintf(stderr, "deps: %v\nnext: %s\n", err, deps.InstallLine(missing))
		return 1
	}
	return 0
}

func install(ctx context.Context, missing []string, progress io.Writer) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("installing packages needs root")
	}
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	fmt.Fprintf(progress, "deps: installing %d Debian packages: %s\n", len(missing), strings.Join(missing, " "))
	restore, err := refuseServiceStarts()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	if err := refuseClusters(); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"update", "-q"},
		append([]string{"install", "-q", "-y", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "DPkg::Lock::Timeout=600"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = progress, progress
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("apt-get %s: %w", args[0], err)
		}
	}
	return nil
}

const policyFile = "/usr/sbin/policy-rc.d"

// refuseServiceStarts makes invoke-rc.d answer "forbidden" (Debian Policy 9.3.3.1) until restored.
func refuseServiceStarts() (restore func() error, err error) {
	old, readErr := os.ReadFile(policyFile)
	if err := os.WriteFile(policyFile, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
		return nil, err
	}
	return func() error {
		if readErr == nil {
			return os.WriteFile(policyFile, old, 0o755)
		}
		return os.Remove(policyFile)
	}, nil
}

// clusterFile keeps Debian's postgresql from making a cluster of its own when it is installed or updated
// (pg_createcluster(1), createcluster.conf). It stays: tests use the programs alone.
const clusterFile = "/etc/postgresql-common/createcluster.d/duet.conf"

func refuseClusters() error {
	if err := os.MkdirAll(filepath.Dir(clusterFile), 0o755); err != nil {
		return err
	}
	return os.WriteFile(clusterFile, []byte("create_main_cluster = false\n"), 0o644)
}
