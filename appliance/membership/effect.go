package membership

// Effect is one thing to do. The driver carries a list out in order; a barrier is
// awaited before the next effect starts; no input enters before the list is done;
// a crash may fall between any two effects (section 5.1). Order is always:
// take away, record, tell, give.
type Effect interface{ effect() }

type (
	// Persist is a barrier: the record is durable before the next effect. Failure is final: the node halts.
	Persist struct{ Record Record }

	// Stop is a barrier: these workloads are killed and reaped, their exports revoked.
	Stop struct {
		All       bool
		Resources Resources
	}

	// Grant is a barrier: it replaces the last grant of duet-mirrord whole, and sets the
	// deadline of the lease guard.
	Grant struct{ Grant GrantContent }

	// Revoke is a barrier: nothing may be read, written or run.
	Revoke struct{}

	// Send may be lost with its session.
	Send struct{ Message Message }

	// CloseSession ends the session on this side; the transport may begin another.
	// It produces no PeerLost: the core has already forgotten the session.
	CloseSession struct{}

	// AskWitness sends CAS(rid, expected, new, nonce) once; the core repeats it with the same nonce by TimerRepeat.
	AskWitness struct {
		RID      ID
		Nonce    Nonce
		Expected RegisterContent
		New      RegisterContent
	}

	// PushWitness sends PUSH(rid, ep, {a,b}).
	PushWitness struct {
		RID   ID
		Nonce Nonce
		Ep    Epoch
	}

	// CreateRegister sends CREATE(site, ep, set, nonce); its answer is a WitnessReply of OpCreate with a new rid.
	CreateRegister struct {
		Nonce   Nonce
		Content RegisterContent
	}

	// Drain lets duet-mirrord hold new requests to the volumes of these resources, and of no others, and finish what is
	// under way. The result is Drained, for each. The hold outlives grants of the same stage that name the same owner.
	Drain struct{ Resources Resources }

	// Start runs a resource that this node owns. The manager refuses it when Epoch is not the grant's.
	Start struct {
		Resource ResourceID
		Epoch    Epoch
	}

	// Fence asks for evidence that the peer is off, making it so. The result is FenceResult with this attempt. Evidence
	// was read after this request. Where fencing is the arbiter (R21b), Lost is when the peer was lost, and the power is
	// switched in turns counted from it, which the pair owner begins; else Lost is 0 and there are no turns.
	Fence struct {
		Attempt Nonce
		Epoch   Epoch
		Lost    Boottime
		First   bool
	}

	// CancelFence: nothing more is sent to BMC or PDU; what was sent may still hit.
	CancelFence struct{}

	// PowerOnPeer is R10b and R21c: a peer that is off is switched on, unless it is latched off.
	PowerOnPeer struct{}

	// Copy asks duet-mirrord to bring the legs together in this session and to report CopyDone.
	// Only the coordinator gets it (R12b: the solo node; R13: the coordinator).
	Copy struct{ Session Session }

	// Arm sets a timer; it replaces an earlier setting of the same timer. At 0 disarms.
	Arm struct {
		Timer TimerID
		At    Boottime
	}

	// Report is for people: the event log, status, faults.
	Report struct{ Report ReportCode }
)

// GrantContent is what the core lets this node do from now on.
type GrantContent struct {
	Mode     Mode
	Epoch    Epoch
	Prepared Epoch // 0: none; replicated writes of this epoch are taken too
	Session  Session
	Members  Set
	Owners   Owners
	Legs     Legs
	Deadline Boottime // of reading and running; 0: none, which only solo gets
}

// SameStage says whether g and h differ in owners, legs or deadline only. duet-mirrord keeps the writes that it holds
// since the barrier of a copy when such a grant replaces another: R8 may grant while CopyDone is on its way to the core,
// and a write released then would be missing on the other leg after the commit.
func (g GrantContent) SameStage(h GrantContent) bool {
	return g.Mode == h.Mode && g.Session == h.Session && g.Epoch == h.Epoch && g.Prepared == h.Prepared
}

// SameLegs says whether g and h agree about the legs of v. duet-mirrord keeps the writes of v that it holds since the
// barrier of R24 until a grant of another stage or with other legs comes.
func (g GrantContent) SameLegs(h GrantContent, v VolumeSlot) bool { return g.Legs[v] == h.Legs[v] }

// Mode is what a node is doing: section 4.
type Mode uint8

// The modes.
const (
	Init Mode = iota
	Joining
	Resolving
	Frozen
	Paired
	Solo
)

// ReportCode names what people should learn. The catalogue of texts is appliance/event.
type ReportCode uint8

func (Persist) effect()        {}
func (Stop) effect()           {}
func (Grant) effect()          {}
func (Revoke) effect()         {}
func (Send) effect()           {}
func (CloseSession) effect()   {}
func (AskWitness) effect()     {}
func (PushWitness) effect()    {}
func (Drain) effect()          {}
func (CreateRegister) effect() {}
func (Start) effect()          {}
func (Fence) effect()          {}
func (CancelFence) effect()    {}
func (PowerOnPeer) effect()    {}
func (Copy) effect()           {}
func (Arm) effect()            {}
func (Report) effect()         {}
