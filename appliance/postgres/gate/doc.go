// Package gate is the gate of the database in the kernel: an nftables table in which the addresses of an open gate stand
// with a timeout. It is a dead-man switch: an element that nobody renews leaves its set by itself (nft(8), SETS), and the
// next packet of an established connection meets a closed gate, whatever this process does, and whether it is there.
//
// # What it does
//
// The port of the server can be reached through an address while that address stands in the set of the write gate or of
// the read gate. Otherwise a packet inward is answered by a TCP reset, and a packet outward is dropped, so that nothing
// that a server says after its time reaches anybody. Resets pass outward, or the kernel's own answer would be dropped too.
// Loopback and the interfaces of the link between the nodes are exempt: replication does not go through gates.
//
// # What it promises
//
// Closed is the state without a word from anybody: a new table has empty sets. A renewal replaces a set in one
// transaction of the kernel, so a connection notices nothing. A process that is started again finds its table and leaves
// what is open open, until its own deadline; a table of another form is replaced, which closes both gates.
//
// # What it does not do
//
// A client that only waits for an answer is not told that its gate has closed: its own keepalive tells it, or the packet
// that it sends next. Until the first process of a boot has made the table no gate exists; no server runs then either,
// because only the manager that made the table starts one. UDP and other ports are none of its business.
package gate
