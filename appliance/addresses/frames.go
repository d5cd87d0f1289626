package addresses

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
)

// Ethernet frames, built and read by hand: a raw socket takes them whole. All numbers are big-endian.
const (
	etherARP  = 0x0806
	etherIPv6 = 0x86DD

	ethernetBytes = 14
	arpBytes      = 28
	ipv6Bytes     = 40
	icmpSolicit   = 135 // RFC 4861 section 4.3
	icmpAdvertise = 136 // section 4.4
	icmpProtocol  = 58
	hopLimit      = 255 // anything else was routed, and is dropped (section 6.1)

	arpRequest, arpReply = 1, 2
)

var (
	broadcast    = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	nobody       = net.HardwareAddr{0, 0, 0, 0, 0, 0}
	allNodes     = netip.MustParseAddr("ff02::1")
	unspecified4 = netip.IPv4Unspecified()
	unspecified6 = netip.IPv6Unspecified()
)

func ethernet(to, from net.HardwareAddr, kind uint16) []byte {
	b := append(append([]byte{}, to...), from...)
	return binary.BigEndian.AppendUint16(b, kind)
}

// arp is RFC 826's packet for Ethernet and IPv4, broadcast.
func arp(operation uint16, mac net.HardwareAddr, sender netip.Addr, targetMAC net.HardwareAddr, target netip.Addr) []byte {
	b := ethernet(broadcast, mac, etherARP)
	b = append(b, 0, 1, 8, 0, 6, 4)
	b = binary.BigEndian.AppendUint16(b, operation)
	b = append(append(b, mac...), sender.AsSlice()...)
	return append(append(b, targetMAC...), target.AsSlice()...)
}

// multicastMAC is RFC 2464 section 7.
func multicastMAC(a netip.Addr) net.HardwareAddr {
	s := a.As16()
	return net.HardwareAddr{0x33, 0x33, s[12], s[13], s[14], s[15]}
}

// solicitedNode is RFC 4291 section 2.7.1.
func solicitedNode(a netip.Addr) netip.Addr {
	s := a.As16()
	return netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: s[13], 14: s[14], 15: s[15]})
}

// icmp6 is a neighbour message inside IPv6 inside Ethernet.
func icmp6(mac net.HardwareAddr, from, to netip.Addr, body []byte) []byte {
	b := ethernet(multicastMAC(to), mac, etherIPv6)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body))) //nolint:gosec // at most 32 bytes
	b = append(b, icmpProtocol, hopLimit)
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(body[2:], icmpChecksum(from, to, body))
	return append(b, body...)
}

// icmpChecksum is RFC 4443 section 2.3: over the pseudo header of RFC 8200 section 8.1 and the body with a zero in its place.
func icmpChecksum(from, to netip.Addr, body []byte) uint16 {
	all := append(append([]byte{}, from.AsSlice()...), to.AsSlice()...)
	all = binary.BigEndian.AppendUint32(all, uint32(len(body))) //nolint:gosec // at most 32 bytes
	all = append(append(all, 0, 0, 0, icmpProtocol), body...)
	var sum uint32
	for i := 0; i+1 < len(all); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(all[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// advertisement is an unsolicited one: override, this node is no router.
func advertisement(mac net.HardwareAddr, a netip.Addr) []byte {
	body := append([]byte{icmpAdvertise, 0, 0, 0, 0x20, 0, 0, 0}, a.AsSlice()...)
	body = append(append(body, 2, 1), mac...) // target link-layer address
	return icmp6(mac, a, allNodes, body)
}

// probe asks who holds a, from an address that nobody has.
func probe(mac net.HardwareAddr, a netip.Addr) []byte {
	if a.Is4() {
		return arp(arpRequest, mac, unspecified4, nobody, a)
	}
	return icmp6(mac, unspecified6, solicitedNode(a), append([]byte{icmpSolicit, 0, 0, 0, 0, 0, 0, 0}, a.AsSlice()...))
}

// announcements tell everybody that a is here now.
func announcements(mac net.HardwareAddr, a netip.Addr) [][]byte {
	if a.Is4() {
		return [][]byte{arp(arpRequest, mac, a, nobody, a), arp(arpReply, mac, a, broadcast, a)}
	}
	return [][]byte{advertisement(mac, a)}
}

// claims says which machine a frame shows as the holder of a; nil: none, or this one.
func claims(frame []byte, mac net.HardwareAddr, a netip.Addr) net.HardwareAddr {
	if len(frame) < ethernetBytes {
		return nil
	}
	from, rest := net.HardwareAddr(frame[6:12]), frame[ethernetBytes:]
	var holder net.HardwareAddr
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == etherARP && a.Is4() && len(rest) >= arpBytes && bytes.Equal(rest[:6], []byte{0, 1, 8, 0, 6, 4}) && bytes.Equal(rest[14:18], a.AsSlice()):
		holder = net.HardwareAddr(rest[8:14])
	case kind == etherIPv6 && a.Is6() && len(rest) >= ipv6Bytes+24 && rest[6] == icmpProtocol && rest[7] == hopLimit &&
		rest[ipv6Bytes] == icmpAdvertise && bytes.Equal(rest[ipv6Bytes+8:ipv6Bytes+24], a.AsSlice()):
		holder = from
	}
	if bytes.Equal(holder, mac) {
		return nil
	}
	return bytes.Clone(holder)
}
