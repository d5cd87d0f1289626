// Package stage says in which stage a volume's engine is and what the stage allows: the table of
// replication.md section 9.1 as pure functions.
//
// A stage is never entered or left: it follows from facts, every time anew. So a fact that changes by a grant,
// a lane, a device or a finished copy cannot meet a forgotten transition, and two facts that change at once
// cannot race. The engine keeps the facts under one lock, calls Of after each change and wakes who waits.
package stage

import "duet/replication/control"

// Stage is the word for people and the key of the rules below.
type Stage uint8

// The stages.
const (
	Creating    Stage = iota // the leg is not there yet
	Failed                   // the leg is dead; held
	Held                     // no right, no lane, or the legs are not known to be equal
	Paired                   // both legs, lane up
	Alone                    // own leg only, the other one is excluded
	Exchanging               // alone, while the target's map is fetched
	Catching                 // alone, while the target also gets every new write
	Preparing                // nothing is issued: proof, or proved and waiting for the grant
	Reconciling              // both legs count but may differ: nothing is served until they are equal
	Target                   // this leg is being written by the other node
	Remote                   // this leg does not count: requests go to the other node's
)

var names = [...]string{
	"creating", "failed", "held", "paired", "alone", "exchanging", "catching", "preparing", "reconciling", "target", "remote",
}

// String is the word of VolumeStatus.
func (s Stage) String() string { return names[s] }

// Role is this leg's part in a copy.
type Role uint8

// The roles.
const (
	NoCopy Role = iota
	Source
	Sink
)

// Phase of a copy at its source.
type Phase uint8

// The phases, in their order.
const (
	Exchange Phase = iota // before the target's map arrived
	Copying
	Holding // for the proof, and after it until the next grant
)

// Drain is how far the volume is with being handed over (protocol.md R22).
type Drain uint8

// The steps of a drain.
const (
	NoDrain  Drain = iota
	Draining       // new requests are held, those under way end
	Drained        // nothing is under way, and both legs have synced what was acknowledged
)

// Facts are everything a stage depends on.
type Facts struct {
	Ready    bool // the leg is open
	Failed   bool // a write or sync error, on this leg
	Mode     control.Mode
	Owner    bool
	Self     bool // this leg is in Legs ∩ Members
	Peer     bool
	Linked   bool // on the living lane, both nodes agreed what their legs are to each other
	InStep   bool // on the living lane, the legs are known to be equal but for writes in flight
	Excluded bool // the exclusion of the other leg is durable (O5)
	Sound    bool // this leg's data may be read: it was served or equal in this life of the daemon
	Role     Role
	Phase    Phase
	Drain    Drain
}

// Of is the stage.
func Of(f Facts) Stage {
	out := f.Mode == control.Paired && !f.Self // the owner's requests go to the other leg, whatever became of this one
	switch {
	case out && f.Role == Sink && Ready(f):
		return Target
	case out && f.Linked:
		return Remote
	case !f.Ready:
		return Creating
	case f.Failed:
		return Failed
	}
	switch f.Mode {
	case control.Paired:
		return paired(f)
	case control.Solo:
		return solo(f)
	case control.Joining, control.Prepared:
		if f.Role == Sink || f.InStep {
			return Target
		}
		return Held
	case control.Resolving:
		switch {
		case f.Role == NoCopy:
			return Held
		case f.Phase == Holding:
			return Preparing
		}
		return Reconciling
	case control.Frozen, control.Revoked:
		return Held
	}
	return Held
}

func paired(f Facts) Stage {
	switch {
	case !f.Self:
		return Held
	case !f.Peer:
		return alone(f)
	case f.InStep:
		return Paired
	case f.Role != NoCopy:
		return Reconciling
	}
	return Held
}

func solo(f Facts) Stage {
	if !f.Self {
		return Held
	}
	return alone(f)
}

// alone is the stage of the only leg that counts: on a solo node, or while the pair has taken the other leg out (R23).
func alone(f Facts) Stage {
	switch {
	case f.Role == Source && f.Phase == Holding:
		return Preparing
	case !f.Excluded:
		return Held
	case f.Role == Source && f.Phase == Copying:
		return Catching
	case f.Role == Source:
		return Exchanging
	}
	return Alone
}

