package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const filesLimit = 65_536 // 20,000 connections on each side, and room

const filesSpare = 40 // of either program, beside its connections

// connectionsMax raises the limit of open files as far as this machine lets it, for this process and the witness, and
// says how many connections each of them can hold.
func connectionsMax() (int, error) {
	limit := syscall.Rlimit{Cur: filesLimit, Max: filesLimit}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		return filesLimit - filesSpare, nil
	}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil { // said once, it is the witness's too
		return 0, err
	}
	return int(limit.Max) - filesSpare, nil
}

// isolated runs this program again in a network namespace of its own.
func isolated(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{"-inside"}, args...)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	return cmd.Run()
}

// loopbackUp gives the new namespace its lo.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// onWire is the number of bytes that went through lo, IP headers included, each packet once.
func onWire() (uint64, error) {
	text, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if name, rest, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "lo" {
			return strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/net/dev has no lo")
}

// memoryKiB is a field of /proc/PID/status.
func memoryKiB(pid int, field string) (int, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), field+":"); ok {
			return strconv.Atoi(strings.Fields(value)[0])
		}
	}
	return 0, fmt.Errorf("no %s of process %d", field, pid)
}

// cpuTime is what the process has used, in the kernel too.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+2:]))
	user, errUser := strconv.ParseInt(fields[11], 10, 64)
	system, errSystem := strconv.ParseInt(fields[12], 10, 64)
	if errUser != nil || errSystem != nil {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, fields)
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux of ours
	return time.Duration(user+system) * tick, nil
}

// machine is where the figures come from.
func machine() map[string]any {
	var name unix.Utsname
	kernel := "unknown"
	if unix.Uname(&name) == nil {
		kernel = unix.ByteSliceToString(name.Release[:])
	}
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(text), "model name"); ok {
			line, _, _ := strings.Cut(rest, "\n")
			model = strings.TrimSpace(strings.TrimLeft(line, "\t :"))
		}
	}
	return map[string]any{"cpu": model, "cores": runtime.NumCPU(), "kernel": kernel, "go": runtime.Version()}
}

func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "-c", "safe.directory=*", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// witness is the program under test.
type witness struct {
	cmd  *exec.Cmd
	key  string
	data string
	log  *os.File
}

const witnessCore = "0" // the witness alone on it; this process is on the others

// startWitness runs the program on one core over the enrolments in data.
func startWitness(ctx context.Context, program, data, listen string) (*witness, error) {
	key, err := exec.CommandContext(ctx, program, "key", "--data", data).Output()
	if err != nil {
		return nil, fmt.Errorf("%s key: %w", program, err)
	}
	log, err := os.Create(filepath.Join(filepath.Dir(data), "witness.log"))
	if err != nil {
		return nil, err
	}
	w := &witness{key: strings.TrimSpace(string(key)), data: data, log: log}
	w.cmd = exec.CommandContext(ctx, "taskset", "-c", witnessCore, program, "serve", "--data", data, "--listen", listen)
	w.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	w.cmd.Stdout, w.cmd.Stderr = log, log
	w.cmd.Cancel = func() error { return w.cmd.Process.Signal(syscall.SIGTERM) }
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return w, w.cmd.Start()
}

func (w *witness) pid() int { return w.cmd.Process.Pid } // taskset replaces itself by the program

func (w *witness) stop() {
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	_ = w.cmd.Wait()
	w.log.Close()
}
