package site

import (
	"fmt"
	"net/netip"
	"slices"
)

// maxInterfaceBytes is IFNAMSIZ without its end.
const maxInterfaceBytes = 15

// database checks what is of the site. Which settings and rules the server takes is asked where it is known (appliance/node).
func (c *checker) database(d *Database) {
	if d == nil {
		return
	}
	write, read := c.service("database.write", d.Write), c.service("database.read", d.Read)
	if write.IsValid() && write == read {
		c.wrong("database.read", "is the write address", "both may be on different nodes at one time", "choose another address")
	}
	if n := len(d.Interface); n == 0 || n > maxInterfaceBytes || hasControl(d.Interface) {
		c.wrong("database.interface", fmt.Sprintf("%q is no interface", d.Interface), "the service addresses are put on it, on either node", "name the LAN's, such as lan0")
	}
	if d.Port < 0 || d.Port > 65535 {
		c.wrong("database.port", fmt.Sprintf("is %d", d.Port), "a TCP port is 1 to 65535", "remove the field for 5432")
	}
	if !slices.Contains([]string{"", "available", "strict"}, d.Durability) {
		c.wrong("database.durability", fmt.Sprintf("is %q", d.Durability), "without a standby the database goes on alone, or commits wait", "write available or strict")
	}
	for i, line := range d.Settings {
		if hasControl(line) {
			c.wrong(fmt.Sprintf("database.settings[%d]", i), "has control characters", "it is one line", "remove them")
		}
	}
	for i, r := range d.Rules {
		at := fmt.Sprintf("database.rules[%d]", i)
		if len(r.Networks) == 0 || len(r.Users) == 0 || len(r.Databases) == 0 {
			c.wrong(at, "names no network, user or database", "a rule lets users from networks into databases", "name at least one of each")
		}
		for _, n := range r.Networks {
			if p, err := netip.ParsePrefix(n); err != nil || p != p.Masked() {
				c.wrong(at+".networks", fmt.Sprintf("%q is not a network", n), "a network is an address and the length of its prefix", "write it as 198.51.100.0/24")
			}
		}
	}
}

// service is an address that can move between the nodes.
func (c *checker) service(field, text string) netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		c.wrong(field, fmt.Sprintf("%q is not a service address", text), "it moves between the nodes, in the network of the LAN", "choose a free address of the LAN, such as 198.51.100.20")
		return netip.Addr{}
	}
	return a
}