// Coordinates says that this node carries out the requests of both nodes' clients: it locks, writes every leg that counts,
// and answers. It is the owner, or the node with the only leg that counts while the owner's is out (R23).
func Coordinates(f Facts) bool {
	switch f.Mode {
	case control.Solo:
		return f.Owner
	case control.Paired:
		return f.Self && (f.Owner || !f.Peer)
	case control.Revoked, control.Frozen, control.Joining, control.Resolving, control.Prepared:
	}
	return false
}

// Forwards says that a request of this node's clients goes to the other node, which coordinates the volume.
func Forwards(f Facts) bool {
	return f.Mode == control.Paired && !Coordinates(f) && f.Linked && f.Drain == NoDrain
}

// serves says that the stage lets writes reach every leg that counts.
func serves(f Facts) bool {
	switch Of(f) {
	case Paired, Alone, Exchanging, Catching:
		return Coordinates(f)
	case Creating, Failed, Held, Preparing, Reconciling, Target, Remote:
	}
	return false
}

// Admits says that a new write or flush may begin.
func Admits(f Facts) bool { return Writes(f) && f.Drain == NoDrain }

// Writes says that writes and flushes may be issued: new ones, and again those whose end is not known. A drain waits
// for the latter, so only its end stops them.
func Writes(f Facts) bool { return serves(f) && f.Drain != Drained }

// Replies says that a write or flush which is complete may be acknowledged. Preparing lets those in flight end.
func Replies(f Facts) bool {
	if serves(f) {
		return true
	}
	return Coordinates(f) && !f.Peer && Of(f) == Preparing
}

// AdmitsReads says that a new read may begin.
func AdmitsReads(f Facts) bool { return Reads(f) && f.Drain == NoDrain }

// Reads says that this leg may answer reads. While frozen, or while the lane is away, an owner whose leg is
// sound goes on reading: nobody else can own the volume before the deadline (replication.md section 7). After a drain
// the other node may own it before this one is told.
func Reads(f Facts) bool {
	if !f.Ready || f.Failed || !f.Self || f.Drain == Drained {
		return false
	}
	switch f.Mode {
	case control.Paired:
		switch {
		case !Coordinates(f):
			return false
		case !f.Peer:
			return f.Excluded || f.Sound
		}
		return f.InStep || f.Sound && f.Role == NoCopy
	case control.Frozen:
		return f.Owner && f.Sound
	case control.Solo:
		return f.Owner && (f.Excluded || f.Sound)
	case control.Revoked, control.Joining, control.Resolving, control.Prepared:
	}
	return false
}

// KeepsLocks says that a write whose end is not known keeps its range locked: a read must not see it while it may
// still be undone. Otherwise the range must be free for a copy, and nothing reads it.
func KeepsLocks(f Facts) bool {
	if !f.Self || f.Role != NoCopy && Of(f) != Catching && Of(f) != Exchanging && Of(f) != Preparing {
		return false
	}
	switch f.Mode {
	case control.Paired:
		return Coordinates(f)
	case control.Frozen, control.Solo:
		return f.Owner
	case control.Revoked, control.Joining, control.Resolving, control.Prepared:
	}
	return false
}

// TakesWrites says that replicated writes of the coordinator may be applied to this leg. After a drain the other node may
// be the owner already: the giver is durable first, and its own grant comes last (protocol.md R22).
func TakesWrites(f Facts) bool {
	if f.Mode == control.Paired && Coordinates(f) && f.Drain != Drained {
		// Only what an owner sent before its leg was taken out may still come, while this node does not know it.
		return !f.Owner && Ready(f)
	}
	switch Of(f) {
	case Paired, Target:
		return true
	case Reconciling:
		// The target of a reconcile inside a session, being the owner, may learn of the end first.
		return f.Mode == control.Paired && f.Role == Source && f.Phase == Holding
	case Creating, Failed, Held, Alone, Exchanging, Catching, Preparing, Remote:
	}
	return false
}

// Ready says that the leg is there and works.
func Ready(f Facts) bool { return f.Ready && !f.Failed }
