// Package decide says what one node of the PostgreSQL pair does next. Step takes what the node remembers and one look at
// the world, and returns what it remembers then and the effects to carry out, in order. It has no clock, no file, no
// network and no random source: the same Step is explored with crashes, cuts and lost messages (postgres/explore), played
// from transcripts (testdata), and shipped.
//
// # What it promises
//
// A commit that was acknowledged is on the disk of every node of `copies` in the newest database record, and only a node of
// `copies` is promoted. Two locks keep that, and one of them is always shut: the server's own list of synchronous
// standbys, which refuses to acknowledge alone, and the record, which refuses the other node. A clock, a lease or a fence
// that lies can therefore cost a second reachable server for a while, never an acknowledged row.
//
// # How it works
//
// It decides from levels, not from edges: every input carries the whole of what is seen now, so a process that was
// restarted in the middle of anything looks again and goes on. State holds only what cannot be seen: since when something is
// so, what is under way, and that the marker (G3) has proved this life of the server. One function carries one rule and
// its name; the files go by story: create, start, loss, grow, promote, crash, lease, switchover, rejoin.
//
// One long effect is under way at a time and ends as Done. What takes away (closing a gate, an immediate stop) never waits
// for it.
//
// # What the caller must do
//
//  1. Carry the effects out in order; a failed one ends the list. WriteRecord obeys rule W: not Growth: pending on every
//     other member, then current here; Growth: current here, then pending there. While it is not finished Docs.Writing is
//     set. A refused write is Done with OK false and has changed nothing.
//  2. Give Now of CLOCK_BOOTTIME, never 0. Look again after each Done and at least each second.
//  3. Close the write gate at Gate.Deadline and end the server at the end of the lease without asking Step.
//  4. Resume a paused replay whenever it is found paused and no marker is under way.
//
// # What was rejected
//
// Believing pg_stat_replication.sync_state: with a stopped checkpointer it says `sync` while commits return alone (verified on
// PostgreSQL 15), so only a commit that is seen waiting counts. A plan kept over restarts: it would be a second truth beside
// the disk. Letting the server choose the number of a new timeline: two nodes that leave the same timeline one after the
// other would both call theirs by the same number, and pg_rewind takes equal numbers for equal histories. The record names
// the number before the promotion instead.
package decide
