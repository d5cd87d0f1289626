// Package outlook says what a site can lose right now: one word, one sentence, a list of losses with what happens then,
// and one next safe step. Every interface shows its words and composes none of its own.
//
// It is pure: facts in, view out. Unknown is not ok and stale is unknown, so a fact that was not seen freshly must be
// given as false. It promises honesty in one direction: it never calls a loss survived when the membership protocol
// would hold I/O after it. Its rules are the table of protocol.md 12.2, each beside the branch that uses it. The word
// follows from the losses: a site is safe only if it serves, both nodes hold everything, and each loss is survived.
//
// It does not speak of single disks yet, although a failed leg is survived while both are in sync (R23). It also does not judge the machine's health; faults do.
//
// It cannot fail. Facts that contradict each other (for example paired without a peer) give the worse word.
package outlook

import (
	"fmt"
	"slices"
)

// The words, as interfaces.md section 1 defines them.
const (
	Safe       = "safe"
	Rebuilding = "rebuilding"
	AtRisk     = "at risk"
	FrozenWord = "frozen"
	Stopped    = "stopped"
	Unknown    = "unknown"
)

// Facts are what the answering node knows.
type Facts struct {
	Site     string // name
	Founded  bool   // false: setup has not been run
	Complete bool   // setup complete: both live fence tests are done
	Self     string // who answers: "a" or "b"
	Mode     Mode
	Peer     bool   // the peer is in this session
	PeerOff  bool   // evidence says that the peer is off; else it is only not heard
	Since    string // since when, for people: "03:12"; empty: unknown
	WaitsFor string // what a frozen or starting node waits for: "the witness or node b"
	Left     bool   // this node has left by order
	PeerLeft bool   // the peer has
	Forced   string // this node goes on by an override: by whom and why; empty: it does not

	Arbiter   Arbiter // by the record
	PairOwner string  // "a" or "b": shoots first where fencing decides
	Witness   Witness
	FenceA    Fence // ways to turn node a off
	FenceB    Fence // ways to turn node b off
	Volumes   []Volume
	VMs       []VM
	Database  Database
	CopyParts int // progress of a running copy in percent; -1: not known
}

// Mode of the answering node, as the membership protocol names it.
type Mode uint8

// The modes. The zero value is what a node without facts has.
const (
	Starting Mode = iota // init
	Joining
	Resolving
	Frozen
	Prepared // paired, but not committed yet
	Paired
	Solo
)

// Arbiter is what lets a node go on alone, by the record of the answering node.
type Arbiter uint8

// The arbiters. The zero value is the worst: nothing does.
const (
	ByNobody Arbiter = iota
	ByWitness
	ByFencing
)

// Witness as seen now.
type Witness struct {
	Configured bool
	Reached    bool
	Confirmed  bool // no push of the pair's epoch is outstanding

	PeerReached bool // the peer said a moment ago that it reaches it
}

// Fence tells which ways of turning a node off would give evidence now.
type Fence struct {
	BMC     bool // answers and obeys
	Outlets bool // proven map, and the PDU answers
}

// Volume as far as losses matter.
type Volume struct {
	Name             string
	InSyncA, InSyncB bool
}

// VM as far as losses matter.
type VM struct {
	Name             string
	Desired, Running bool
}

// Database as far as losses matter. The zero value is a site without one.
type Database struct {
	There    bool
	Recorded bool // it has a record: before, nothing was ever acknowledged
	OnA, OnB bool // copies: the node's directory holds every acknowledged commit
	Serves   bool // a primary lets clients in, by a fresh word
}

// View is the answer.
type View struct {
	Word     string
	Sentence string
	Losses   []Loss
	Next     string
}

// Loss is one thing that may be lost, and what happens then.
type Loss struct {
	Of          string // "link", "witness", "node a", "node b"
	Survived    bool
	Consequence string
}

// Judge makes the view.
func Judge(f Facts) View {
	if !f.Founded {
		return View{Word: Unknown, Sentence: "no site. Node " + f.Self + " is fresh.", Next: "duet setup answer FILE, on node a"}
	}
	if held(f) {
		if f.Left {
			return left(f)
		}
		return frozen(f)
	}
	v := View{Losses: losses(f), Next: next(f)}
	v.Word = word(f, v.Losses)
	v.Sentence = sentence(f, v)
	return v
}

// held: the answering node acknowledges nothing and cannot say that its peer does.
func held(f Facts) bool {
	switch f.Mode {
	case Starting, Resolving, Frozen:
		return true
	case Joining, Prepared, Paired:
		return !f.Peer // contradiction: these modes exist only in a session
	case Solo:
	}
	return false
}

