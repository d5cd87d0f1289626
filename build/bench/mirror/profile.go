package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const profileHz = "499" // no multiple of the kernel's own tick

// profile runs one more cell of duet, which counts nowhere, with perf on both daemons. The daemons carry nothing for it:
// perf reads Go's frame pointers and symbols. The text beside the data is what a person reads first.
func (b *bench) profile(ctx context.Context, j job, subjects []*subject) error {
	at := slices.IndexFunc(subjects, func(s *subject) bool { return s.name == duet })
	if at < 0 {
		return errors.New("duet is not among the subjects")
	}
	perf, err := exec.LookPath("perf")
	if err != nil {
		return errors.New("needs the Debian package linux-perf")
	}
	if err := os.MkdirAll(b.o.profile, 0o755); err != nil {
		return err
	}
	data := filepath.Join(b.o.profile, j.Name+".perf.data")
	var pids []string
	for _, pid := range subjects[at].pids() {
		pids = append(pids, strconv.Itoa(pid))
	}
	var said strings.Builder
	record := exec.CommandContext(ctx, perf, "record", "--quiet", "-F", profileHz, "-e", "cpu-clock", "-g", "-o", data, "-p", strings.Join(pids, ","))
	record.Stdout, record.Stderr = &said, &said
	record.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := record.Start(); err != nil {
		return err
	}
	_, err = b.cell(ctx, j, subjects[at], uint64(b.o.rounds))
	record.Process.Signal(os.Interrupt) // perf writes its data and ends by the signal
	waited := record.Wait()
	if info, statErr := os.Stat(data); err == nil && (statErr != nil || info.Size() == 0) {
		err = fmt.Errorf("perf record: %w: %s", waited, said.String())
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	var text []byte
	for _, way := range []string{"--no-children", "--children"} { // what runs, and what it runs for
		part, err := exec.CommandContext(ctx, perf, "report", "--stdio", way, "-g", "none", "--sort", "dso,symbol", "--percent-limit", "0.5", "-i", data).Output()
		if err != nil {
			return fmt.Errorf("perf report: %w", err)
		}
		text = append(text, part...)
	}
	return os.WriteFile(filepath.Join(b.o.profile, j.Name+".txt"), text, 0o644)
}

const reportLimit = 2 * time.Minute
