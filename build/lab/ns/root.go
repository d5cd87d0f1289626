package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// buildRoot puts the machine's root together below s.Root and makes it the root. Everything outside becomes
// unreachable; it returns the log folder, opened before.
func buildRoot(s *Spec) (logs *os.Root, err error) {
	if logs, err = os.OpenRoot(s.LogDir); err != nil {
		return nil, fmt.Errorf("log folder: %w", err)
	}
	// index=off,metacopy=off: the plain overlay, whatever the kernel's defaults are.
	options := fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s,index=off,metacopy=off", s.Upper, s.Work)
	if err := unix.Mount("overlay", s.Root, "overlay", 0, options); err != nil {
		return nil, fmt.Errorf("overlay over / (upper %s; a machine whose own root is an overlay needs a state folder "+
			"on a real file system or tmpfs): %w", s.Upper, err)
	}
	in := func(path string) string { return filepath.Join(s.Root, path) }
	for _, m := range []struct {
		fstype, target, options string
		flags                   uintptr
	}{
		{"proc", "/proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", "/sys", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/run", "mode=755", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/tmp", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := os.MkdirAll(in(m.target), 0o755); err != nil {
			return nil, fmt.Errorf("root: %w", err)
		}
		if err := unix.Mount(m.fstype, in(m.target), m.fstype, m.flags, m.options); err != nil {
			return nil, fmt.Errorf("mount of %s: %w", m.target, err)
		}
	}
	for _, dir := range s.Hide { // the lab's own state and disks, seen through the lower
		if _, err := os.Stat(in(dir)); err != nil {
			continue
		}
		if err := unix.Mount("tmpfs", in(dir), "tmpfs", unix.MS_RDONLY, "size=4k"); err != nil {
			return nil, fmt.Errorf("hiding %s: %w", dir, err)
		}
	}
	if err := buildDev(in("/dev"), s.Watchdog); err != nil {
		return nil, err
	}
	if s.Bin != "" {
		if err := bind(s.Bin, in(BinDir), true); err != nil {
			return nil, err
		}
		if err := unix.Mount("", in(BinDir), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return nil, fmt.Errorf("programs read-only: %w", err)
		}
	}
	for _, d := range s.Drives {
		if err := mountDrive(d, in(d.Mount)); err != nil {
			return nil, err
		}
	}
	if err := bindBootID(s, in); err != nil {
		return nil, err
	}
	return logs, enter(s.Root)
}

// bindBootID gives this power-on its own boot id. Without it "has the peer rebooted?" could not be tested.
func bindBootID(s *Spec, in func(string) string) error {
	id := in("/run/boot_id")
	if err := os.WriteFile(id, []byte(s.BootID+"\n"), 0o444); err != nil {
		return fmt.Errorf("boot id: %w", err)
	}
	if err := unix.Mount(id, in("/proc/sys/kernel/random/boot_id"), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("boot id: %w", err)
	}
	return nil
}

// enter makes root the root of this mount namespace and drops the old one (pivot_root(2), "." on ".").
func enter(root string) error {
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("old root: %w", err)
	}
	return os.Chdir("/")
}

// bind binds a folder (or a file) on target, which is made.
func bind(source, target string, folder bool) error {
	if folder {
		if err := os.MkdirAll(target, 0o755); err != nil {
			return fmt.Errorf("bind of %s: %w", source, err)
		}
	} else if err := os.WriteFile(target, nil, 0o600); err != nil {
		return fmt.Errorf("bind of %s: %w", source, err)
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind of %s: %w", source, err)
	}
	return nil
}

// buildDev makes a private /dev: nothing that a node does there reaches the machine. /dev/kvm is left out on purpose:
// where it opens but cannot run a guest, libvirt would choose it.
func buildDev(dev, watchdog string) error {
	if err := os.MkdirAll(dev, 0o755); err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID, "mode=755,size=1m"); err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	for _, n := range []struct {
		name         string
		major, minor uint32
	}{
		{"null", 1, 3},
		{"zero", 1, 5},
		{"full", 1, 7},
		{"random", 1, 8},
		{"urandom", 1, 9},
		{"tty", 5, 0},
		{"net/tun", 10, 200},
	} {
		path := filepath.Join(dev, n.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("dev: %w", err)
		}
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(n.major, n.minor))); err != nil {
			return fmt.Errorf("dev/%s: %w", n.name, err)
		}
		if err := os.Chmod(path, 0o666); err != nil { // mknod obeys the umask
			return fmt.Errorf("dev/%s: %w", n.name, err)
		}
	}
	for _, dir := range []string{"pts", "shm"} {
		if err := os.Mkdir(filepath.Join(dev, dir), 0o755); err != nil {
			return fmt.Errorf("dev: %w", err)
		}
	}
	if err := unix.Mount("devpts", filepath.Join(dev, "pts"), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC,
		"newinstance,ptmxmode=0666,mode=620"); err != nil {
		return fmt.Errorf("dev/pts: %w", err)
	}
	if err := unix.Mount("tmpfs", filepath.Join(dev, "shm"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return fmt.Errorf("dev/shm: %w", err)
	}
	for link, to := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(to, filepath.Join(dev, link)); err != nil {
			return fmt.Errorf("dev: %w", err)
		}
	}
	if watchdog == "" {
		return nil
	}
	return bind(watchdog, filepath.Join(dev, "watchdog"), false)
}

// writeFiles makes the machine's own files, after the root is entered.
func writeFiles(s *Spec) error {
	files := append([]File{
		{Path: "/etc/machine-id", Mode: 0o444, Data: s.MachineID + "\n"},
		{Path: "/etc/hostname", Mode: 0o644, Data: s.Hostname + "\n"},
	}, s.Files...)
	for _, path := range s.Remove {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removal: %w", err)
		}
	}
	for _, dir := range s.Folders {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("folder: %w", err)
		}
	}
	for _, f := range files {
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
			return fmt.Errorf("file: %w", err)
		}
		if err := os.Remove(f.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("file: %w", err)
		}
		if err := os.WriteFile(f.Path, []byte(f.Data), fs.FileMode(f.Mode)); err != nil {
			return fmt.Errorf("file: %w", err)
		}
	}
	return nil
}
