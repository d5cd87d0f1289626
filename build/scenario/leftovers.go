package scenario

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// clearLimit is how long the kernel may take to give up loop devices after their last user has gone (autoclear is
// deferred work).
const clearLimit = 5 * time.Second

// core is the name of a lab's first process.
const core = "duet-lab-core"

// programsOfASite are processes that only a lab starts.
var programsOfASite = []string{"duetd", "duet-mirrord", "duet-witness", "libvirtd", "qemu-system-x86_64", "duet-lab-boot"}

// Footprint is what exists on this machine because of the lab with this state folder, or could: links and mounts,
// loop devices on its drives, and programs of a site that belong to no living lab.
func Footprint(state string) (map[string]bool, error) {
	found := map[string]bool{}
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		found["link "+l.Name()] = true
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 {
			found["mount "+fields[1]] = true
		}
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	for _, l := range loops {
		// A loop that went away meanwhile has no backing file to read, and is no leftover.
		if backing, err := os.ReadFile(l); err == nil && strings.Contains(string(backing), state) {
			found["loop "+strings.TrimSpace(string(backing))] = true
		}
	}
	return found, strays(found)
}

// strays adds processes of a site that hang on no lab's core: whatever lives below one belongs to that lab. Whoever is in
// this process's own PID namespace was never in a lab: another test's daemon, perhaps.
func strays(found map[string]bool) error {
	here, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return err
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	type process struct{ program, parent string }
	all := map[string]process{}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		argv, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err != nil {
			continue
		}
		program, _, _ := strings.Cut(string(argv), "\x00") // the name by which it was started: a core is a lab's own executable
		if fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])); len(fields) > 1 {
			all[filepath.Base(filepath.Dir(path))] = process{filepath.Base(program), fields[1]}
		}
	}
	for pid, p := range all {
		if !slices.Contains(programsOfASite, p.program) {
			continue
		}
		if space, err := os.Readlink(filepath.Join("/proc", pid, "ns/pid")); err != nil || space == here {
			continue // ended meanwhile, or never of a lab
		}
		at := pid
		for at != "" && at != "0" && all[at].program != core {
			at = all[at].parent
		}
		if all[at].program != core {
			found[fmt.Sprintf("process %s %s", p.program, pid)] = true
		}
	}
	return nil
}

// Leftovers names what is there now and was not before, after the kernel had its time.
func Leftovers(ctx context.Context, state string, before map[string]bool) ([]string, error) {
	deadline := time.Now().Add(clearLimit)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		now, err := Footprint(state)
		if err != nil {
			return nil, err
		}
		maps.DeleteFunc(now, func(thing string, _ bool) bool { return before[thing] })
		if len(now) == 0 || time.Now().After(deadline) {
			return slices.Sorted(maps.Keys(now)), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
