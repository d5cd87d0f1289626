package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// process is one process of a server.
type process struct {
	pid, parent int
	born        uint64 // clock ticks after boot: with the pid it names a process for ever
	leads       bool   // it has the command line of a postmaster; the others show what they are instead
}

// scanServer lists the processes that work in a data directory: every process of a server changes into it (PostgreSQL's
// ChangeToDataDir), and backends leave the group of their postmaster (setsid), so neither a group nor a pid file finds
// them all.
func scanServer(dir string) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("process table: %w", err)
	}
	var all []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if cwd, err := os.Readlink("/proc/" + e.Name() + "/cwd"); err != nil || cwd != dir && cwd != dir+" (deleted)" {
			continue
		}
		exe, err := os.Readlink("/proc/" + e.Name() + "/exe")
		if err != nil || filepath.Base(exe) != "postgres" {
			continue
		}
		p, err := readStat(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return nil, err
		}
		p.leads = leads(pid)
		all = append(all, p)
	}
	return all, nil
}

// leads: a postmaster keeps its arguments, its children overwrite theirs with a title (PostgreSQL's init_ps_display).
func leads(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	args := bytes.Split(b, []byte{0})
	return err == nil && len(args) > 2 && filepath.Base(string(args[0])) == "postgres" && string(args[1]) == "-D"
}

// readStat takes parent and birth from /proc/PID/stat (proc_pid_stat(5): fields 4 and 22; the name may hold spaces).
func readStat(pid int) (process, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 20 {
		return process{}, fmt.Errorf("process %d: %w", pid, fs.ErrNotExist)
	}
	parent, err := strconv.Atoi(string(f[1]))
	if err != nil {
		return process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	born, err := strconv.ParseUint(string(f[19]), 10, 64)
	if err != nil {
		return process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return process{pid: pid, parent: parent, born: born}, nil
}

// postmaster is the one with the arguments whose parent is not among them; false where only orphans of a dead one are left.
// An orphan that was taken for a postmaster would look like a new life of the server.
func postmaster(all []process) (process, bool) {
	for _, p := range all {
		if p.leads && !slices.ContainsFunc(all, func(q process) bool { return q.pid == p.parent }) {
			return p, true
		}
	}
	return process{}, false
}

// life names one life of a server.
func (p process) life() uint64 { return uint64(p.pid)<<40 | p.born&(1<<40-1) }

// signalProcess by a pidfd, so that a reused pid is never hit.
func signalProcess(p process, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", p.pid, err)
	}
	defer unix.Close(fd)
	if now, err := readStat(p.pid); err != nil || now.born != p.born {
		return nil //nolint:nilerr // it has ended: that is what the signal was for
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process %d: %w", p.pid, err)
	}
	return nil
}

// killRounds: each looks again; a fork that was under way can add processes.
const killRounds = 50

// killServer ends every process of a directory and returns when none is left, or with an error at the deadline.
func killServer(dir string, within time.Duration) error {
	deadline := time.Now().Add(within)
	for range killRounds {
		all, err := scanServer(dir)
		if err != nil || len(all) == 0 {
			return err
		}
		for _, p := range all {
			if err := signalProcess(p, unix.SIGKILL); err != nil {
				return err
			}
		}
		for _, p := range all {
			if err := awaitEnd(p, deadline); err != nil {
				return err
			}
		}
	}
	return errors.New("processes of the server still appear")
}

// awaitEnd waits until the process has ended: a pidfd is readable then (pidfd_open(2)).
func awaitEnd(p process, deadline time.Time) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", p.pid, err)
	}
	defer unix.Close(fd)
	if now, err := readStat(p.pid); err != nil || now.born != p.born {
		return nil //nolint:nilerr // it has ended
	}
	for {
		left := max(0, time.Until(deadline))
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("process %d: %w", p.pid, err)
		case n == 1:
			return nil
		case left == 0:
			return fmt.Errorf("process %d is still there", p.pid)
		}
	}
}
