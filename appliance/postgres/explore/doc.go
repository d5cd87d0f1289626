// Package explore checks decide.Step, the very code that ships, in a small model of everything around it: two nodes with
// directories, servers, gates and restarts; a link; records that travel as messages and can be lost half way; a
// membership core that gives rights as protocol.md says; fence attempts that end unknown; a checkpointer that stands still.
//
// What it promises: after every action the invariants PG1 to PG6 of docs/postgres.md hold, on every path that was walked.
// Random walks go deep, breadth-first search goes wide from the beginning; neither covers everything, and both say how
// much they did. After a walk everything is healed, and the pair must get in sync by itself: what is safe because nothing
// moves is found too.
//
// The model is coarser than PostgreSQL: a row is one position of the log and is flushed when it is written; a stop is clean
// or a crash; the timeline history is right by construction. It never tests what a server does, only what is decided about it.
//
// With the tag mutants one guard at a time is switched off (decide.Mutant, Mutant); the search must notice.
package explore
