package core

import (
	"fmt"
	"net"
	"slices"

	"duet/build/lab/cable"
)

// The switches of the lab. BMCs and PDU live on the BMC network's own addresses.
const (
	switchMirror = "br-mirror0"
	switchLAN    = "br-lan"
	switchBMC    = "br-bmc"
	switchWAN    = "br-wan"
)

// The fixed addresses (RFC 5737 documentation ranges, lab.md section 3).
const (
	AddressBMCA    = "192.0.2.11"
	AddressBMCB    = "192.0.2.12"
	AddressPDU     = "192.0.2.21"
	AddressWitness = "203.0.113.13"
	AddressClient  = "198.51.100.50"
	PortBMC        = 623
	PortPDU        = 502
)

// port is one network port of a machine's hardware.
type port struct {
	inner     string
	bridge    string
	addresses []string
	isolated  bool // never talks to other isolated ports: nodes meet only on mirror0 and the LAN
}

func (p port) outer(machine string) string { return machine + "-" + p.inner }

var hardware = map[string][]port{
	"a": {
		{inner: "mirror0", bridge: switchMirror, addresses: []string{"fe80::a/64"}},
		{inner: "lan0", bridge: switchLAN, addresses: []string{"198.51.100.11/24"}},
		{inner: "bmc0", bridge: switchBMC, addresses: []string{"192.0.2.111/24"}, isolated: true},
		{inner: "wan0", bridge: switchWAN, addresses: []string{"203.0.113.11/24"}, isolated: true},
	},
	"b": {
		{inner: "mirror0", bridge: switchMirror, addresses: []string{"fe80::b/64"}},
		{inner: "lan0", bridge: switchLAN, addresses: []string{"198.51.100.12/24"}},
		{inner: "bmc0", bridge: switchBMC, addresses: []string{"192.0.2.112/24"}, isolated: true},
		{inner: "wan0", bridge: switchWAN, addresses: []string{"203.0.113.12/24"}, isolated: true},
	},
	"witness": {{inner: "wan0", bridge: switchWAN, addresses: []string{AddressWitness + "/24"}}},
	"client":  {{inner: "lan0", bridge: switchLAN, addresses: []string{AddressClient + "/24"}}},
}

// names is the order in which machines are started and shown; the nodes last, so that the world is there when they wake.
var names = []string{"witness", "client", "a", "b"}

// isNode says whether the machine has drives, power supplies, a BMC and a watchdog.
func isNode(name string) bool { return name == "a" || name == "b" }

// peerOf is the other node.
func peerOf(node string) string {
	if node == "a" {
		return "b"
	}
	return "a"
}

// groupOf numbers the ports of a machine for cable.UnplugAll.
func groupOf(machine string) uint32 { return uint32(100 + slices.Index(names, machine)) }

// mac is fixed per port: a network card keeps its address over power cycles, so a peer's neighbour table stays right.
func mac(machine, inner string) net.HardwareAddr {
	m := net.HardwareAddr{0x02, 0xda, 0, 0, 0, 0}
	for i, n := range names {
		if n == machine {
			m[4] = byte(i + 1)
		}
	}
	for i, p := range hardware[machine] {
		if p.inner == inner {
			m[5] = byte(i + 1)
		}
	}
	return m
}

// wireSwitches makes the switches.
func wireSwitches() error {
	lab := map[string][]string{
		switchMirror: nil, switchLAN: nil, switchWAN: nil,
		switchBMC: {AddressBMCA + "/24", AddressBMCB + "/24", AddressPDU + "/24"},
	}
	for _, name := range []string{switchMirror, switchLAN, switchBMC, switchWAN} {
		if err := cable.Switch(name, lab[name]...); err != nil {
			return err
		}
	}
	return nil
}

// wires is which cables are cut. Keys are "mirror0", "lan" (the switch between the nodes) and outer port names.
type wires map[string]bool

// resolve turns the words of a link verb into keys.
func resolve(words []string) ([]string, error) {
	switch {
	case len(words) == 1 && (words[0] == "mirror0" || words[0] == "lan"):
		return words, nil
	case len(words) == 1 && words[0] == "all":
		return []string{"mirror0", "lan"}, nil
	case len(words) == 2:
		inner := map[string]string{"lan": "lan0", "lan0": "lan0", "wan": "wan0", "wan0": "wan0", "bmc": "bmc0", "bmcnet": "bmc0", "bmc0": "bmc0"}[words[0]]
		for _, p := range hardware[words[1]] {
			if p.inner == inner {
				return []string{p.outer(words[1])}, nil
			}
		}
	}
	return nil, fmt.Errorf("link %v: must be mirror0, lan, all, or lan|wan|bmc with a machine", words)
}

// carrier says whether a port has carrier: its cable is in, and at the far end of the back-to-back cable is a node
// with power. A LAN port has its carrier from the switch.
func (w wires) carrier(machine string, p port, powered func(node string) bool) bool {
	if w[p.outer(machine)] {
		return false
	}
	if p.bridge == switchMirror {
		return !w["mirror0"] && powered(peerOf(machine))
	}
	return true
}

// isolated says whether a port is kept from other isolated ports of its switch.
func (w wires) isolated(machine string, p port) bool {
	return p.isolated || p.bridge == switchLAN && isNode(machine) && w["lan"]
}
