// Package node is the composition root of duetd: one struct that names every subsystem of this node, and one Run that
// starts them in order and stops them in the reverse order.
//
// It also holds what belongs to no subsystem alone: the way a site document travels and is judged before a founding is
// recorded (protocol.md 9.2), the founding itself as a resumable task, the runtime document that follows the pair,
// which VMs are wanted now, and the facts behind `duet status`.
//
// It promises that a document is durable on this node before the record that names it, that a fresh node joins a site
// only if the document names this node's key and its peer's, and that the document on disk is the one whose hash the
// record holds; else duetd refuses to start, because it could not know its volumes or its peer.
//
// Nothing here decides who may write. The core does, and the driver (appliance/pair) carries it out; what a person
// orders becomes a wish, and the core is asked.
package node
