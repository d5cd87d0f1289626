// Command witness-binaries builds duet-witness for the small machines that it runs on, and looks at what came out:
// `make witness-binaries`. Each must be a static ELF of its architecture that needs no interpreter and no library, or
// the build fails: a witness is copied to whatever box is there.
package main

import (
	"context"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
)

// target is one kind of machine.
type target struct {
	arch    string
	machine elf.Machine
	class   elf.Class
	env     []string
	like    string
}

var targets = []target{
	{"amd64", elf.EM_X86_64, elf.ELFCLASS64, nil, "PC, virtual machine"},
	{"arm64", elf.EM_AARCH64, elf.ELFCLASS64, nil, "Raspberry Pi 3 and newer, 64 bit"},
	{"arm", elf.EM_ARM, elf.ELFCLASS32, []string{"GOARM=6"}, "Raspberry Pi 1 and Zero (ARMv6), any 32 bit Pi"},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("witness-binaries", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "bin/witness", "where they go")
	if flags.Parse(args) != nil {
		return 2
	}
	for _, t := range targets {
		path := filepath.Join(*dir, "duet-witness-"+t.arch)
		err := t.build(ctx, path, stderr)
		if err == nil {
			err = t.check(path)
		}
		if err != nil {
			fmt.Fprintf(stderr, "witness-binaries: %s: %v\n", t.arch, err)
			return 1
		}
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintln(stderr, "witness-binaries:", err)
			return 1
		}
		fmt.Fprintf(stdout, "%s  %.1f MiB, static, %s (%s)\n", path, float64(info.Size())/(1<<20), t.machine, t.like)
	}
	return 0
}

func (t target) build(ctx context.Context, path string, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w", "-o", path, "./witness/cmd/duet-witness")
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+t.arch), t.env...)
	cmd.Stdout, cmd.Stderr = stderr, stderr
	return cmd.Run()
}

// check reads the file as the kernel will.
func (t target) check(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if f.Machine != t.machine || f.Class != t.class || f.Type != elf.ET_EXEC {
		return fmt.Errorf("it is %s, %s, %s", f.Machine, f.Class, f.Type)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("it wants an interpreter")
		}
	}
	if libraries, err := f.ImportedLibraries(); err == nil && len(libraries) > 0 {
		return fmt.Errorf("it wants %v", libraries)
	}
	return nil
}
