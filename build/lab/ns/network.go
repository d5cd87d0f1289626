package ns

import (
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// configureNetwork brings loopback and the interfaces up with their static addresses. Duplicate-address detection is
// off: on a back-to-back cable it takes 1-2 s in which a bind fails with EADDRNOTAVAIL (lab.md section 15).
func configureNetwork(interfaces []Interface) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	for _, i := range interfaces {
		if err := configureInterface(i); err != nil {
			return fmt.Errorf("interface %s: %w", i.Name, err)
		}
	}
	return nil
}

func configureInterface(i Interface) error {
	link, err := netlink.LinkByName(i.Name)
	if err != nil {
		return err
	}
	conf := "/proc/sys/net/ipv6/conf/" + i.Name + "/"
	for name, value := range map[string]string{
		"accept_dad":        "0",
		"dad_transmits":     "0",
		"accept_ra":         "0",
		"addr_gen_mode":     "1", // no address but those given
		"keep_addr_on_down": "1",
	} {
		_ = os.WriteFile(conf+name, []byte(value), 0) // absent on a kernel without IPv6
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	for _, text := range i.Addresses {
		addr, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if strings.Contains(text, ":") {
			addr.Flags = unix.IFA_F_NODAD | unix.IFA_F_PERMANENT
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("address %s: %w", text, err)
		}
	}
	return nil
}
