// Package deps is the list of Debian packages that duet's lab and tests stand on, and the question which of them
// this machine lacks. Real components only: the lab runs Debian's own libvirt, QEMU, fio and ipmitool.
//
// A list is the one place to add a package; `make deps` installs it, the lab names missing ones before it starts. Packages
// serves everybody; what one benchmark alone compares with has a list of its own.
package deps

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// Package is a Debian package and the reason it is needed.
type Package struct{ Name, For string }

// Packages are all that `make run`, `make demo` and `make test` need on Debian 12 beside Go.
var Packages = []Package{
	{"iproute2", "addresses and bridges of the lab, seen by people"},
	{"procps", "pkill and pgrep: the scenarios stop a guest in its tracks"},
	{"e2fsprogs", "file systems on the lab's drives, and on a volume"},
	{"xfsprogs", "a second file system on a volume"},
	{"libvirt-daemon-system", "one libvirtd per node"},
	{"libvirt-daemon-driver-qemu", "virtual machines"},
	{"libvirt-clients", "virsh, for people in a node"},
	{"qemu-system-x86", "virtual machines (TCG)"},
	{"qemu-system-common", "qemu-storage-daemon: the client below file systems on a volume, and a peer of the benchmark"},
	{"qemu-utils", "qemu-img and qemu-io: judges of the NBD server"},
	{"linux-image-cloud-amd64", "kernel of the tiny guest"},
	{"fio", "load with verification"},
	{"libnbd-bin", "nbdinfo and nbdcopy: judges of the NBD server"},
	{"python3-libnbd", "nbdsh: protocol cases of the NBD server"},
	{"ipmitool", "judge of the BMC simulator"},
	{"openipmi", "ipmi_sim: second, independent BMC"},
	{"mbpoll", "judge of the PDU simulator"},
	{"etcd-server", "second store of the witness: started by tests on loopback, never as a service"},
	{"postgresql-15", "the database pair: its programs are run by tests, without a cluster of Debian's and without its service"},
}

// BenchPG are what `make bench-pg` needs beside Packages: what the database pair is compared with. No test needs them.
var BenchPG = []Package{
	{"patroni", "the other pair: its programs are run in the lab, never as a service of this machine"},
	{"python3-etcd", "its way to etcd, one of the alternatives of its package"},
}

// Missing names the packages of a list that are not installed.
func Missing(ctx context.Context, packages []Package) ([]string, error) {
	args := []string{"-W", "-f", "${Package} ${db:Status-Abbrev}\n"}
	for _, p := range packages {
		args = append(args, p.Name)
	}
	// dpkg-query exits 1 when it knows one of the names not at all; what it prints is still right.
	out, err := exec.CommandContext(ctx, "dpkg-query", args...).Output()
	if len(out) == 0 && err != nil && !isExit(err) {
		return nil, fmt.Errorf("this is not a Debian machine (dpkg-query: %w)", err)
	}
	installed := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		name, status, _ := strings.Cut(strings.TrimSpace(line), " ")
		installed[name] = strings.HasPrefix(status, "ii")
	}
	var missing []string
	for _, p := range packages {
		if !installed[p.Name] {
			missing = append(missing, p.Name)
		}
	}
	return missing, nil
}

// InstallLine is the one command that a person runs to get them.
func InstallLine(missing []string) string {
	return "apt-get install --no-install-recommends " + strings.Join(missing, " ")
}

func isExit(err error) bool {
	_, ok := err.(*exec.ExitError) //nolint:errorlint // exec returns it unwrapped
	return ok
}
