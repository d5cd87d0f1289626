// Package explore checks the membership core by running it: two instances of the shipped Step, the witness's own
// register operations, and a pure model of everything around them: a session that each side learns of alone and that
// loses what is in it when it ends, beats that are lost, doubled and late, requests to the witness that arrive in any
// order or never, fencing that works, does nothing, answers nothing or hits late, two clocks of which either may run
// ahead, a mirror with two volumes and one VM on each node, power, and a restart of duetd alone.
//
// A world (Params) says what is possible and how often; worlds.go names them. An Action is one thing that happens: an
// input for an idle node, one barrier of a node's effect list with what follows it up to the next, or something between
// the nodes. A crash fits between any two. After each action the invariants of protocol.md section 12.1 must hold, and
// after each Step those that the core itself can see. What counts as acknowledged (the oracle) is known to the model only.
//
// Three searches: breadth-first through the whole of a small world, breadth-first to a bound in larger ones, random walks
// through wide ones (each with its own budget and its own taste: a swarm). Both kinds are needed: breadth-first alone
// does not get deep, walks alone miss narrow races. Seeds of testdata/seeds are replayed first. Reach adds liveness: from
// each state of a small world, can a node still get to serve without another fault?
//
// A counterexample is a list of actions: it prints as a table with both nodes' states and as a seed file. States are
// kept as a 64-bit hash of a canonical encoding (codec.go), so a search of n states overlooks one with a chance of about
// n²/2⁶⁵. Nothing here proves anything: it says "no violation within these bounds", and prints the bounds.
//
// The checker is checked by mutants (build tag mutants): each switches one guard off, and a search must notice.
package explore
