// Package pair is the driver of the membership core: it turns what happens to this node into inputs, calls
// membership.Step, and carries the effects out.
//
// One goroutine owns the state. For every input it: steps; checks the production invariants; writes the snapshot;
// carries out the effects in order, waiting for each barrier; only then takes the next input (protocol.md section 5.1).
// Nothing else in this package decides anything about the pair.
//
// It promises that an effect never overtakes the one before it, that a record is durable before anything that follows
// from it is said or granted, and that a right which cannot be taken away is taken away by force: a record that cannot
// be written halts the node's serving for good; a grant that duet-mirrord does not confirm within a second costs
// duet-mirrord its life, and if even that fails, or a workload cannot be killed, the node is reset. A node that cannot
// stop must not say that it has stopped.
//
// It refuses to run beside another duetd of this node (a lock, which the old process frees by dying), to resume from a
// snapshot of another boot or of another record, and to start before duet-mirrord can be told to hold.
//
// Two threads do not wait for the core. The lease guard kills every workload when the deadline of the last grant
// passes, whatever the driver is doing. The watchdog thread pets the hardware watchdog only while this node may run,
// by a fresh acknowledgement, or while nothing runs here; so a node that hangs as a whole is reset before its peer
// takes over (hardware.md section 7).
//
// A restart of duetd is not a crash. After every step and before its effects the state goes to a file on tmpfs with
// the boot id and the sequence that the record has after this step. The next process goes on from it iff both match;
// a Persist that was cut off leaves a lower sequence, and then it is a boot: everything is killed first. A snapshot that
// cannot be written is removed instead; the node goes on, and its next duetd boots.
//
// Rejected: one goroutine a concern with a shared lock around the state (hashicorp/raft: sixty sleeps in its tests);
// effects as callbacks inside the core (nothing could then be placed between two of them).
package pair
