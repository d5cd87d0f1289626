// Package membership decides, for one node of a pair, who may acknowledge writes and who may run what. It is the
// code of protocol.md: Step takes one node's State and one Input and returns the next State and the effects to
// carry out. It has no clock, no random source and no I/O, so the same Step is explored exhaustively
// (membership/explore), shipped, and replayed from a flight recorder.
//
// # What it promises
//
// At any time at most one set of nodes may acknowledge writes, and every node that may holds everything that was
// acknowledged before; nothing runs twice; what can be decided safely is decided without a person. The invariants
// are named in protocol.md section 12.1 and checked by explore; CheckState and CheckStep are the part of them that
// one node can see. When the promise cannot be kept, the node freezes and reports why; it never guesses.
//
// # How it works
//
// The durable Record names the committed epoch and its members. A node that recorded itself as the only member serves
// alone, also after a reboot. Two members serve together while they answer each other's beats. When they lose each
// other, each holds writes and asks the witness to exchange "epoch e, {a,b}" for "epoch e+1, {me}"; only one can
// succeed, and the other reads that it is out. Fencing is not on that path: it only gates taking over what the peer
// ran. A node comes back by JOIN, a copy that ends in equal digests, and a commit in two phases (PREPARE, PREPARED,
// COMMIT), so that at every moment a crash leaves somebody who may go on.
//
// Two kinds of belief are dangerous: an answer that arrives after the question has lost its meaning, and a deadline
// that is counted from the wrong end. So every question has a nonce that dies at the next connect or change of the
// record, and every right runs from the moment at which its proof was requested.
//
// What a person or a manager wants is an order: an event that the core may refuse (State.Allows says why). A change of
// who arbitrates suspends the peer first, so that nobody ever has two ways to go on alone; a change of an owner, a leg or a
// document is durable on both nodes before it counts.
//
// One function carries one rule and its name; files go by story: boot, session, arbitrate, solo, lease, join, resolve,
// found, leave, handover, arbiter, legs, documents, force. R29 is not here yet.
//
// # What the driver must do
//
//  1. One goroutine calls Step. Effects are carried out in order. Persist, Stop, Grant and Revoke are barriers: the
//     next effect waits for them, and no input enters before the list is done. A failed barrier ends the list: Persist →
//     halt; Stop, Grant or Revoke not confirmed within 1 s → kill duet-mirrord, reset the node.
//  2. Input.Now is CLOCK_BOOTTIME, never 0 and never smaller than before. Input.Fresh is random, never 0, never used twice.
//  3. Arm replaces the timer of that id; At 0 disarms it. Each Arm fires once as Timer, never before At; a late or doubled
//     fire is harmless. No other timer is kept by the driver, besides the beat: Beat every 250 ms, always.
//  4. Want(r) for each resource that should run here and does not, again and again: after every change of mode, record or
//     lease, after TimerPeerWait, and each second. Start may come again for what runs already; then it does nothing.
//     Start is refused when its epoch is not that of the last Grant, and after that grant's deadline: the lease guard
//     kills what runs at that moment, not what comes later.
//  5. At Grant.Deadline the lease guard kills what runs, without the core; TimerLease tells the core. 0 is "none" (solo);
//     Expired is "over". Grants without a session have no lanes: no data lane can be missed in such a session.
//  6. Messages of a session arrive in order and once (BEAT and BEATACK: any order, also twice), or the session ends.
//     Connected is given once per session and before its messages; PeerLost after CloseSession is not needed. A session
//     that the core has closed is never continued. A peer with an unknown protocol version is no peer.
//  7. Hello, Prepare and DocPrepare are delivered only after every version of a document that they name, and that is newer
//     than this node's, is durable on this node. ChangeDoc is given only for a version that is.
//     Each Found has a register of its own: a new CREATE with a new nonce, also when the last Found was cut.
//  8. CopyDone, CopyFailed and FenceResult of an earlier session or attempt may be delivered late; they change nothing.
//  9. Before the effects of each Step the State is written to the tmpfs snapshot with the boot id. A new process gives
//     Resume when the boot id matches and the durable record's Seq is the snapshot's; else Boot. It starts from
//     State{Cfg: ...} for Boot. All timers of the old process are gone; Resume and Boot arm what they need.
//  10. duet-mirrord holds writes from the barrier of a copy on until a grant of another stage (GrantContent.SameStage)
//     replaces the one it has; a grant that differs in owners or deadline only does not release them.
//  11. duet-mirrord holds the writes of a volume from the barrier of R24 on until a grant of another stage, or with other
//     legs of it (SameLegs), comes; those of a resource from Drain on until a grant of another stage or with another
//     owner, or until a Drain without it. Drained is given for each resource, once. Revoke ends every hold; so does the
//     death of duet-mirrord. A barrier whose hold has ended is void: its LegSynced is not given any more, and when it was,
//     the driver ends the session.
//  12. Messages are sent in the session of the transport: a Step may send and drop its session (R18).
//  13. LegFailed and LegSynced are given again after a restart of duet-mirrord or of this process, as long as they are true.
//  14. After each Step CheckStep and CheckState must hold; a violation stops the node, never the data.
//
// Rejected: a log with terms (Raft) on three nodes. The witness would need a log and a clock, traffic when nothing
// changes, and a quorum to boot one node alone; protocol.md section 14 has the other reasons.
package membership
