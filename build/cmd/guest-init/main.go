// Command guest-init is PID 1 of the lab's tiny guest: it loads the virtio modules, finds its disk, and counts on it for
// ever (package build/lab/guest).
//
// It speaks on the serial console, one line each: "RESUME n" after a boot, with the newest number found on the disk;
// "ACK n" when the write of n was synced; "BAD why" when the disk does not hold what it must, or when anything else
// keeps it from counting; then it powers off, so that a guest that cannot judge never looks like one that found nothing.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"duet/build/lab/guest"
)

// every is the pause between two numbers.
const every = 200 * time.Millisecond

// diskLimit bounds the wait for the disk to appear after its driver is loaded.
const diskLimit = 30 * time.Second

func main() {
	err := run(os.Stdout)
	fmt.Fprintf(os.Stdout, "BAD %v\n", err)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) // PID 1 must not return; nothing is left to tell
}

func run(console io.Writer) error {
	for _, m := range []struct{ kind, at string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && err != unix.EBUSY { // an errno
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if err := loadModules(); err != nil {
		return err
	}
	disk, err := openDisk("/dev/vda")
	if err != nil {
		return err
	}
	return count(disk, console)
}

func loadModules() error {
	files, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close()
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	return nil
}

func openDisk(name string) (int, error) {
	deadline := time.Now().Add(diskLimit)
	for {
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_DIRECT, 0)
		if err == nil {
			return fd, nil
		}
		if time.Now().After(deadline) {
			return -1, fmt.Errorf("disk %s: %w", name, err)
		}
		<-time.After(10 * time.Millisecond) // the driver probes by itself; there is nothing to wait on
	}
}

func count(disk int, console io.Writer) error {
	// One mapping is aligned as O_DIRECT wants it.
	buf, err := unix.Mmap(-1, 0, guest.Slots*guest.BlockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	if n, err := unix.Pread(disk, buf, 0); err != nil || n != len(buf) {
		return fmt.Errorf("read: %d bytes, %w", n, err)
	}
	last, err := guest.Last(buf)
	if err != nil {
		return err
	}
	fmt.Fprintf(console, "RESUME %d\n", last)
	block := buf[:guest.BlockSize]
	pace := time.NewTicker(every)
	defer pace.Stop()
	for n := last + 1; ; n++ {
		guest.Encode(block, n)
		if _, err := unix.Pwrite(disk, block, int64(n%guest.Slots)*guest.BlockSize); err != nil {
			return fmt.Errorf("write of %d: %w", n, err)
		}
		if err := unix.Fsync(disk); err != nil {
			return fmt.Errorf("sync of %d: %w", n, err)
		}
		fmt.Fprintf(console, "ACK %d\n", n)
		<-pace.C
	}
}
