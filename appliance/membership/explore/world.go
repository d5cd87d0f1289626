package explore

import (
	"duet/appliance/membership"
	"duet/witness/register"
)

// Sizes of the model. The core's tables are larger; the rest of them stays empty here.
const (
	resources  = 3 // the pair, one VM that a owns, one that b owns
	volumes    = 2 // one for each VM
	queueMax   = 6 // control messages of one direction
	beatMax    = 2 // beats and acks of one direction; a new one beyond replaces (loses) the oldest
	packetMax  = 8 // witness requests and replies in flight; one beyond is lost
	registers  = 4 // that a world can make
	clockBase  = membership.Boottime(100)
	leaseTicks = membership.Boottime(2)
	waitTicks  = membership.Boottime(4)
	forceGap   = membership.Epoch(40) // far above what a world reaches
)

var theSite = membership.ID{1}

// rid is the id of the k-th register that was made.
func rid(k uint8) membership.ID { return membership.ID{2, k} }

// World is everything: two nodes, what is between them, the witness, and what the environment may still do.
// It is a value; only the effect queues are shared, and those are never written.
type World struct {
	N        [2]Node
	Net      Net
	Store    [registers]Register // of the witness; the id of slot k is k+1
	RIDs     uint8               // registers made so far: an id is never given twice
	Packets  [packetMax]Packet
	Left     Budget
	Drift    int8 // clock of a minus clock of b, since the begin
	Nonces   membership.Nonce
	Acked    [volumes]uint8    // newest acknowledged write: the oracle, which no node can see
	Writes   uint8             // number of the last write
	Doc      membership.DocRef // newest acknowledged version of the site document: the oracle of I12
	Database membership.DocRef // of the database record
	Forced   bool              // a person has overridden (R26)
	Ghost    Ghost
}

// Ghost is a message of a session that has ended and arrives after all.
type Ghost struct {
	Session membership.Session // 0: none
	To      membership.Node
	Message membership.Message
}

// Register is one register of the witness.
type Register struct {
	Known   bool // false: never made, or forgotten by a store that was emptied
	Nonce   membership.Nonce
	Content register.Content
}

// Node is one machine: duetd's core, the record device, duet-mirrord, the VMs, the fence driver.
type Node struct {
	Up    bool
	Core  membership.State
	Queue []membership.Effect // effects of the last Step that are still to do
	Disk  membership.Record   // durable
	Clock membership.Boottime
	Armed uint8              // bit per timer
	Wire  membership.Session // of the transport on this side; the core may have dropped it in a Step that still sends

	Granted bool
	Grant   membership.GrantContent // of duet-mirrord and of the lease guard
	Hold    bool                    // writes are held since the barrier of a copy
	Leg     [volumes]uint8          // number of the newest write on this leg
	Pend    [volumes]uint8          // issued here and not acknowledged
	Out     [volumes]Frame          // replicated write on its way to the peer
	Back    [volumes]Frame          // its ack on its way back to this node
	HoldLeg membership.Volumes      // of these volumes writes are held since the barrier of R24
	Drain   membership.Resources    // new requests to their volumes are held (R22)
	Bad     membership.Volumes      // legs that take no more writes; what is on them can be read
	Run     membership.Resources    // what really runs

	FenceOut membership.Nonce // the fence driver works on this attempt
	Late     Stray            // an order of a dead attempt may still hit
	Verdict  membership.FenceResult
	CopyOut  membership.Session // Copy was ordered here
	Proof    membership.CopyDone
	Synced   membership.LegSynced // duet-mirrord has proved a barrier of R24
	Failed   membership.Volumes   // LegFailed is on its way to the core
	Shot     bool                 // off by fencing
}

// Stray is a fencing order without a fence driver that waits for its result.
type Stray uint8

// The strays. A dying one was on its way when its own node was shot; it hits whatever the environment may still do.
const (
	NoStray Stray = iota
	Cancelled
	Dying
)

// Frame is a replicated write or its ack; Write 0: none.
type Frame struct {
	Write   uint8
	Session membership.Session
	Epoch   membership.Epoch
}

// Net is the session between the nodes. What is on its way when it ends is lost, but for one message at most, which
// arrives in a later one (Ghost).
type Net struct {
	Session membership.Session
	Count   uint8   // sessions so far
	Learned [2]bool // this side has been told of it (or can no longer be)
	Q       [2][queueMax]membership.Message
	Beats   [2][beatMax]membership.Message
}

