package scenario

import (
	"time"
)

// Row is one situation of the liveness table (protocol.md section 12.2): what is promised, and the cases that measure
// it, each in both directions.
type Row struct {
	Name      string // stable; what targets_missed names
	Situation string // in the table's words
	Own       string // promised: the survivor's own resources
	Other     string // promised: the other's resources
	Person    string // what people must do
	Note      string // what else a reader must know

	// Bounds of what is measured; 0: none is promised, the measured value is shown for information.
	OwnWithin, OtherWithin, BackWithin time.Duration

	Cases  []Case
	Reason string // why nothing measures this row; then it has no cases
}

// Case is one way into the situation. It begins and ends with a whole site.
type Case struct {
	Name   string
	Phases []Phase
}

// Phase is some steps and what must come of them; time counts from just before its first step. A phase that demands
// nothing prepares the next one.
type Phase struct {
	Do []string

	Quiet  time.Duration // for so long nothing may happen: both stay paired at one epoch, and Own is measured
	Own    string        // on this node acknowledged writes go on: measured
	Starts string        // on this node the VM is starting: measured
	One    bool          // exactly one node goes on, whoever that is: measured as its own or as the other's
	Holds  []string      // these nodes hold all I/O and say for whom they wait
	Waits  string        // words in what they say
	Back   bool          // what is measured is the way back, after what was missing has returned
}

// noPause is how long a write may take where the table promises no pause: scheduling of a busy machine, not a decision.
const noPause = 500 * time.Millisecond

// hangPause is how long a leg that hangs may hold its volume (replication.md section 2).
const hangPause = 3 * time.Second

// quiet is how long "nothing happens" is watched: longer than peer lost, lease and W0 together with their work.
const quiet = 8 * time.Second

// nodeBoot is what the boot of a node takes in the lab, libvirtd included; the table counts from "up".
const nodeBoot = 5 * time.Second

// both plays a case from either end: roles swap.
func both(name string, phases func(x, y string) []Phase) []Case {
	return []Case{
		{name + ": the owner", phases("owner", "other")},
		{name + ": the other", phases("other", "owner")},
	}
}

// again repeats cases. After a takeover the other node is the owner, so the second round has the nodes swapped.
func again(cases ...Case) []Case { return append(cases, cases...) }
