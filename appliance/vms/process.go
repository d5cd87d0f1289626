package vms

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a live QEMU of ours.
type Process struct {
	PID  int
	ID   string // UUID
	Name string // VM name, without the prefix
}

// scan lists the QEMU processes of our VMs in this PID namespace, from /proc alone.
func scan(procDir, prefix string) ([]Process, error) {
	entries, err := os.ReadDir(procDir)
	if err != nil {
		return nil, fmt.Errorf("process table: %w", err)
	}
	own, err := os.Readlink(filepath.Join(procDir, "self", "ns", "pid"))
	if err != nil {
		return nil, fmt.Errorf("own pid namespace: %w", err)
	}
	var found []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(procDir, e.Name(), "cmdline"))
		if gone(err) || len(cmdline) == 0 {
			continue // a kernel thread, or a process that has no memory any more
		}
		if err != nil {
			return nil, fmt.Errorf("process %d: %w", pid, err)
		}
		p, ours := parseCmdline(cmdline, prefix)
		if !ours {
			continue
		}
		space, err := os.Readlink(filepath.Join(procDir, e.Name(), "ns", "pid"))
		if err == nil && space != own || gone(err) {
			continue
		}
		p.PID = pid
		found = append(found, p)
	}
	return found, nil
}

// gone: the process ended between two looks; reading its files says ESRCH or not found.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// parseCmdline recognises libvirt's QEMU: argv[0] is an emulator, -name guest=PREFIXname,... and -uuid say which VM.
// libvirt's probe for capabilities has neither and is left alone.
func parseCmdline(cmdline []byte, prefix string) (Process, bool) {
	var args []string
	for a := range bytes.SplitSeq(bytes.TrimRight(cmdline, "\x00"), []byte{0}) {
		args = append(args, string(a))
	}
	if !strings.HasPrefix(filepath.Base(args[0]), "qemu-") {
		return Process{}, false
	}
	after := func(flag string) string {
		if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	guest, _, _ := strings.Cut(after("-name"), ",")
	name, ours := strings.CutPrefix(guest, "guest="+prefix)
	id := after("-uuid")
	return Process{ID: id, Name: name}, ours && id != ""
}

// killProcesses ends the processes and waits until the last thread of each is gone or the time is over. It holds each
// process by a pidfd and looks at its command line again after opening it, so a reused pid is never hit.
func killProcesses(procDir, prefix string, victims []Process, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	var errs []error
	held := map[int]Process{}
	defer func() {
		for fd := range held {
			unix.Close(fd) // a pidfd has nothing to lose
		}
	}()
	for _, p := range victims {
		fd, err := unix.PidfdOpen(p.PID, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("VM %s, process %d: %w", p.Name, p.PID, err))
			continue
		}
		held[fd] = p
		cmdline, err := os.ReadFile(filepath.Join(procDir, strconv.Itoa(p.PID), "cmdline"))
		if now, ours := parseCmdline(cmdline, prefix); err != nil || !ours || now.ID != p.ID {
			continue // it ended; its pid is somebody else's, or it is a zombie whose end is awaited below
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("VM %s, process %d: %w", p.Name, p.PID, err))
		}
	}
	for fd, p := range held {
		if err := awaitEnd(fd, deadline); err != nil {
			errs = append(errs, fmt.Errorf("VM %s, process %d: %w", p.Name, p.PID, err))
		}
	}
	return errors.Join(errs...)
}

// awaitEnd waits until the process has ended: a pidfd is readable when its last thread is gone, also while nobody has
// reaped the zombie yet (pidfd_open(2)).
func awaitEnd(fd int, deadline time.Time) error {
	for {
		left := max(0, time.Until(deadline))
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for its end: %w", err)
		case n == 1:
			return nil
		case left == 0:
			return errors.New("still there after SIGKILL")
		}
	}
}
