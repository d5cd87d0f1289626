// Package guest is the tiny virtual machine of the lab: Debian's cloud kernel, an initramfs with one static program,
// and a disk on which that program counts. Each guest is its own detector of lost writes.
//
// The program (build/cmd/guest-init) writes number n to its slot on /dev/vda with O_DIRECT, syncs, and only then says
// "ACK n" on the serial console. When it boots it reads all slots, says "RESUME n" with the newest number, or "BAD ..."
// when a slot is torn, foreign or older than it must be, and counts on from there.
//
// The package builds the initramfs (Build) and knows the counter's format (Last, Encode). It needs the kernel package
// that `make deps` installs and says so when it is missing.
package guest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// modules in the order in which they must be loaded.
var modules = []string{
	"virtio/virtio_ring.ko", "virtio/virtio.ko", "virtio/virtio_pci_modern_dev.ko", "virtio/virtio_pci_legacy_dev.ko",
	"virtio/virtio_pci.ko", "block/virtio_blk.ko",
}

// ErrNoKernel names what to install.
var ErrNoKernel = errors.New("no cloud kernel in /boot: apt-get install linux-image-cloud-amd64")

// Kernel is the newest cloud kernel of this machine.
func Kernel() (path, release string, err error) {
	found, err := filepath.Glob("/boot/vmlinuz-*-cloud-amd64")
	if err != nil {
		return "", "", err
	}
	if len(found) == 0 {
		return "", "", ErrNoKernel
	}
	slices.Sort(found)
	path = found[len(found)-1]
	return path, strings.TrimPrefix(filepath.Base(path), "vmlinuz-"), nil
}

// Build writes the initramfs for a kernel release with initProgram as its /init.
func Build(path, release, initProgram string) error {
	program, err := os.ReadFile(initProgram)
	if err != nil {
		return fmt.Errorf("guest program: %w", err)
	}
	var archive bytes.Buffer
	z := gzip.NewWriter(&archive)
	a := newc{w: z}
	for _, dir := range []string{"dev", "proc", "modules"} {
		a.add(dir, 0o040755, nil)
	}
	a.add("init", 0o100755, program)
	for i, m := range modules {
		data, err := os.ReadFile(filepath.Join("/lib/modules", release, "kernel/drivers", m))
		if err != nil {
			return fmt.Errorf("guest kernel module: %w", err)
		}
		a.add(fmt.Sprintf("modules/%02d-%s", i, filepath.Base(m)), 0o100644, data)
	}
	a.add("TRAILER!!!", 0, nil)
	if err := errors.Join(a.err, z.Close()); err != nil {
		return err
	}
	return os.WriteFile(path, archive.Bytes(), 0o644)
}

// newc writes the "new ASCII" cpio format, the one the kernel unpacks (Documentation/driver-api/early-userspace).
type newc struct {
	w     *gzip.Writer
	inode int
	err   error
}

func (a *newc) add(name string, mode uint32, data []byte) {
	a.inode++
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	a.write([]byte(header + name + "\x00"))
	a.pad(len(header) + len(name) + 1)
	a.write(data)
	a.pad(len(data))
}

// pad brings the archive to the next multiple of four.
func (a *newc) pad(n int) { a.write(make([]byte, (4-n%4)%4)) }

func (a *newc) write(p []byte) {
	if a.err == nil {
		_, a.err = a.w.Write(p)
	}
}
