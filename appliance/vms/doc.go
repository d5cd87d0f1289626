// Package vms runs the site's virtual machines on this node through libvirt and QEMU, and makes sure that none runs
// without permission.
//
// It promises:
//   - A guest executes only while the gate permits its VM under the epoch of its start; the gate closes at the grant's
//     deadline by itself. libvirt offers no way to take back a request, and a hung libvirtd may carry one out minutes
//     later, so a start has two halves: QEMU is created with its guest paused, and the guest is released only after the
//     gate was asked again. What appears after the gate was closed stays paused and is ended.
//   - Kill and KillAll do not need libvirt. They find QEMU in /proc, send SIGKILL through a pidfd (a pid alone may have
//     been reused), wait until every thread is gone, look again, and say so only then. They work while libvirtd hangs,
//     is dead, or was restarted. A lease that ends is no time for an orderly shutdown (protocol.md section 8, "runner").
//   - A VM is never started while a process of it lives, whatever libvirt believes.
//   - Restarts of duetd and libvirtd leave guests alone: domains are found again by their UUID.
//
// Domains are transient: they exist while QEMU does, nothing starts by itself after a boot, and no copy of the site
// document lives in libvirt. Their names carry a prefix, so a person's own domains are never touched; a process in
// another PID namespace is another node of a lab and is never touched either.
//
// It refuses to decide: Decide (pure) says what should happen from what is desired, seen and permitted; starting goes
// through the membership core (R8, R9). It fails with VM-6xxx faults that name the VM; a failed start is tried again by
// the caller's next round, never in here.
//
// libvirt is spoken to in one conversation per order: dial, open, a few calls, close, all under one deadline.
// go-libvirt's calls take no context, one object cannot safely be connected twice (digitalocean/go-libvirt#167), and a
// read deadline on its connection makes its listener spin, so the deadline closes the connection. No event stream is
// opened (#191): the state is polled.
package vms
