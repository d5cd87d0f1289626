package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux of ours

// procStat is what counts of /proc/PID/stat.
type procStat struct {
	own, children time.Duration // utime and stime, of the process and of its ended children
	parent        int
	started       int64 // ticks since boot: a process id is used again
	kernel        bool  // a thread of the kernel
}

const kernelThread = 0x00200000 // PF_KTHREAD of include/linux/sched.h

// parseStat reads a line of proc(5); the name in it may hold anything.
func parseStat(line string) (procStat, error) {
	at := strings.LastIndexByte(line, ')')
	if at < 0 {
		return procStat{}, fmt.Errorf("stat: %q", line)
	}
	fields := strings.Fields(line[at+1:])
	if len(fields) < 20 {
		return procStat{}, fmt.Errorf("stat: %q", line)
	}
	var numbers [7]int64
	for i, field := range []int{6, 11, 12, 13, 14, 1, 19} { // flags, utime, stime, cutime, cstime, ppid, starttime
		var err error
		if numbers[i], err = strconv.ParseInt(fields[field], 10, 64); err != nil {
			return procStat{}, fmt.Errorf("stat: %w", err)
		}
	}
	return procStat{
		own: time.Duration(numbers[1]+numbers[2]) * tick, children: time.Duration(numbers[3]+numbers[4]) * tick,
		parent: int(numbers[5]), started: numbers[6], kernel: numbers[0]&kernelThread != 0,
	}, nil
}

func readStat(pid int) (procStat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(string(text))
}

// cpuTime is what these processes have used, in the kernel too.
func cpuTime(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		s, err := readStat(pid)
		if err != nil {
			return 0, err
		}
		sum += s.own
	}
	return sum, nil
}

// processes is who uses the machine: every process but threads of the kernel, which work for whoever reads and writes.
type processes map[int]procStat

func readProcesses() (processes, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	all := processes{}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if s, err := readStat(pid); err == nil && !s.kernel { // or it has ended meanwhile
				all[pid] = s
			}
		}
	}
	return all, nil
}

// foreignUse is what all processes but ours have used between two readings. The time of one that ended is in its
// parent's, if that waited for it: what it had used before the first reading is taken off there.
func foreignUse(before, after processes, ours []int) time.Duration {
	lives := func(pid int) bool {
		is, ok := after[pid]
		return ok && is.started == before[pid].started
	}
	gone := map[int]time.Duration{} // by the nearest ancestor that lives
	for pid, was := range before {
		if lives(pid) {
			continue
		}
		heir := was.parent
		for range len(before) {
			if _, known := before[heir]; !known || lives(heir) {
				break
			}
			heir = before[heir].parent
		}
		gone[heir] += was.own + was.children
	}
	var sum time.Duration
	for pid, is := range after {
		if slices.Contains(ours, pid) {
			continue
		}
		was := before[pid]
		if was.started != is.started {
			was = procStat{}
		}
		sum += is.own - was.own + max(0, is.children-was.children-gone[pid])
	}
	return sum
}

// parseCPU reads /proc/stat: what all processors did together, and what the hypervisor kept them from.
func parseCPU(text string) (busy, steal time.Duration, err error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, 0, fmt.Errorf("/proc/stat: %q", line)
	}
	for i, field := range fields[1:9] { // user nice system idle iowait irq softirq steal
		n, err := strconv.ParseInt(field, 10, 64)
		switch {
		case err != nil:
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		case i == 7:
			steal = time.Duration(n) * tick
		case i != 3 && i != 4:
			busy += time.Duration(n) * tick
		}
	}
	return busy, steal, nil
}

// reading is the machine at one moment.
type reading struct {
	at          time.Time
	all         processes
	busy, steal time.Duration
	servers     time.Duration
}

func read(servers []int) (reading, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return reading{}, err
	}
	busy, steal, errStat := parseCPU(string(text))
	all, errAll := readProcesses()
	cpu, errCPU := cpuTime(servers)
	return reading{time.Now(), all, busy, steal, cpu}, errors.Join(errStat, errAll, errCPU)
}

// machine is where the figures come from.
func machine(dir string) map[string]any {
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
	fs, device := "unknown", "unknown"
	if text, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		fs, device = mountOf(string(text), dir)
	}
	cache := "unknown"
	if text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "queue/write_cache")); err == nil {
		cache = strings.TrimSpace(string(text))
	}
	return map[string]any{
		"cpu": model, "cores": runtime.NumCPU(), "kernel": kernel, "go": runtime.Version(),
		"filesystem": fs, "disk": filepath.Base(device), "disk_cache": cache,
	}
}

// mountOf is the file system and the device under a folder, by proc_pid_mountinfo(5).
func mountOf(text, dir string) (fs, device string) {
	fs, device = "unknown", "unknown"
	longest := -1
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 2 {
			continue
		}
		point := left[4]
		inside := point == "/" || dir == point || strings.HasPrefix(dir, point+"/")
		if inside && len(point) >= longest { // the last of equal ones lies on top
			longest, fs, device = len(point), right[0], right[1]
		}
	}
	return fs, device
}

func niceness() int {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return 0
	}
	return 20 - n // the system call's own form
}

func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "-c", "safe.directory=*", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// foreignLoad is the number of processors that others used: what their processes say, and never more than was left
// beside ours.
func foreignLoad(before, after reading, ours []int, client time.Duration) float64 {
	used := foreignUse(before.all, after.all, ours)
	left := after.busy - before.busy - (after.servers - before.servers) - client
	return max(0, float64(min(used, left))/float64(after.at.Sub(before.at)))
}
