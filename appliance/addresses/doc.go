// Package addresses puts service addresses on interfaces of this node and takes them away: IPv4 and IPv6, by netlink.
// A service address is one that moves between the nodes with what it serves.
//
// # What it promises
//
// An address is asked for on the wire before it is taken (RFC 5227 section 2.1, RFC 4862 section 5.4). Somebody else who
// answers keeps it: the conflict is reported, and the address is asked for again every 5 s, because a former holder goes
// away. One that is taken is announced at once, after 100 ms and after 1 s: a gratuitous ARP request and reply (RFC 5227
// section 3, and machines that hear only one of them), or an unsolicited neighbour advertisement (RFC 4861 section 7.2.6).
//
// None stays behind. An address whose holder has a deadline carries that deadline in the kernel, which takes it away by
// itself, whatever this process does. What was taken is written down before it is taken, in a file that dies with the boot
// as addresses do: the next process drops what the site does not know any more, and goes on with the rest.
//
// # How addresses look in the kernel
//
// With a host's mask (/32, /128): the network's route belongs to the node's own address, and an address that is the first
// of its network would take the others along when it goes (ip-sysctl, promote_secondaries). Deprecated (preferred
// lifetime 0), so that nothing of this node's own picks it as its source. Without the kernel's own duplicate address
// detection, which cannot be asked what it found.
//
// # What it refuses
//
// It decides nothing: who holds an address is the business of what it serves. Two nodes that both take one are kept apart by
// the gates of what is served, not here.
package addresses