// Packet is a request to the witness or a reply of it. Kind 0: none.
type Packet struct {
	Kind     PacketKind
	From     membership.Node // who asked
	RID      uint8           // 0 in a CREATE
	Nonce    membership.Nonce
	Expected membership.RegisterContent
	Content  membership.RegisterContent
	Result   membership.WitnessResult
}

// PacketKind tells what a packet is.
type PacketKind uint8

// The packets.
const (
	NoPacket PacketKind = iota
	CASRequest
	PushRequest
	CASReply
	PushReply
	CreateRequest
	CreateReply
)

// Budget is what the environment may still do. It is part of the state.
type Budget struct {
	Crash, Cut, Dup, Unknown, Late, Write, Restart, Session, Skew, Ghost uint8
	Leave, Move, Arbiter, Witness, Empty, Force, Doc, LegLoss, Copies    uint8 // orders and losses of R18-R26; Witness: a fresh register; Copies: changes of the database record
}

// Params is one world: what is possible in it at all, and how much.
type Params struct {
	Name    string
	Clocks  bool // time passes; leases end. Without: fencing is the only way to take over
	Beats   bool
	OneBeat bool // a node beats only when nothing of its last beat is on its way
	OneSide bool // only a beats
	Eager   bool // the first barrier of a Step happens with it (sound without clocks, saves states)
	Witness bool // it answers
	Link    bool // sessions can begin
	Endless bool // ... any number of them: for reachability, where a spent budget would look like a wait for ever
	Start   Start
	Budget  Budget
	Large   bool // too large for a unit test: make explore visits it whole
	NoRun   bool // no VMs: smaller
	NoFence bool // BMC and PDU answer nothing
}

// Start is the state in which a world begins.
type Start uint8

// The beginnings.
const (
	FromFresh     Start = iota // two fresh nodes, no session
	FromPaired                 // committed, register confirmed, VMs running
	FromPowerless              // committed, both nodes off
	FromSolo                   // a solo, b off and fenced
	FromFence                  // committed, fencing is the arbiter of both, no witness
)

func (w *World) node(n membership.Node) *Node { return &w.N[n] }

func (n *Node) idle() bool { return n.Up && len(n.Queue) == 0 }

// holds says whether n's core is in the session of the net.
func (w *World) holds(n membership.Node) bool {
	return w.Net.Session != 0 && w.N[n].Up && w.N[n].Core.Session == w.Net.Session
}

// live says whether the grant lets n answer for a volume: reading, and acknowledging where its mode allows it.
func (n *Node) live() bool {
	return n.Up && n.Granted && (n.Grant.Mode == membership.Solo || n.Clock < n.Grant.Deadline)
}

// legCounts says whether the grant counts id's leg of v as one that holds everything.
func (n *Node) legCounts(v int, id membership.Node) bool { return n.Grant.Legs[v].Set.Has(id) }

// bad says whether this node's leg of v takes no more writes.
func (n *Node) bad(v int) bool { return n.Bad.Has(membership.VolumeSlot(v)) }

func (n *Node) ownsVolume(v int) bool {
	o := n.Grant.Owners[v+1]
	return o.Version != 0 && o.Node == n.Core.Cfg.Self
}

// crash takes everything volatile.
func (w *World) crash(id membership.Node) {
	n := w.node(id)
	n.strand(w)
	w.N[id] = Node{Core: membership.State{Cfg: n.Core.Cfg}, Disk: n.Disk, Leg: n.Leg, Bad: n.Bad, Clock: n.Clock, Late: n.Late}
	w.Net.Learned[id] = true
}

// strand leaves the running fence attempt without its driver.
func (n *Node) strand(w *World) {
	if n.FenceOut != 0 && w.Left.Late > 0 && n.Late == NoStray {
		n.Late = Cancelled
	}
	n.FenceOut = 0
}

func config(self membership.Node) membership.Config {
	wait := waitTicks
	switch {
	case mutant("M5"):
		wait = leaseTicks
	case mutant("M13"):
		wait = leaseTicks + 1
	}
	return membership.Config{
		Self: self, Lease: leaseTicks, PeerWait: wait,
		Bias: 1, RestartBias: 1, BootWait: 1, AskAgain: 1, FenceAgain: 1, PowerOnWait: 1, CommitAgain: 1, ForceGap: forceGap,
	}
}
