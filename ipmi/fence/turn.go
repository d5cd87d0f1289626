package fence

// The turn plan of the witness-less mode (protocol.md 6.1). Fencing comes before authority there, so a cut link could
// turn both nodes off. Reading needs no turn; switching goes in turns that are counted from the loss and do not overlap:
// the pair owner 0-6 s and the other 8-14 s by BMC, the owner 16-28 s and the other 30-42 s by BMC and PDU, and so on. The
// gaps of two seconds are for two clocks that did not notice the loss at the same moment, and for what hits late.

// Means is what a run may switch. Reading is always allowed.
type Means uint8

// The means. The zero value is for a node that has its authority already (R10).
const (
	Everything Means = iota // BMC and outlets
	ByBMC                   // the BMC alone; outlets are read
	Looking                 // nothing is switched
)

// Turn is what the plan allows at one moment.
type Turn struct {
	Means Means
	End   Boottime // of this turn, or of the look until the next begins; counted from the loss, as Next
	Next  Boottime // when this node may switch next; now, if it may now
}

const (
	shortTurn  = 6 * Second  // a BMC alone: its deadline and a second
	longTurn   = 12 * Second // BMC and outlets: runDeadline and two seconds
	turnGap    = 2 * Second
	shortRound = 2 * (shortTurn + turnGap) // both nodes once
	longRound  = 2 * (longTurn + turnGap)
)

// TurnAt is the plan: since is how long ago this node lost the peer, first whether it begins (the pair owner).
func TurnAt(since Boottime, first bool) Turn {
	since = max(since, 0)
	begin, length, means := Boottime(0), shortTurn, ByBMC
	if since >= shortRound {
		begin, length, means = shortRound+(since-shortRound)/longRound*longRound, longTurn, Everything
	}
	if !first {
		begin += length + turnGap
	}
	switch {
	case since < begin:
		return Turn{Looking, begin, begin}
	case since < begin+length:
		return Turn{means, begin + length, since}
	}
	next := TurnAt(begin+length+turnGap+missed(length, first), first)
	return Turn{Looking, next.Next, next.Next}
}

// missed is what is left of a round after this node's turn and the gap behind it: the other's turn, if it comes later.
func missed(length Boottime, first bool) Boottime {
	if first {
		return length + turnGap
	}
	return 0
}
