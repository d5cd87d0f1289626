// Package outlook says what a site can lose right now: one word, one sentence, a list of losses with what happens then,
// and one next safe step.
package outlook

// Facts are what the answering node knows. Unknown is not ok, and stale is unknown: the caller gives false for
// anything it has not seen freshly.
type Facts struct {
	Site     string // name
	Founded  bool   // false: setup has not been run
	Complete bool   // setup complete: fence tests done
	Self     string // "a", "b": who answers
	Mode     Mode
	Peer     bool   // the peer is in this session
	Since    string // "03:12": since when the peer is off; empty: unknown

	WaitsFor string // what a frozen or starting node waits for, in words: "the witness"

	Witness   Witness
	FencePeer Evidence // the ways this node has to fence the peer
	FenceSelf Evidence // the ways the peer has to fence this node, as far as known

	Volumes []Volume
	VMs     []VM
}

// Mode of the answering node.
type Mode uint8

// The modes, as membership names them.
const (
	Starting Mode = iota // init
	Joining
	Resolving
	Frozen
	Prepared // paired, not committed
	Paired
	Solo
)

// Witness as seen now.
type Witness struct {
	Configured bool
	Reached    bool
	Confirmed  bool // its register holds the committed epoch of this pair
}

// Evidence tells which ways of fencing work.
type Evidence struct {
	BMC     bool // answers with the right password
	Outlets bool // proven map, answers
}

// Volume as far as losses matter.
type Volume struct {
	Name             string
	InSyncA, InSyncB bool
	Percent          int // of a running copy; 0: unknown
	Copying          bool
}

// VM as far as losses matter.
type VM struct {
	Name             string
	Desired, Running bool
}

// View is the answer.
type View struct {
	Word     string
	Sentence string
	Losses   []Loss
	Next     string
}

// Loss is one thing that may be lost.
type Loss struct {
	Of          string
	Survived    bool
	Consequence string
}

// Judge makes the view.
func Judge(f Facts) View { return View{} }