func frozen(f Facts) View {
	waits := f.WaitsFor
	if waits == "" {
		waits = "node " + other(f.Self)
	}
	next := "bring back " + waits
	switch peer := other(f.Self); {
	case f.Mode == Resolving:
		waits, next = "the comparison of both copies", "wait: both copies are being compared"
	case f.Arbiter == ByFencing && f.Mode == Frozen:
		next = "restore the link or node " + peer + "; if it is off and stays off, say so: duet override peer-off --reason TEXT"
	case f.Arbiter != ByWitness:
		next = "bring back node " + peer + "; if it is off and stays off: duet override force-solo --reason TEXT"
	}
	return View{
		Word:     FrozenWord,
		Sentence: fmt.Sprintf("%s: frozen. I/O is held, nothing is lost. Node %s waits for: %s.", f.Site, f.Self, waits),
		Losses:   []Loss{},
		Next:     next,
	}
}

// left: what this node was told to do is done. Its peer was told to go on; from here nobody can see it.
func left(f Facts) View {
	return View{
		Word:     Stopped,
		Sentence: fmt.Sprintf("%s: stopped. Node %s has left the pair by order and runs nothing; node %s was told to go on.", f.Site, f.Self, other(f.Self)),
		Losses:   []Loss{},
		Next:     "let it return when the work is done: duet node return " + f.Self,
	}
}

func word(f Facts, losses []Loss) string {
	if f.Mode == Joining || f.Mode == Prepared || f.Mode == Solo && f.Peer {
		return Rebuilding
	}
	all := 4
	if f.Arbiter == ByFencing && !f.Witness.Reached { // nobody needs it (R21): that it is lost is survived already
		all = 3
	}
	if f.Mode == Paired && len(losses) == all && !slices.ContainsFunc(losses, func(l Loss) bool { return !l.Survived }) {
		return Safe
	}
	return AtRisk
}

// losses in the order in which people read them. What is lost already is not listed.
func losses(f Facts) []Loss {
	all := []Loss{link(f)}
	if f.Witness.Configured && f.Witness.Reached {
		all = append(all, witness(f))
	}
	for _, n := range []string{"a", "b"} {
		if f.Mode == Solo && !f.Peer && n != f.Self {
			continue
		}
		all = append(all, node(f, n))
	}
	return all
}

// link: "link lost" and "witness lost, then link lost".
func link(f Facts) Loss {
	switch {
	case f.Mode != Paired:
		return Loss{"link", true, "node " + member(f) + " goes on; a copy to the other one begins again later"}
	case f.Arbiter == ByNobody:
		return Loss{"link", false, "both nodes hold I/O until the link is back or a person decides; VMs stop after 4 s"}
	case f.Arbiter == ByWitness && !vote(f, "a") && !vote(f, "b"):
		return Loss{"link", false, "both nodes hold I/O until the link or the witness is back; VMs stop after 4 s"}
	case f.Arbiter == ByFencing && f.FenceA == Fence{} && f.FenceB == Fence{}:
		return Loss{"link", false, "no node can switch the other one off: both hold I/O until the link is back or a person decides"}
	case onlyOn(f.Volumes, "a") != "":
		return oneSided(onlyOn(f.Volumes, "a"))
	case onlyOn(f.Volumes, "b") != "":
		return oneSided(onlyOn(f.Volumes, "b"))
	case f.Database.only() != "":
		return Loss{"link", false, "the database waits for node " + f.Database.only() + " if the other one goes on: rows may exist there only"}
	case f.Arbiter == ByFencing:
		return Loss{"link", true, "one node switches the other one off and goes on " + race(f)}
	}
	return Loss{"link", true, "one node goes on after about 2 s; the other one's VMs start there after about 8 s"}
}

// race: the pair owner shoots first; the other one's turn comes when it did not succeed (protocol.md 6.1, turn plan).
func race(f Facts) string {
	target := f.fence(other(f.PairOwner))
	switch {
	case target.BMC:
		return "after 4 to 8 s, most likely node " + f.PairOwner
	case f.fence(f.PairOwner).BMC:
		return "after 10 to 16 s"
	}
	return "after 18 to 45 s, by outlets"
}

// oneSided: whoever goes on may be the node that lacks the volume.
func oneSided(volume string) Loss {
	return Loss{"link", false, "volume " + volume + " is held if the node that goes on lacks it"}
}

