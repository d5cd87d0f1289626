package ns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mountDrive mounts the ext4 file system on a lab drive through a loop device. The device is autoclear and only the
// mount holds it, so it goes when the machine's mount namespace dies: a losetup without a mount leaks (lab.md
// section 15). Loop turns the block layer's FLUSH into a FUSE fsync, which the drive sees as a FLUSH.
func mountDrive(d Drive, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("drive %s: %w", d.Name, err)
	}
	loop, err := attachLoop(d.File)
	if err != nil {
		return fmt.Errorf("drive %s: %w", d.Name, err)
	}
	defer loop.Close()
	if err := unix.Mount(loop.Name(), target, "ext4", unix.MS_NOATIME, "errors=remount-ro"); err != nil {
		return fmt.Errorf("drive %s: mount of ext4 on %s: %w", d.Name, d.Mount, err)
	}
	return nil
}

// attachLoop attaches a file to a free loop device and returns the device, open.
func attachLoop(path string) (*os.File, error) {
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	for range loopAttemptsMax {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("free loop device: %w", err)
		}
		loop, err := openLoop(n)
		if err != nil {
			return nil, err
		}
		config := &unix.LoopConfig{
			Fd:   uint32(backing.Fd()),
			Size: 0,
			Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO},
		}
		copy(config.Info.File_name[:], path)
		err = unix.IoctlLoopConfigure(int(loop.Fd()), config)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) { // busy: another program took it between the two calls
			return nil, fmt.Errorf("%s: %w", loop.Name(), err)
		}
	}
	return nil, fmt.Errorf("no free loop device after %d attempts", loopAttemptsMax)
}

// openLoop opens loop device n; where /dev is not a devtmpfs the node may have to be made first, in the machine's own
// private corner.
func openLoop(n int) (*os.File, error) {
	path := fmt.Sprintf("/dev/loop%d", n)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	path = filepath.Join(os.TempDir(), fmt.Sprintf("duet-lab-loop%d-%d", n, os.Getpid()))
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n)))); err != nil {
		return nil, fmt.Errorf("loop device %d: %w", n, err)
	}
	defer os.Remove(path)
	return os.OpenFile(path, os.O_RDWR, 0)
}
