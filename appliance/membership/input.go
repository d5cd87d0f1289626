package membership

// Input is one thing that happened, with the time and fresh randomness of that
// moment: the core has neither clock nor random source. Every input is legal in every state.
type Input struct {
	Now   Boottime
	Fresh Nonce // never used twice
	Event Event
}

// Event is what happened.
type Event interface{ event() }

type (
	// Boot is the start of a node, or of duetd without a valid snapshot (R1).
	// Record is the zero value on a fresh node.
	Boot struct{ Record Record }

	// Resume is the start of duetd with a valid snapshot (section 4): the state is
	// the snapshot's. Stops what the state does not allow, then grants anew.
	Resume struct{}

	// Connected: a new session began on this side (R2).
	Connected struct{ Session Session }

	// PeerLost: 1.5 s without an ack on any path or without a data lane on any allowed path, or the transport ended the session (R3).
	PeerLost struct{ Session Session }

	// Received is a message of the peer; one of another session is dropped.
	Received struct {
		Session Session
		Message Message
	}

	// Timer fired. The driver fires each timer once per Arm, never before its time.
	Timer struct{ Timer TimerID }

	// Beat is the 250 ms tick on which a paired node beats its peer (R11); Fresh becomes the nonce.
	Beat struct{}

	// WitnessReply answers AskWitness (CAS), PushWitness or CreateRegister.
	WitnessReply struct {
		Op       WitnessOp
		Nonce    Nonce
		RID      ID
		Result   WitnessResult
		Register RegisterContent // as replied, where the result carries one
	}

	// FenceResult ends a fence attempt. Only confirmed is evidence; refused and unknown are not.
	FenceResult struct {
		Attempt Nonce
		Verdict Verdict
	}

	// CopyDone: duet-mirrord brought both legs of every volume together, proved it by
	// equal digests at a barrier, and holds writes since that barrier (COPYDONE).
	// Arrives on the source's node and on the target's node. Out[n] are the volumes whose leg of
	// node n is broken: it was not brought in, and stays out of Legs. Both sides report the same,
	// for the digest is about it too.
	CopyDone struct {
		Session Session
		Digest  Digest
		Out     [2]Volumes
	}

	// CopyFailed: the copy of this session will not finish (lane or daemon lost, a leg failed).
	CopyFailed struct{ Session Session }

	// Want asks to start what this resource needs (R8, R9). The driver repeats it while it is desired and not running.
	Want struct{ Resource ResourceID }

	// Found is the order to found a site from here (R27): this node and its peer are fresh and in a session.
	// With a witness the driver has an answered CREATE(site, 0, {}) and names its rid in Arb.
	Found struct {
		Site   ID
		Arb    Arb
		Owners Owners
		Legs   Legs
		Docs   Docs
	}

	// Leave is the order that this node leaves the pair, and its peer goes on alone (R18). Waiting says that a person
	// accepts volumes that wait for this node, because the peer's leg of them is not in sync.
	Leave struct{ Waiting bool }

	// Move is the order to hand the ownership of a resource to the peer (R22).
	Move struct{ Resource ResourceID }

	// SetArbiter is the order to change how a node may go on alone: fence drops the witness (R21a, R21d); witness
	// admits a fresh register (R19, R19s). It is given by a person, or by the driver's timers of section 5.3, whose
	// guards on time and standing proof are prudence, not safety.
	SetArbiter struct{ Kind ArbKind }

	// PeerOff is a person's word that the peer is off and stays off (R26, assert-off). It counts once, for this epoch.
	PeerOff struct{ Epoch Epoch }

	// ForceSolo is the order to go on alone against the record (R26). PeerOff says that the peer is confirmed or
	// asserted off. Text is who and why.
	ForceSolo struct {
		PeerOff bool
		Text    Text
	}

	// ChangeDoc is the order to make Ref the next version of a document (R25); it is durable on this node already.
	// Writer is the resource whose owner may write it. Growth: it gives the peer a right that it did not have (the database
	// record: a copy that counts), so it is current on the writer before the peer records it, and not after.
	ChangeDoc struct {
		Doc    DocID
		Writer ResourceID
		Ref    DocRef
		Growth bool
	}

	// LegFailed: duet-mirrord cannot write, sync or read this node's leg of a volume, and holds its acknowledgements (R23).
	LegFailed struct{ Volume VolumeSlot }

	// LegSynced: on the volume's owner: the leg that was out is equal at a barrier, and writes are held since (R24).
	// On the peer: the same barrier, seen from there.
	LegSynced struct {
		Session Session
		Volume  VolumeSlot
		Digest  Digest
	}

	// Drained: nothing of what this resource wrote is on its way any more, and new requests are held; or not, for one
	// reason or other.
	Drained struct {
		Resource ResourceID
		OK       bool
	}

	// PeerPowered says what the driver did about PowerOnPeer; ok is false when no path could switch it on.
	PeerPowered struct{ OK bool }
)

// TimerID names a timer of section 5.3.
type TimerID uint8

// The timers that the core arms. (Heartbeats are ticks, the lease end is enforced by the lease guard and reported as TimerLease.)
const (
	TimerArbitrate TimerID = iota // R4: boot wait, bias, repeat
	TimerFence                    // R10: next attempt
	TimerPowerOn                  // R10b
	TimerPrepare                  // R17: PREPARED is too late
	TimerLease                    // R11: the lease of this node is over
	TimerPeerWait                 // R8: the peer has certainly stopped
	TimerRepeat                   // everything that has no answer yet, with the same content and nonce
	TimerCount
)

// WitnessOp is what was asked.
type WitnessOp uint8

// The operations of section 11.
const (
	OpCAS WitnessOp = iota
	OpPush
	OpCreate
)

// WitnessResult is what was answered.
type WitnessResult uint8

// The answers. Silence is no answer and no input.
const (
	WitnessFailed  WitnessResult = iota // CAS: the register has another content; PUSH: not higher and not equal
	WitnessOK                           // CAS took effect, or PUSH confirmed
	WitnessUnknown                      // unknown register, unknown site, corrupt: never a grant
)

// RegisterContent is the deciding part of a witness register.
type RegisterContent struct {
	Ep  Epoch
	Set Set
}

// Verdict is what evidence says: an enum, never a bool.
type Verdict uint8

// The verdicts; the zero value is unknown.
const (
	Unknown Verdict = iota
	Confirmed
	Refused
)

func (Boot) event()         {}
func (Resume) event()       {}
func (Connected) event()    {}
func (PeerLost) event()     {}
func (Received) event()     {}
func (Timer) event()        {}
func (Beat) event()         {}
func (WitnessReply) event() {}
func (FenceResult) event()  {}
func (CopyDone) event()     {}
func (CopyFailed) event()   {}
func (Want) event()         {}
func (Found) event()        {}
func (PeerPowered) event()  {}
func (Leave) event()        {}
func (Move) event()         {}
func (SetArbiter) event()   {}
func (PeerOff) event()      {}
func (ForceSolo) event()    {}
func (ChangeDoc) event()    {}
func (LegFailed) event()    {}
func (LegSynced) event()    {}
func (Drained) event()      {}
