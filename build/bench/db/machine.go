package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is where the figures come from: what matters for times, and nothing that names it.
func machine() string {
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
	return fmt.Sprintf("%s, %d cores, Linux %s, %s", model, runtime.NumCPU(), kernel, runtime.Version())
}

// versions of what is compared.
func versions(ctx context.Context) string {
	var words []string
	for _, p := range [][2]string{{"PostgreSQL", "postgresql-15"}, {"Patroni", "patroni"}, {"etcd", "etcd-server"}} {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Version}", p[1]).Output()
		if err != nil {
			out = []byte("absent")
		}
		words = append(words, p[0]+" "+strings.TrimSpace(string(out)))
	}
	return strings.Join(words, ", ") + " of Debian 12"
}

func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "-c", "safe.directory=*", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// meter counts the processors that others use, second by second: what all processors did, less what this process and
// those below it did. A lab's machine that dies takes its count with it, which makes that second look foreign; so seconds
// in which our own count fell are left out.
type meter struct {
	cancel context.CancelFunc
	done   chan struct{}
	loads  []float64
}

const (
	meterEvery = time.Second
	userTick   = 10 * time.Millisecond // USER_HZ is 100 on every Linux of ours
)

func startMeter(ctx context.Context) *meter {
	ctx, cancel := context.WithCancel(ctx)
	m := &meter{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		tick := time.NewTicker(meterEvery)
		defer tick.Stop()
		at, busy, ours := time.Now(), busyTime(), treeTime(os.Getpid())
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			nowAt, nowBusy, nowOurs := time.Now(), busyTime(), treeTime(os.Getpid())
			if nowOurs >= ours {
				m.loads = append(m.loads, max(0, float64(nowBusy-busy-(nowOurs-ours)))/float64(nowAt.Sub(at)))
			}
			at, busy, ours = nowAt, nowBusy, nowOurs
		}
	}()
	return m
}

// stop says the mean, and the highest mean of a minute.
func (m *meter) stop() (mean, most float64) {
	m.cancel()
	<-m.done
	return summary(m.loads, int(time.Minute/meterEvery))
}

func summary(loads []float64, window int) (mean, most float64) {
	var sum float64
	for i, l := range loads {
		sum += l
		if i+1 >= window {
			var part float64
			for _, l := range loads[i+1-window : i+1] {
				part += l
			}
			most = max(most, part/float64(window))
		}
	}
	if len(loads) == 0 {
		return 0, 0
	}
	mean = sum / float64(len(loads))
	return rounded(mean), rounded(max(mean, most))
}

func rounded(x float64) float64 { return float64(int(x*100+0.5)) / 100 }

// busyTime is what all processors did: user, nice, system, irq and softirq of /proc/stat.
func busyTime() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var sum time.Duration
	for i, field := range strings.Fields(line) {
		n, err := strconv.ParseInt(field, 10, 64)
		if err == nil && i >= 1 && i <= 7 && i != 4 && i != 5 {
			sum += time.Duration(n) * userTick
		}
	}
	return sum
}

// treeTime is what a process, all below it, and their ended children used.
func treeTime(root int) time.Duration {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	parents, used := map[int]int{}, map[int]time.Duration{}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path))) // the pattern has digits only
		parent, time, err := parseStat(string(text))
		if err == nil {
			parents[pid], used[pid] = parent, time
		}
	}
	var sum time.Duration
	for pid := range used {
		at := pid
		for at != root && at > 1 {
			at = parents[at]
		}
		if at == root {
			sum += used[pid]
		}
	}
	return sum
}

// parseStat reads a line of proc_pid_stat(5); the name in it may hold anything.
func parseStat(line string) (parent int, used time.Duration, err error) {
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < 15 {
		return 0, 0, fmt.Errorf("stat: %q", line)
	}
	parent, err = strconv.Atoi(fields[1])
	for _, field := range fields[11:15] { // utime, stime, cutime, cstime
		n, bad := strconv.ParseInt(field, 10, 64)
		if bad != nil {
			return 0, 0, fmt.Errorf("stat: %w", bad)
		}
		used += time.Duration(n) * userTick
	}
	return parent, used, err
}
