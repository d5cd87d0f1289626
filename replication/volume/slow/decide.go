// Package slow decides when a leg is taken out because its disk hangs or is far slower than the other one (replication.md
// section 9.6). It is pure: Judge is given what both nodes measured, a tick at a time, and keeps its own counts.
//
// A disk that is slow without an error holds every write of the volume, on both nodes. It is taken out only if that helps: the
// other leg counts, is in step, was heard of lately, and is well by the same measure. When both are slow nothing is done, nor when there is
// nothing of the other one to compare with.
//
// Time is counted in ticks, which the caller makes every TickMS while it runs. A process that was stopped, with its requests
// under way, makes none meanwhile, so it does not take its own leg out when it goes on.
package slow

import "fmt"

// The limits of replication.md section 9.6, and the pace they are counted at.
const (
	TickMS = 250

	hangTicks   = 2500 / TickMS  // the oldest request of a leg that hangs
	slowTicks   = 10000 / TickMS // how long a leg is slow before it goes
	slowMS      = 100            // p50 of a leg that may be slow
	slowTimes   = 20             // and how often it is the other one's
	freshTicks  = 1000 / TickMS  // a word of the other node that still counts
	healthTicks = hangTicks / 2  // the oldest request of a leg that is well
)

// Stat is what a node measured of one leg.
type Stat struct {
	OldestTicks int   // for how many ticks its oldest request has been under way
	P50MicroS   int64 // of the writes and syncs that ended in the last 5 s, which both legs get; 0: none did
}

// Look is a tick of both legs, by the node of the one that may be taken out.
type Look struct {
	Own      Stat
	Other    Stat
	HeardFor int  // ticks since the other node said so; < 0: never on this lane
	InStep   bool // both legs count and are equal, and none is being compared
}

// Leg counts what one tick cannot say.
type Leg struct {
	slowFor int
}

// Judge says why the own leg is to be taken out; empty: it is not.
func (l *Leg) Judge(k Look) string {
	slow := k.Own.P50MicroS > slowMS*1000 && k.Other.P50MicroS > 0 && k.Own.P50MicroS > slowTimes*k.Other.P50MicroS
	if !k.InStep || !well(k) || !slow {
		l.slowFor = 0
	} else {
		l.slowFor++
	}
	switch {
	case !k.InStep || !well(k):
		return ""
	case k.Own.OldestTicks > hangTicks:
		return fmt.Sprintf("a request to its disk has been under way for more than %d ms", hangTicks*TickMS)
	case l.slowFor > slowTicks:
		return fmt.Sprintf("half of its writes and syncs have taken more than %d ms for %d s, those of the other leg %d ms",
			k.Own.P50MicroS/1000, slowTicks*TickMS/1000, k.Other.P50MicroS/1000) // within a factor of two: see block.Watch.Tick
	}
	return ""
}

// well says that the other leg can serve alone.
func well(k Look) bool {
	return k.HeardFor >= 0 && k.HeardFor <= freshTicks && k.Other.OldestTicks <= healthTicks && k.Other.P50MicroS <= slowMS*1000
}
