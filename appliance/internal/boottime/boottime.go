// Package boottime reads the only clock that duet decides by: CLOCK_BOOTTIME, which never jumps, never stops
// during suspend and starts again at zero with every boot (architecture.md section 7). It also names the boot.
//
// Wall time is for people; a deadline that was computed on one boot means nothing on the next, which is why
// everything that outlives a process carries the boot id beside the time. Reading the clock cannot fail on a
// kernel that has it; a kernel without it is refused at start by a panic, not by a wrong decision later.
package boottime

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// bootIDFile is the kernel's random id of this boot.
const bootIDFile = "/proc/sys/kernel/random/boot_id"

// Now is nanoseconds on CLOCK_BOOTTIME.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("boottime: CLOCK_BOOTTIME: %v", err))
	}
	return ts.Nano()
}

// BootID is the id of this boot of this node.
func BootID() (string, error) {
	b, err := os.ReadFile(bootIDFile)
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if id == "" {
		return "", errors.New("boot id: empty")
	}
	return id, nil
}
