package addresses

import (
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// entry is the address as the kernel gets it; left: until the kernel takes it away by itself, 0: never.
func (a Address) entry(left time.Duration) *netlink.Addr {
	mask := net.CIDRMask(a.IP.BitLen(), a.IP.BitLen())
	valid := math.MaxUint32 // without an end (rtnetlink(7): INFINITY_LIFE_TIME)
	if left > 0 {
		valid = int(math.Ceil(left.Seconds()))
	}
	return &netlink.Addr{
		IPNet: &net.IPNet{IP: a.IP.AsSlice(), Mask: mask}, Flags: unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE, ValidLft: valid,
	}
}

func (a Address) put(left time.Duration) error {
	link, err := netlink.LinkByName(a.Interface)
	if err != nil {
		return fmt.Errorf("interface %s: %w", a.Interface, err)
	}
	if err := netlink.AddrReplace(link, a.entry(left)); err != nil {
		return fmt.Errorf("address %s on %s: %w", a.IP, a.Interface, err)
	}
	return nil
}

// remove is done when the address is not there, whoever took it away, and also when its interface is gone.
func (a Address) remove() error {
	link, err := netlink.LinkByName(a.Interface)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("interface %s: %w", a.Interface, err)
	}
	err = netlink.AddrDel(link, &netlink.Addr{IPNet: a.entry(0).IPNet})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("address %s on %s: %w", a.IP, a.Interface, err)
	}
	return nil
}

// present asks the kernel.
func (a Address) present() (bool, error) {
	link, err := netlink.LinkByName(a.Interface)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("interface %s: %w", a.Interface, err)
	}
	family := netlink.FAMILY_V4
	if a.IP.Is6() {
		family = netlink.FAMILY_V6
	}
	all, err := netlink.AddrList(link, family)
	if err != nil {
		return false, fmt.Errorf("addresses of %s: %w", a.Interface, err)
	}
	for _, have := range all {
		if ones, bits := have.Mask.Size(); have.IP.Equal(a.IP.AsSlice()) && ones == bits {
			return true, nil
		}
	}
	return false, nil
}