// witness: "witness lost". While both run, or one alone by its own record, nobody needs it.
func witness(f Facts) Loss {
	if f.Mode == Paired && f.Arbiter == ByWitness {
		return Loss{"witness", true, "nothing stops; until it is back or fencing decides, the loss of a node would hold I/O"}
	}
	return Loss{"witness", true, "nothing stops"}
}

// node: the rows "one node dies" and "witness lost, then a node dies".
func node(f Facts, n string) Loss {
	of, survivor := "node "+n, other(n)
	if f.Mode != Paired {
		if n == member(f) {
			return Loss{of, false, "node " + survivor + " lacks newer writes: I/O is held until node " + n + " is back"}
		}
		return Loss{of, true, "node " + survivor + " goes on"}
	}
	if only := onlyOn(f.Volumes, n); only != "" {
		return Loss{of, false, "volume " + only + " is in sync on node " + n + " only: its I/O is held until node " + n + " is back"}
	}
	if f.Database.only() == n {
		return Loss{of, false, "the database waits until node " + n + " is back: rows may exist there only"}
	}
	switch {
	case f.Arbiter == ByFencing:
		return fenced(f, n)
	case f.Arbiter == ByNobody:
		return Loss{of, false, "node " + survivor + " may not go on alone: I/O is held until node " + n + " is back or a person decides"}
	case !vote(f, survivor):
		return Loss{of, false, "node " + survivor + " may not go on alone without the witness: I/O is held until it or node " + n + " is back"}
	}
	return Loss{of, true, "node " + survivor + " goes on after about 2 s; VMs of node " + n + " start there " + takeover(f, n)}
}

// fenced: where fencing decides, the survivor goes on when it has read that node n is off, not before. A node may take
// its BMC with it (row "witness lost, then node + its BMC"), so only outlets make its loss survived for certain.
func fenced(f Facts, n string) Loss {
	of, survivor := "node "+n, other(n)
	way, soon := f.fence(n), "after 10 to 16 s"
	if f.PairOwner == survivor {
		soon = "after 4 to 8 s"
	}
	switch {
	case way.BMC && way.Outlets:
		return Loss{of, true, "node " + survivor + " goes on " + soon + ", when node " + n + " was read to be off; after 18 to 45 s if its BMC is lost with it"}
	case way.Outlets:
		return Loss{of, true, "node " + survivor + " goes on after 18 to 45 s, when its outlets were read to be off"}
	case way.BMC:
		return Loss{of, false, "node " + survivor + " goes on " + soon + " if the BMC of node " + n + " still answers; else I/O is held until node " + n +
			" is back or a person decides"}
	}
	return Loss{of, false, "nothing would prove that node " + n + " is off: I/O is held until it is back or a person decides"}
}

func (f Facts) fence(n string) Fence {
	if n == "b" {
		return f.FenceB
	}
	return f.FenceA
}

// takeover: by evidence, else by the lease (protocol.md 5.3, W0).
func takeover(f Facts, n string) string {
	switch fence := f.fence(n); {
	case fence.BMC && fence.Outlets:
		return "within 10 s, by BMC or outlets"
	case fence.BMC:
		return "within 10 s, by BMC; without it after 8 s"
	case fence.Outlets:
		return "within 12 s, by outlets"
	}
	return "after about 8 s, by the end of its lease"
}

// vote: node n could get the register's permission now. Without confirmation the register may still name an older
// membership (12.2: "commit, then coordinator dies before PUSH is confirmed").
func vote(f Facts, n string) bool {
	reached := f.Witness.Reached
	if n != f.Self {
		reached = f.Witness.PeerReached
	}
	return f.Arbiter == ByWitness && f.Witness.Configured && reached && f.Witness.Confirmed
}

// member is the node that holds everything while the other one joins or is off.
func member(f Facts) string {
	if f.Mode == Joining || f.Mode == Prepared {
		return other(f.Self)
	}
	return f.Self
}

// onlyOn names a volume whose only in-sync leg is on node n, or that nobody has in sync.
func onlyOn(volumes []Volume, n string) string {
	for _, v := range volumes {
		if n == "a" && !v.InSyncB || n == "b" && !v.InSyncA {
			return v.Name
		}
	}
	return ""
}

// only is the node that alone holds every acknowledged commit; empty: both do, or there is nothing to lose. A record that names
// nobody is none that a site has: it is taken for the worst.
func (d Database) only() string {
	switch {
	case !d.There || !d.Recorded || d.OnA && d.OnB:
		return ""
	case d.OnB:
		return "b"
	}
	return "a"
}

func other(n string) string {
	if n == "a" {
		return "b"
	}
	return "a"
}
