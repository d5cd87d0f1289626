package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Footprint is what exists on this machine outside any lab: network links, mounts, loop devices in use, and programs
// of the site.
func Footprint() (map[string]bool, error) {
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
		found["loop "+l] = true
	}
	return found, programs(found)
}

// programs adds the processes that only a lab starts.
func programs(found map[string]bool) error {
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}
	ours := []string{"duetd", "duet-mirrord", "duet-witness", "libvirtd", "qemu-system-x86"}
	for _, path := range comms {
		comm, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		if name := strings.TrimSpace(string(comm)); slices.Contains(ours, name) {
			found[fmt.Sprintf("process %s %s", name, filepath.Base(filepath.Dir(path)))] = true
		}
	}
	return nil
}

// Leftovers names what is there now and was not before.
func Leftovers(before map[string]bool) ([]string, error) {
	now, err := Footprint()
	if err != nil {
		return nil, err
	}
	var left []string
	for thing := range now {
		if !before[thing] {
			left = append(left, thing)
		}
	}
	slices.Sort(left)
	return left, nil
}
