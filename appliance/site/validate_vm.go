package site

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

func (c *checker) vms(vms []VM, volumes []Volume) {
	usedBy := map[string]string{}
	for i, v := range vms {
		at := fmt.Sprintf("vms[%d]", i)
		c.name(at+".name", v.Name)
		if slices.ContainsFunc(vms[:i], func(o VM) bool { return o.Name == v.Name }) {
			c.wrong(at+".name", fmt.Sprintf("%q is used twice", v.Name), "a VM is found by its name", "choose another name")
		}
		if v.MemoryMiB < MinMemoryMiB || v.MemoryMiB > MaxMemoryMiB {
			c.wrong(at+".memory_mib", fmt.Sprintf("is %d", v.MemoryMiB), fmt.Sprintf("a VM has %d to %d MiB", MinMemoryMiB, MaxMemoryMiB), "give its memory in MiB")
		}
		if v.VCPUs < 1 || v.VCPUs > MaxVCPUs {
			c.wrong(at+".vcpus", fmt.Sprintf("is %d", v.VCPUs), fmt.Sprintf("a VM has 1 to %d virtual CPUs", MaxVCPUs), "give their number")
		}
		c.disks(at, v, volumes, usedBy)
		c.boot(at+".boot", v)
	}
}

func (c *checker) disks(at string, v VM, volumes []Volume, usedBy map[string]string) {
	if len(v.Disks) > MaxDisks {
		c.wrong(at+".disks", fmt.Sprintf("are %d", len(v.Disks)), fmt.Sprintf("a VM has at most %d disks", MaxDisks), "use fewer, larger volumes")
	}
	for j, name := range v.Disks {
		field := fmt.Sprintf("%s.disks[%d]", at, j)
		if !slices.ContainsFunc(volumes, func(o Volume) bool { return o.Name == name }) {
			c.wrong(field, fmt.Sprintf("%q is not a volume", name), "a disk is one of the document's volumes", "add the volume, or correct the name")
		}
		if other, taken := usedBy[name]; taken {
			c.wrong(field, fmt.Sprintf("%q is a disk of %s already", name, other), "a volume has one user: two guests would destroy its file system", "give each VM its own volume")
		}
		usedBy[name] = v.Name
	}
}

func (c *checker) boot(at string, v VM) {
	b := v.Boot
	if b.Kernel == "" {
		if b.Initrd != "" || b.Cmdline != "" {
			c.wrong(at+".kernel", "is missing", "initrd and cmdline belong to a kernel", "name the kernel, or remove both to boot from the first disk")
		} else if len(v.Disks) == 0 {
			c.wrong(at, "there is nothing to boot from", "the VM has neither a disk nor a kernel", "give it a disk or a kernel")
		}
	}
	for _, f := range []struct{ field, path string }{{".kernel", b.Kernel}, {".initrd", b.Initrd}} {
		if f.path != "" && (!path.IsAbs(f.path) || path.Clean(f.path) != f.path || hasControl(f.path)) {
			c.wrong(at+f.field, fmt.Sprintf("%q is not a path", f.path), "it is an absolute path on both nodes", "write the whole path")
		}
	}
	if hasControl(b.Cmdline) {
		c.wrong(at+".cmdline", "has control characters", "a kernel command line is one line of text", "remove them")
	}
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd })
}

// key: an ed25519 public key, 32 bytes in base64.
func (c *checker) key(field, key string) {
	if raw, err := base64.StdEncoding.DecodeString(key); err != nil || len(raw) != 32 {
		c.wrong(field, "is not a key", "an ed25519 public key is 32 bytes, 44 characters of base64", "copy it again; the witness prints its key with: duet-witness key")
	}
}

// hex: 128 bits as 32 hex digits.
func (c *checker) hex(field, id string) {
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 || strings.ToLower(id) != id {
		c.wrong(field, fmt.Sprintf("%q is not an id", id), "ids are 32 lower-case hex digits", "copy it again")
	}
}

// address: an IP address and a port. Names are refused: a site decides without a name service (interfaces.md section 1).
func (c *checker) address(field, address string, portOptional bool) {
	if portOptional {
		address = withPort(address, "623")
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil || ap.Port() == 0 || ap.Addr().IsUnspecified() || ap.Addr().IsMulticast() {
		form := "203.0.113.13:7443 or [2001:db8::13]:7443"
		if portOptional {
			form = "192.0.2.11 or 192.0.2.11:623"
		}
		c.wrong(field, fmt.Sprintf("%q is not an address", address), "a site works without a name service", "write it as "+form)
	}
}

// withPort adds the port when the address has none.
func withPort(address, port string) string {
	if addr, err := netip.ParseAddr(address); err == nil {
		n, _ := strconv.ParseUint(port, 10, 16) //nolint:errcheck // a constant of this package
		return netip.AddrPortFrom(addr, uint16(n)).String()
	}
	return address
}
