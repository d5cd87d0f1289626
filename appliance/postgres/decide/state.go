package decide

import "duet/appliance/membership"

const (
	millisecond membership.Boottime = 1e6
	second                          = 1000 * millisecond
	minute                          = 60 * second
)

// Config is every duration and limit. Nothing is filled in: Defaults says what ships.
type Config struct {
	DegradeAfter membership.Boottime // L1: a standby that is back sooner never costs its place in copies
	BootPatience membership.Boottime // S2: after a power cut the peer needs longer to start
	GoodFor      membership.Boottime // G1
	GoodMost     membership.Boottime // G1: the doubled wait of a standby that flaps
	FlapWindow   membership.Boottime // G1: three losses within it double the wait
	LagMost      LSN                 // G1, P1: a longer backlog would hold every commit for its length
	MarkAgain    membership.Boottime // G3; and the rest after any long effect that failed
	ReleaseBy    membership.Boottime // L3
	PeerFresh    membership.Boottime // older words of the peer are not believed
	FailWindow   membership.Boottime // C4
	FailMost     uint8               // C4: failures from which a node is not preferred
	BackoffFrom  uint8               // C4: failures from which starts wait
	BackoffLeast membership.Boottime
	BackoffMost  membership.Boottime
	HungAfter    membership.Boottime // H2
	KillAfter    membership.Boottime // X3: from an immediate stop to cgroup.kill
	ResetAfter   membership.Boottime // H2: from cgroup.kill to asking for a reset
	StopBy       membership.Boottime // P2: a fast stop
	CompareBy    membership.Boottime // P3
	ReturnBy     membership.Boottime // J: a standby that does not stream for that long is made anew
	Lease        membership.Boottime // only ever read by a mutant: a lease end is not evidence
}

// Defaults are what ships, reasons at the fields and in docs/postgres.md.
func Defaults() Config {
	return Config{
		DegradeAfter: 3 * second, BootPatience: 10 * second, GoodFor: 10 * second, GoodMost: 5 * minute, FlapWindow: 60 * minute,
		LagMost: 16 << 20, MarkAgain: 250 * millisecond, ReleaseBy: 2 * second, PeerFresh: 1500 * millisecond,
		FailWindow: 10 * minute, FailMost: 1, BackoffFrom: 3, BackoffLeast: second, BackoffMost: 30 * second,
		HungAfter: 20 * second, KillAfter: second, ResetAfter: 5 * second, StopBy: 10 * second, CompareBy: 3 * second, ReturnBy: 60 * second,
		Lease: 4 * second,
	}
}

// State is what cannot be seen and must be remembered. It is lost when the process ends, and everything stays safe.
type State struct {
	Cfg Config

	Doing      Work // long effect under way
	DoingSince membership.Boottime
	Checkpoint bool // one was asked for and has not ended

	Looked   bool                // a look at the server was taken
	Created  bool                // B1: this process has seen the creation end well
	Life     uint64              // of the server, as last seen alive
	Was      Proc                // what that life was: ProcPrimary, ProcStandby
	Expected bool                // this node ends it on purpose
	Died     bool                // the last life was a primary and ended by itself: C2 or C3
	NoMove   bool                // the move of C2 or S3 was refused
	Offered  given               // what was owned when the move began
	Rest     membership.Boottime // nothing long begins before it: the last one failed
	Gave     given               // what this node has given away: a look that still shows it is an old one
	Opened   uint64              // the life whose write gate was opened
	Proven   uint64              // the life of which the marker proved that it waits for the peer
	Armed    int32               // G2: pid of the walsender that the marker must meet
	MarkAt   membership.Boottime
	Patience membership.Boottime // L1 of this life
	BootAt   membership.Boottime // S3: since when the owner waits for the peer's word

	LostSince, GoodSince, FlushAt membership.Boottime
	FlushSeen                     LSN
	Stood                         bool // FlushSeen stood still behind our end at the last look
	Losses                        uint8
	LossFirst                     membership.Boottime
	ReleaseSince                  membership.Boottime

	Fails               uint8
	FailFirst, FailLast membership.Boottime

	Order      OrderPhase
	OrderSince membership.Boottime
	Resume     bool // N6, given by a person
	Reclone    bool // J4, given by a person

	Rejoin     RejoinPhase
	Exported   bool
	Tries      uint8 // J5, J6: failures in a row
	TryAt      membership.Boottime
	MustCopy   bool // J6: rewinding failed or cannot help
	AloneSince membership.Boottime

	GateUntil membership.Boottime // the deadline that the open gates have
	Faults    uint16              // raised, by position in faults
}

// given names an ownership: versions begin again where a node has joined with the other one's table, epochs never do.
type given struct {
	Known   bool
	Epoch   membership.Epoch
	Version uint32
}

// OrderPhase is how far a switchover has come on the giver.
type OrderPhase uint8

// The phases of a switchover.
const (
	OrderNone OrderPhase = iota
	OrderCheckpoint
	OrderStop
	OrderCompare
	OrderMove
)

// RejoinPhase is how far a directory has come that will replace the present one.
type RejoinPhase uint8

// The phases of a rejoin.
const (
	RejoinNone   RejoinPhase = iota
	RejoinCloned             // marked; to be rewound
	RejoinReady              // not marked any more; to be switched to
)
