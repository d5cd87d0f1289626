// Package sim imitates the hardware of a chassis on its network side: one baseboard management controller per node
// (IPMI 2.0 over UDP) and the power distribution unit that feeds both (Modbus TCP). The lab and the tests of ipmi/bmc,
// ipmi/pdu and ipmi/fence run against it; no product binary links it.
//
// It promises the truth of the wire: a BMC answers only while it has AC, forgets its sessions when it loses AC, and
// switches a Chassis through the same calls that a lab verb uses; a PDU is driven by the same product tables as the
// client, so a wrong address in a table shows against the independent judges (ipmitool, mbpoll, ipmi_sim) and in the
// byte transcripts of ipmi/pdu, not only here. Sockets are given by the caller, who may have opened them in another
// network namespace.
//
// Faults are switches that may be turned at any time while it serves: silence, slowness, a refused login, a command
// that is accepted and not carried out, a state that is reported wrongly, a relay that is stuck, a reply that comes
// too late, is cut short or carries a wrong id. It refuses nothing else: what a fault is not set for behaves as the
// documents of the vendors say.
package sim
