// Package cable is the wiring outside the nodes: bridges as switches, and a veth from every network port of a machine
// to its socket in one of them.
//
// Each port's outer end lives in the lab's network namespace, out of the machine's reach: a daemon that repairs links
// undoes `ip link set down` on its own side, never on this one. A pulled cable or a peer without power is the outer
// end set down, so the machine keeps its interface and its addresses and loses carrier, as with real hardware.
//
// Two ports of one switch can be forbidden to talk to each other while both reach everything else (bridge port
// isolation). That is how the BMC network and the WAN are wired (nodes never meet there), and how "the switch between
// the nodes fails" is done without taking a node's way to its clients.
package cable

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// Switch makes a bridge with the given addresses (CIDR) for the lab's own devices. Spanning tree, multicast snooping
// and the forwarding delay are off: a frame passes as soon as both ports are up.
func Switch(name string, addresses ...string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	off := false
	br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}
	if err := netlink.LinkAdd(br); err != nil {
		return fmt.Errorf("switch %s: %w", name, err)
	}
	for _, text := range addresses {
		addr, err := netlink.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("switch %s: %w", name, err)
		}
		if err := netlink.AddrAdd(br, addr); err != nil {
			return fmt.Errorf("switch %s: address %s: %w", name, text, err)
		}
	}
	if err := netlink.LinkSetUp(br); err != nil {
		return fmt.Errorf("switch %s: %w", name, err)
	}
	return nil
}

// Port is a network port of a machine.
type Port struct {
	Outer    string // name of the end in the lab, at most 15 characters: "a-mirror0"
	Inner    string // name in the machine: "mirror0"
	Switch   string
	MAC      net.HardwareAddr // of the inner end; a network card keeps its own over power cycles
	Isolated bool             // may not talk to other isolated ports of the switch
	Carrier  bool             // cable in, and the other end alive
}

// Plug makes the port: the inner end straight in the network namespace of the process, the outer end in the switch.
func Plug(p Port, pid int) error {
	br, err := netlink.LinkByName(p.Switch)
	if err != nil {
		return fmt.Errorf("port %s: switch %s: %w", p.Outer, p.Switch, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = p.Outer, br.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: p.Inner, PeerHardwareAddr: p.MAC, PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("port %s: %w", p.Outer, err)
	}
	if p.Isolated {
		if err := netlink.LinkSetIsolated(veth, true); err != nil {
			return fmt.Errorf("port %s: isolation: %w", p.Outer, err)
		}
	}
	if !p.Carrier {
		return nil
	}
	return SetCarrier(p.Outer, true)
}

// Unplug removes the port with both its ends, at once: no frame passes afterwards. A port that is not there is no
// error, because a machine may have died before it had all of them.
func Unplug(outer string) error {
	link, err := netlink.LinkByName(outer)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	var absent netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &absent) {
		return fmt.Errorf("port %s: %w", outer, err)
	}
	return nil
}

// SetCarrier plugs the cable in or pulls it.
func SetCarrier(outer string, on bool) error {
	link, err := netlink.LinkByName(outer)
	if err != nil {
		return fmt.Errorf("port %s: %w", outer, err)
	}
	set := netlink.LinkSetDown
	if on {
		set = netlink.LinkSetUp
	}
	if err := set(link); err != nil {
		return fmt.Errorf("port %s: carrier: %w", outer, err)
	}
	return nil
}

// SetIsolated forbids or allows the port to talk to other isolated ports of its switch.
func SetIsolated(outer string, on bool) error {
	link, err := netlink.LinkByName(outer)
	if err != nil {
		return fmt.Errorf("port %s: %w", outer, err)
	}
	if err := netlink.LinkSetIsolated(link, on); err != nil {
		return fmt.Errorf("port %s: isolation: %w", outer, err)
	}
	return nil
}

// Exists says whether the port is there.
func Exists(outer string) bool {
	_, err := netlink.LinkByName(outer)
	return err == nil
}
