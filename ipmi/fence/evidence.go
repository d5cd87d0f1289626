// Package fence makes a node be off, and says what it knows about it.
package fence

import "time"

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

// The kinds that exist now; the zero value belongs to unknown evidence.
const (
	NoKind     Kind = iota
	BMCOff          // the node's BMC said "off" twice
	OutletsOff      // all its outlets were switched off and read back off
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
	Kind    Kind
	Verdict Verdict
	Node    Node
	Epoch   uint64        // evidence of another epoch, or of an earlier run, is unknown to the caller
	Run     uint64        // one order to fence = one run
	At      time.Duration // CLOCK_BOOTTIME when the last read-back was taken
	Raw     [32]byte      // digest of what was exchanged
	Why     string        // for people: what was seen, when it is not confirmed
}
