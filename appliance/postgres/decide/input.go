package decide

import "duet/appliance/membership"

// Input is one look at everything, with what ended or was ordered since the last one.
type Input struct {
	Now        membership.Boottime
	Wall       int64 // seconds; only ever shown to people
	Self       membership.Node
	Enabled    bool       // the site document wants a database
	Durability Durability // and wants this of it (L5)
	Grant      Grant
	Docs       Docs
	Local      Local
	Peer       Peer
	Event      Event // nil: a look
}

// Evidence is why the former owner cannot be running the database any more (M3). Only the last four are evidence.
type Evidence uint8

// The values, as membership's R8 to R10 make them.
const (
	EvidenceNone      Evidence = iota // nobody has asked yet
	EvidenceUnknown                   // a fence attempt ended without an answer that can be believed
	EvidenceRefused                   // the peer is on
	EvidenceConfirmed                 // its power was read after the request and says off
	EvidenceWaited                    // W0 is over: its lease has certainly ended
	EvidenceStated                    // it has said itself that it is stopped: GIVE, YIELD, JOIN
	EvidenceOwn                       // this node was the owner before; there is no other
)

// Good says whether it is evidence.
func (e Evidence) Good() bool {
	return e >= EvidenceConfirmed || e == EvidenceUnknown && mutant("unknown fence")
}

// String is the word of the log.
func (e Evidence) String() string {
	return [...]string{"none", "unknown", "refused", "confirmed", "waited", "stated", "own", "?"}[e&7]
}

// Grant is what the membership core gives this node for the resource "postgres".
type Grant struct {
	Mode     membership.Mode
	Epoch    membership.Epoch
	Members  membership.Set
	Owner    membership.Node
	Version  uint32              // of the owner: +1 with every change
	Right    bool                // R8 or R9 has permitted a start under this epoch; implies Owner = self
	Deadline membership.Boottime // end of the lease; 0 with Mode solo: none
	Evidence Evidence
	Joining  bool // solo: the peer is being brought up to date, heard, and not a member yet
	Lends    bool // and it may be given the database now, under a lease of this node (R29)
}

// Docs is the database record as this node's membership record names it (R25).
type Docs struct {
	Current Record
	Pending Record // Version 0: none
	Writing bool   // the owner's own change is not finished
}

// Newest is what this node must believe: a pending shrink may have been acknowledged by the writer, and a pending growth
// is current there already (rule W).
func (d Docs) Newest() Record {
	if d.Pending.Newer(d.Current) && !mutant("old record") {
		return d.Pending
	}
	return d.Current
}

// Dir is what lies where `current` leads.
type Dir uint8

// The states of the data directory. Unseen is never acted upon.
const (
	DirUnseen Dir = iota
	DirAbsent
	DirEmpty      // there, and nothing in it: an empty mount looks like this
	DirCreating   // an initdb of ours for which there is no record yet
	DirOurs       // of the record's system identifier; without a record: whole, and nobody knows whose
	DirForeign    // another system identifier, or not readable as a directory of PostgreSQL
	DirUnfinished // marked: a rewind or clone that did not end
)

// String is the word of the log.
func (d Dir) String() string {
	return [...]string{"unseen", "absent", "empty", "creating", "ours", "foreign", "unfinished", "?"}[d&7]
}

// Proc is the server process.
type Proc uint8

// The states of the server.
const (
	ProcUnseen  Proc = iota
	ProcStopped      // the cgroup is empty
	ProcStarting
	ProcPrimary // accepts connections, not in recovery
	ProcStandby // accepts connections, in recovery
	ProcHung    // there, and not to be asked
)

// String is the word of the log.
func (p Proc) String() string {
	return [...]string{"unseen", "stopped", "starting", "primary", "standby", "hung", "?", "?"}[p&7]
}

// Alive says whether a process of the server exists.
func (p Proc) Alive() bool { return p > ProcStopped }

// Names is synchronous_standby_names as rendered and reloaded; whether the server has taken it up is what G3 finds out.
type Names uint8

// The two values.
const (
	NamesNone Names = iota // ''
	NamesPeer              // the peer
)

// String is the word of the log.
func (n Names) String() string { return [...]string{"none", "peer"}[n&1] }

// Sender is the peer's walsender on a primary; PID 0: there is none.
type Sender struct {
	PID       int32
	Streaming bool
	Flush     LSN
}

// Local is what this node sees of its own server.
type Local struct {
	Dir        Dir
	SystemID   uint64
	Proc       Proc
	Life       uint64 // names one life of the server; 0: stopped
	AsPrimary  bool   // how it was started, while ProcStarting or ProcHung
	Clean      bool   // control file: shut down
	StandbyDir bool   // the directory was last used by a standby

	Timeline           uint32
	CheckpointTimeline uint32 // in the control file
	Fork               LSN    // where Timeline began
	End                LSN    // end of the log: stopped: of the last whole record; primary: flushed; standby: received
	Replay             LSN    // standby

	Names     Names
	Sender    Sender
	Slot      bool // the slot for the peer exists
	SlotLost  bool
	Receiving bool // standby: the walreceiver streams
	Paused    bool // standby: replay is paused
	Waiters   int  // sessions in SyncRep
	ProbeAt   membership.Boottime

	WriteOpen, ReadOpen       bool // gates
	WriteAddress, ReadAddress bool // held here
	SpaceClone                bool // a second copy fits: a reflink or a plain one
}

// Peer is what the other node says of itself; At 0: never heard.
type Peer struct {
	At                 membership.Boottime
	Dir                Dir
	Proc               Proc
	Clean              bool
	Timeline           uint32
	CheckpointTimeline uint32
	End                LSN // as Local.End
	Replay             LSN
	Receiving          bool
	ReadAddress        bool
	SpaceClone         bool
	Fails              uint8
}

// Event is what ended or was ordered.
type Event interface{ event() }

// Done ends a long effect. OK false: it failed, or its deadline passed.
type Done struct {
	Work Work
	OK   bool
	PID  int32 // Marker: the walsender that it was seen waiting for
}

// Order is what a person, or a drain, asks for.
type Order struct {
	Kind OrderKind
	// Evidence that the holder of the only copy is destroyed, of OrderResume, was checked by who gives the order.
}

// OrderKind is the kind of an order.
type OrderKind uint8

// The orders.
const (
	OrderSwitchover OrderKind = iota + 1 // P1
	OrderResume                          // N6: accept the loss
	OrderReclone                         // J4: give up what only this directory has
)

func (Done) event()  {}
func (Order) event() {}
