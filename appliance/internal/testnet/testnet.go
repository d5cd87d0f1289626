// Package testnet gives tests networks of their own: the test runs again in a fresh network namespace, and further ones
// are rooms that hold the other ends of cables. Real interfaces, real packets, and nothing of the machine's own network is
// seen or changed.
//
// It is for tests only and needs root. Without root, or with -short, the test is skipped and says so. A room ends with its
// test; interfaces go with their rooms.
package testnet

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inside names the variable that a test finds in its own network.
const inside = "DUET_TESTNET"

// Isolate runs the calling test again, as a process in a fresh network namespace, and gives true there. The other one gets
// false when that has ended: it has nothing more to do.
func Isolate(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		if err := up("lo"); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if testing.Short() {
		t.Skip("short: makes network namespaces")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	return false
}

// Room is another network namespace.
type Room struct {
	work chan func()
	ns   int
}

// NewRoom makes one with its loopback interface up.
func NewRoom(t *testing.T) *Room {
	t.Helper()
	r := &Room{work: make(chan func())}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			r.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		if err == nil {
			err = up("lo")
		}
		failed <- err
		if err != nil {
			return
		}
		for f := range r.work {
			f()
		}
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(r.work)
		unix.Close(r.ns)
	})
	return r
}

// Do runs f in the room: sockets that it opens stay there. f starts no goroutine that needs the room.
func (r *Room) Do(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	r.work <- func() { done <- f() }
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Cable lays a veth pair from this namespace to the room, both ends up.
func (r *Room) Cable(t *testing.T, here, there string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = here
	err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: there, PeerNamespace: netlink.NsFd(r.ns)})
	if err == nil {
		err = up(here)
	}
	if err != nil {
		t.Fatalf("cable %s: %v", here, err)
	}
	r.Do(t, func() error { return up(there) })
}

// Address puts an address with its network on an interface of the present namespace.
func Address(name, cidr string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	ip, network, err := net.ParseCIDR(cidr)
	if err != nil {
		return err
	}
	network.IP = ip
	return netlink.AddrReplace(link, &netlink.Addr{IPNet: network, Flags: unix.IFA_F_NODAD})
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return netlink.LinkSetUp(link)
}
