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
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Switch makes a bridge with the given addresses (CIDR) for the lab's own devices. Spanning tree, multicast snooping
// and the forwarding delay are off: a frame passes as soon as both ports are up.
func Switch(name string, addresses ...string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	off := false
	// A bridge without an address of its own takes the lowest of its ports' and changes it when that port goes: with
	// every power cut the BMCs and the PDU would move to another MAC and be lost until the neighbour tables notice.
	sum := fnv.New32a()
	sum.Write([]byte(name)) // never fails
	attrs.HardwareAddr = binary.BigEndian.AppendUint32([]byte{0x02, 0xdb}, sum.Sum32())
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
	Group    uint32           // of all ports of one machine, for UnplugAll; not 0
}

// Plug makes the port: the inner end straight in the network namespace of the process, the outer end in the switch.
func Plug(p Port, pid int) error {
	br, err := netlink.LinkByName(p.Switch)
	if err != nil {
		return fmt.Errorf("port %s: switch %s: %w", p.Outer, p.Switch, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.Group = p.Outer, br.Attrs().Index, p.Group
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

// UnplugAll removes all ports of a group with both their ends in one transaction of the kernel: no frame passes
// afterwards, and no port is silent before another. A group without ports is no error: the machine may have died before
// it had any.
func UnplugAll(group uint32) error {
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("ports of group %d: %w", group, err)
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
