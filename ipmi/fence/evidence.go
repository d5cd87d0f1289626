// Package fence makes a node be off, and says what is known about it.
//
// It promises that "confirmed" was seen and not concluded: the node's own BMC, known by its recorded system GUID, said
// "off" in two successive requests; or every outlet of the node was read off for longer than a power supply holds up,
// over fresh connections, with a map that a live test proved, while the BMC had fallen silent. Silence, a broken link,
// a wrong password, a closed port are unknown, whatever else is believed. One order to fence is one run: evidence
// carries the run and the epoch it was asked for, and never outlives them (hardware.md section 4).
//
// The planner (decide.go) is pure and total; the Runner does what it says and reports back. A run ends by itself within
// 10 s. When its context ends nothing more is sent; what was sent may still hit, and the evidence is unknown.
//
// It refuses to switch anything when a BMC answers with another system's GUID: behind a swapped address stands the
// survivor. It refuses outlets whose map was not proven, and wiring where one outlet feeds both nodes (Check). It
// never switches "on" while an unanswered "off" may still come. Whom to fence, and when, is decided elsewhere
// (protocol.md R10, R10b, R21b); this package only makes and weighs evidence. What each set of evidence allows is one
// function (Allow), and whose turn it is to switch, where fencing is the vote, is another (TurnAt).
//
// That a run would find evidence is proven beforehand and always again: the Watch (watch.go) asks every path in a fixed
// rhythm, withdraws one that would fail with the code of its fault, and takes it back when it is proven again.
package fence

// Node is a chassis slot.
type Node uint8

// The two nodes of a site.
const (
	A Node = iota
	B
)

// String is the slot's letter.
func (n Node) String() string { return string('a' + rune(n)) }

// Kind is the way a node's power was seen.
type Kind uint8

// The kinds; the zero value belongs to unknown evidence.
const (
	NoKind     Kind = iota
	BMCOff          // the node's BMC said "off" twice
	OutletsOff      // all its outlets were switched off and read back off
	LoadGone        // and the power that they give is below what the live test learned
	Person          // a person said that it is off and stays off (protocol.md R26)
)

// Verdict is what evidence says: an enum, never a bool. Silence, a broken link, a wrong password and a closed port are
// unknown, whatever else is believed (hardware.md section 1).
type Verdict uint8

// The verdicts; the zero value is unknown.
const (
	Unknown Verdict = iota
	Confirmed
	Refused
)

// Evidence is one observation about a node's power. The zero Evidence is unknown.
type Evidence struct {
	Kind    Kind    // that decided
	Verdict Verdict // of all kinds together
	Seen    Seen    // of each kind
	Node    Node
	Epoch   uint64   // evidence of another epoch, or of an earlier run, is unknown to the caller
	Run     uint64   // one order to fence = one run
	At      Boottime // when the last read-back was asked for
	Raw     [32]byte // digest of what was exchanged
	Why     string   // for people
	Fault   *Fault   // what a person has to mend; nil: nothing
}

// Policy is what this evidence allows.
func (e Evidence) Policy(strict bool) Allows { return Allow(e.Seen, strict) }

// String is the kind in words.
func (k Kind) String() string {
	switch k {
	case BMCOff:
		return "BMC says off"
	case OutletsOff:
		return "outlets read off"
	case LoadGone:
		return "no power flows"
	case Person:
		return "a person says off"
	case NoKind:
		return "nothing"
	default:
		return "invalid"
	}
}

// Word is the kind in one word, as programs read it.
func (k Kind) Word() string {
	switch k {
	case BMCOff:
		return "bmc"
	case OutletsOff:
		return "outlets"
	case LoadGone:
		return "load"
	case Person:
		return "person"
	case NoKind:
		return ""
	default:
		return "invalid"
	}
}

// String is the verdict in words.
func (v Verdict) String() string {
	switch v {
	case Unknown:
		return "unknown"
	case Confirmed:
		return "confirmed"
	case Refused:
		return "refused"
	default:
		return "invalid"
	}
}
