package peerlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A cable that is plugged again is another interface under the old name. Both ends must find it at once: package net
// alone would use the old one's index for a minute.
func TestReplacedInterfaceIsFoundAtOnce(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	const name, local = "duetmirror0", "fe80::a%duetmirror0"
	inNetworkNamespace(t, func() error {
		for range 2 {
			if err := plug(name); err != nil {
				return err
			}
			at, err := endpoint(local, 0)
			if err != nil {
				return err
			}
			ln, err := net.Listen("tcp", at)
			if err != nil {
				return fmt.Errorf("listen: %w", err)
			}
			err = reach(Path{Local: local, Peer: local}, ln.Addr().(*net.TCPAddr).Port)
			_ = ln.Close()
			if err != nil {
				return fmt.Errorf("dial: %w", err)
			}
			if err := unplug(name); err != nil {
				return err
			}
			if _, err := endpoint(local, 0); err == nil {
				return fmt.Errorf("an endpoint on an interface that is gone")
			}
		}
		return nil
	})
}

// reach dials until it succeeds: an interface that has just come up may lose the first packet. Patience is far below the
// minute of package net.
func reach(p Path, port int) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := dial(context.Background(), p, port, time.Second)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// inNetworkNamespace runs f on a thread of its own that never returns to the scheduler.
func inNetworkNamespace(t *testing.T, f func() error) {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("network namespace: %w", err)
			return
		}
		result <- f()
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

func plug(name string) error {
	if lo, err := netlink.LinkByName("lo"); err != nil {
		return err
	} else if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := &netlink.Veth{LinkAttrs: attrs, PeerName: name + "p"}
	if err := netlink.LinkAdd(link); err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("fe80::a"), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("address of %s: %w", name, err)
	}
	other, err := netlink.LinkByName(name + "p")
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetUp(other), netlink.LinkSetUp(link))
}

func unplug(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}
