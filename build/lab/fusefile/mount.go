// Package fusefile mounts a FUSE file system that is one file: the front end of a lab drive, or a watchdog.
//
// It opens /dev/fuse and mounts by itself instead of letting go-fuse do it, because go-fuse v2.12.1's direct mount
// opens the device without O_CLOEXEC: every machine's init would inherit the server's end. When the lab is killed, the
// connection then does not end with its server; an ext4 unmount in the dying init waits for an answer that nobody can
// give, and the process stays for ever, unkillable (met, and kept out by the self-test TestOneSIGKILL).
package fusefile

import (
	"fmt"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Node is the inode number of the one file.
const Node = 2

// requestBytesMax is FUSE's largest read or write.
const requestBytesMax = 1 << 20

// backgroundMax is how many asynchronous requests the kernel sends at once.
const backgroundMax = 64

// Mount mounts fs at dir, which is made, and serves it until it is unmounted.
func Mount(dir, name string, fs fuse.RawFileSystem) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: /dev/fuse: %w", name, err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,max_read=%d", fd, requestBytesMax)
	if err := unix.Mount(name, dir, "fuse."+name, unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(fd)
		return fmt.Errorf("%s: FUSE mount on %s: %w", name, dir, err)
	}
	server, err := fuse.NewServer(fs, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		FsName: name, Name: name, MaxWrite: requestBytesMax, MaxBackground: backgroundMax, DisableXAttrs: true,
		DisableSplice: true, // a request of 1 MiB and its header do not fit a pipe: each would be logged
	})
	if err != nil {
		unix.Close(fd)
		_ = unix.Unmount(dir, unix.MNT_DETACH) // the first error says more
		return fmt.Errorf("%s: FUSE server of %s: %w", name, dir, err)
	}
	go server.Serve()
	return nil
}

// Unmount takes the mount away, lazily: what still holds it ends with its holder.
func Unmount(dir string) error {
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount of %s: %w", dir, err)
	}
	return os.Remove(dir)
}

// Attr describes the root folder, or the file with the given size.
func Attr(node uint64, sizeBytes int64, a *fuse.Attr) {
	a.Ino, a.Nlink, a.Mode = node, 1, syscall.S_IFDIR|0o700
	if node == Node {
		const block, sector = 4096, 512
		a.Mode, a.Size, a.Blksize, a.Blocks = syscall.S_IFREG|0o600, uint64(sizeBytes), block, uint64(sizeBytes)/sector
	}
}
