package ns

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// initName is argv[0] of an init before it has its clocks, bootName after.
const (
	initName = "duet-lab-init"
	bootName = "duet-lab-boot"
)

// searchPath of everything in a machine.
const searchPath = BinDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Reexec becomes an init when this process was started as one; else it returns.
func Reexec() {
	if len(os.Args) == 0 {
		return
	}
	var err error
	switch os.Args[0] {
	case initName:
		err = setClocks()
	case bootName:
		err = runInit()
	default:
		return
	}
	fmt.Fprintln(os.Stderr, "lab init:", err)
	os.Exit(1)
}

// setClocks gives this process a time namespace and executes the init in it. A process enters its new time namespace
// only by a fork or, since Linux 6.1, by an exec; offsets can be written only before the first process is inside
// (time_namespaces(7)).
func setClocks() error {
	runtime.LockOSThread()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts private: %w", err)
	}
	// The inherited /proc shows the core's PID namespace; thread ids below are those of the new one.
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount of /proc: %w", err)
	}
	offset, err := strconv.ParseInt(os.Args[1], 10, 64)
	if err != nil {
		return fmt.Errorf("clock offset: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return fmt.Errorf("time namespace: %w", err)
	}
	// Not /proc/self: the namespace for children belongs to this thread, which need not be the first.
	path := fmt.Sprintf("/proc/%d/timens_offsets", unix.Gettid())
	sec, nsec := offset/1e9, offset%1e9
	if nsec < 0 {
		sec, nsec = sec-1, nsec+1e9
	}
	text := fmt.Sprintf("monotonic %d %d\nboottime %d %d\n", sec, nsec, sec, nsec)
	if err := os.WriteFile(path, []byte(text), 0); err != nil {
		return fmt.Errorf("clock offsets: %w", err)
	}
	if err := syscall.Exec("/proc/self/exe", []string{bootName}, os.Environ()); err != nil {
		return fmt.Errorf("exec of the init: %w", err)
	}
	return nil
}
