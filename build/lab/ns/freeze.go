package ns

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// freezePassesMax bounds the hunt for processes that fork while they are being stopped.
const freezePassesMax = 100

// Freeze stops every process of the machine, or lets all go on. It returns when two passes found nothing new: a fork
// under way may have put one more process behind the first pass.
func (b *Body) Freeze(on bool) error {
	sig := syscall.SIGCONT
	if on {
		sig = syscall.SIGSTOP
	}
	seen := map[int]bool{}
	quiet := 0
	for range freezePassesMax {
		pids, err := b.Processes()
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range pids {
			if !seen[pid] {
				seen[pid], fresh = true, true
				_ = syscall.Kill(pid, sig) // it may have ended by itself
			}
		}
		if fresh {
			quiet = 0
		} else if quiet++; quiet == 2 {
			return nil
		}
	}
	return fmt.Errorf("machine %s: processes keep appearing after %d passes", b.machine, freezePassesMax)
}

// Processes lists the machine's processes as the core sees them: all whose PID namespace is the init's.
func (b *Body) Processes() ([]int, error) {
	mine, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", b.pid))
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", b.machine, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err == nil && theirs == mine {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
