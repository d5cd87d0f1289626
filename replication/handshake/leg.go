// Package handshake decides which leg of a volume brings the other up to date, from the records of both legs
// and the grant: rows H0 to H7 of replication.md section 8 and the direction table of its section 10.1.
//
// It is pure: both nodes call it with mirrored arguments and must get mirrored answers, so nothing but the
// arguments may decide. The grant decides the direction; ids only say how much must be compared, and object
// when they contradict the grant. It never answers with a source outside Legs, and it never guesses: what it
// cannot explain is refused with a fault code and both legs stay as they are.
//
// A leg that failed or is missing is nobody's target. Where the grant names the other one alone, both nodes agree on that
// (Sole), so that each knows where requests go.
//
// A leg that was not closed cleanly may differ in the extents that its activity log names, as long as that log could be
// read whole: ByHot compares what either log names, besides the dirty maps. A log that was lost makes the whole volume
// suspect: ByDigest. The log changes How, never Source.
//
// Clean is the one word for what the specification calls "ran through" and "closed cleanly": every block in
// which this leg may differ from the other is known, in the dirty map or in flight. Both cases know the
// divergence exactly, so they are one case here.
package handshake

import "slices"

// ID is a site, volume or leg id.
type ID [16]byte

// Generation names one unbroken history of acknowledged writes.
type Generation struct{ Epoch, Nonce uint64 }

// IsZero says that there is no generation.
func (g Generation) IsZero() bool { return g == Generation{} }

// State is a leg's own view of its data.
type State uint8

// The states, with their values on disk.
const (
	Missing      State = 0
	New          State = 1
	UpToDate     State = 2
	Inconsistent State = 3
	Outdated     State = 4
	Failed       State = 5
	Ejected      State = 6
)

// Right is what the grant of a node says about the volume. Epoch is the prepared one if there is one: a
// prepared and a committed node agree (protocol.md R15, R16).
type Right struct {
	Epoch, Session uint64
	Legs           uint8 // effective: Legs[v] ∩ Members; bit 0 a, bit 1 b
	LegsVersion    uint32
	Owner          uint8 // 0 a, 1 b
}

// Leg is everything one node says about its leg.
type Leg struct {
	Site, Volume, Leg ID
	Node              uint8
	FormatMajor       uint16
	BlockBytes        uint32
	VolumeBytes       uint64
	State             State
	Zeroed            bool
	Current, Base     Generation
	History           []Generation // newest first
	SyncSource        Generation   // while inconsistent
	Clean             bool         // see the package comment
	HotKnown          bool         // not clean, but the activity log names every extent that may differ beyond the dirty map
	Rebooted          bool         // unclean, and the node booted since the leg was opened
	Unconfirmed       bool         // "I am source, end not confirmed"
	DirtyBlocks       uint64
	InFlightBlocks    uint64 // issued here, not acknowledged, to be issued again
	SuspectBlocks     uint64 // the same, but nobody will issue them again
	Right             Right
}

func (l Leg) knows(g Generation) bool {
	if g.IsZero() {
		return false
	}
	return slices.Contains(l.History, g)
}

// bounded says that all in which the leg may differ is known: dirty, in flight, or named by its activity log.
func (l Leg) bounded() bool { return l.Clean || l.HotKnown }

// readable says that the leg's data may be the source of a copy.
func (l Leg) readable() bool { return l.State == UpToDate }
