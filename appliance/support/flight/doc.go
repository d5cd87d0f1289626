// Package flight is a node's flight recorder: every input of the membership core, with digests of what it led to, in a
// bounded ring of files that survives a power cut; and the replay that runs a recording through the same Step.
//
// # What it promises
//
// A recording holds what is needed to decide everything again: the core has no clock, no random source and no I/O
// (package membership), so a state and the inputs after it are the whole story. Every entry carries digests of the state
// and of the effects; replay compares them, entry by entry, and every whole state that the ring holds, byte by byte. A
// difference is a report of a bug in itself: of the core, which then is not pure, or of this package.
//
// It is never in the way. Decided puts one value into a bounded queue and returns; one goroutine encodes, writes and
// syncs. When that goroutine is held up by a disk, entries are left out, and the next one that is kept says how many and
// carries a whole state, from which replay starts again. When a write or sync fails, recording stops with one fault, and
// a new file is tried after a while; the old handle is never trusted again. Nothing else on the node notices.
//
// What was decided at a transition (another mode, another record) is synced at once, the rest each second. What is not
// a beat is with the kernel at once, so that a killed duetd loses less than a second of beats and nothing else.
//
// # What it holds
//
// No guest data, no secrets: the payload types are the closed list of schema.go, the core's own events and messages:
// epochs, sets, owners, digests, random numbers, and the words of a person who overrode (R26).
//
// # The encoding
//
// The bytes of a value follow from its Go type, by reflection over the closed list, so that a new field of an event or
// of the state is recorded without anybody thinking of it. Every file begins with the fingerprint of all these types. A
// recording of another build is refused by name ("recorded by schema X, this build is Y"); reading it by guess would
// invent a history. Replay it with the duet of that build.
//
// The files are described in docs/disk-format.md. They are read by length and checksum up to the last whole frame, so a
// torn tail costs what was not synced.
//
// Rejected: hand-written codecs of every event (fields are forgotten when the core grows, and a forgotten field is a replay
// that differs for no reason); gob and JSON (ten times the size: a ring of 128 MiB should hold days); recording effects
// whole (they follow from the inputs; their digest proves it).
package flight
