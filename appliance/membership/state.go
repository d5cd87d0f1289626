package membership

// Config holds the durations of section 5.3, in nanoseconds, and this node's slot.
type Config struct {
	Self        Node
	Lease       Boottime // L
	PeerWait    Boottime // W0
	Bias        Boottime // R4, the node that is not pair owner
	RestartBias Boottime // R4, a frozen node that has restarted since it was paired
	BootWait    Boottime // R4 in init; after R1 also R10: the peer may be booting too
	AskAgain    Boottime // the same CAS or PUSH again
	FenceAgain  Boottime // R10 after unknown or refused
	PowerOnWait Boottime // R10b
	CommitAgain Boottime // COMMIT, GIVE, WDROP, WSET and the messages of R23-R25 until they are answered
	ForceGap    Epoch    // R26: how far above everything recorded an override goes
}

// Limits of the volatile state. All are small: State is copied with every Step.
const (
	// MaxBeats is how many beats may wait for their ack. 8 beats of 250 ms are 2 s: an ack that is
	// older would extend the lease by less than the next one does.
	MaxBeats = 8
	// MaxPowerOns is R10b's limit within PowerOnWindow, counted since the last completed join.
	MaxPowerOns = 3
)

// PowerOnWindow is the hour of R10b.
const PowerOnWindow Boottime = 3600 * 1e9

// powerOnBoots is how many boot waits a peer that was powered on has to come, before R10b tries again.
const powerOnBoots = 6

// idleBoots is how many boot waits a peer that owns nothing has to come back by itself: the boot of a real server.
const idleBoots = 20

// Expired is a deadline that is always over. A grant without a running lease carries it, because
// 0 means "no deadline", which only solo has.
const Expired Boottime = 1

// State is one node's whole view: a comparable value. Exported so that the driver can
// snapshot it (JSON), status can show it and the explorer can encode it; only Step changes it.
type State struct {
	Cfg      Config
	Rec      Record // as durable after the effects of the last Step
	Mode     Mode
	Session  Session  // 0: none
	Lease    Boottime // deadline of my right to run; over or 0: none
	PeerWait Boottime // until when the peer may still run something; over or 0: it has stopped

	Peer       PeerView        // what this session told about the peer
	Ask        Ask             // the pending CAS (R4); Nonce 0: none
	Remembered RegisterContent // R of R7; Ep 0: none
	Fence      Nonce           // the running fence attempt (R10, R21b); 0: none
	Lost       Boottime        // frozen: when the peer was lost; the turns of R21b count from it
	Copy       CopyState       // this node coordinates a join and is this far
	Plan       Prepared        // resolving: the merged tables; coordinator: what it has named in PREPARE
	PlanSite   ID              // site that is being founded (R27)
	PlanSent   Boottime        // send time of PREPARE
	Proof      Proof           // digest of the copy on the target's side
	Offer      Prepared        // a PREPARE that came before its CopyDone; Ep 0: none
	Committing bool            // COMMIT is repeated until a BEAT shows its epoch (R16)
	Push       Push            // PUSH is repeated until confirmed (R16); Nonce 0: none
	PairedHere bool            // committed paired in this incarnation (R16, R16b); for R21
	Beats      [MaxBeats]SentBeat
	PowerOns   [MaxPowerOns]Boottime // when R10b powered the peer on since the last completed join, oldest first

	Create   Create            // the pending CREATE (R19, R19s); Nonce 0: none
	Change   Change            // R21a, coordinator: the change in progress; Number 0: none
	Changes  uint32            // highest change number that was sent or seen in this session
	Draining Resources         // R22: stopped, and what it wrote is being finished
	Gives    Resources         // R22: GIVE is repeated for these until TAKEN
	Writing  Docs              // R25, writer: DOCPREP is repeated until answered (DocPrepare); Version 0: none
	Claim    Ask               // R26: tells the register of before what was forced; Nonce 0: none
	LegWork  [MaxVolumes]LegAt // R23, R24: what is under way for each volume
	BadLegs  Volumes           // R23: this node's legs that have failed
	LegProof LegProof          // R24: the barrier proved last on this side
	LegOffer LegOffer          // R24: a LEGPREP that waits for it
}

// Create is a CREATE that has not been answered. Its answer counts only while what it names is still true (mutant N22).
type Create struct {
	Nonce Nonce
	Ep    Epoch
	Set   Set
}

// Change is the coordinator's side of R21a.
type Change struct {
	Number  uint32
	Target  Arb
	Dropped bool // the peer has given up its right (step 3): WSET is repeated, not WDROP
}

// LegAt is how far a change of one volume's legs is on its owner's side (R23, R24).
type LegAt uint8

// The steps.
const (
	LegSteady  LegAt = iota
	LegOutSent       // R23: recorded here, LEGOUT is out; acknowledgements are held
	LegInSent        // R24: LEGPREP is out; writes are held
)

// PeerView is what the peer said in this session. It dies with the session.
type PeerView struct {
	Hello bool  // its HELLO was taken
	Fresh bool  // its Site is zero
	Ep    Epoch // committed epoch, of HELLO or the newest beat
	Prep  Epoch // prepared epoch, likewise
	High  Epoch // of HELLO or JOIN
}

// Ask is one attempt at the witness.
type Ask struct {
	RID      ID
	Nonce    Nonce
	Expected RegisterContent
	New      RegisterContent
}

// Push is the PUSH of a committed pair.
type Push struct {
	Nonce Nonce
	RID   ID
	Ep    Epoch
}

// CopyState is how far the coordinator of a join is.
type CopyState uint8

// The copy states.
const (
	CopyIdle CopyState = iota
	Copying
	PrepareSent
)

// Proof is what duet-mirrord proved on this side of the copy.
type Proof struct {
	Done   bool
	Digest Digest
	Out    [2]Volumes // the legs that stay out (CopyDone)
}

// SentBeat is a beat whose ack has not come; Nonce 0: free. The lease runs from Sent, never
// from the ack's receipt (mutant M3).
type SentBeat struct {
	Nonce Nonce
	Sent  Boottime
}

// Fresh says whether this node belongs to no site yet (section 9.3): it never guesses.
func (s State) Fresh() bool { return s.Rec.Site.IsZero() }

// Prepared says whether this node is paired but not committed: it takes replicated writes and starts nothing.
func (s State) Prepared() bool { return s.Mode == Paired && s.Rec.Prep.Ep != 0 }

// Committed says whether this node is paired and committed.
func (s State) Committed() bool { return s.Mode == Paired && s.Rec.Prep.Ep == 0 }

// MayRun says whether this node may run what it owns at this moment.
func (s State) MayRun(now Boottime) bool { return s.Mode == Solo || now < s.Lease }

// PeerStopped says whether the peer is known to run nothing: by evidence or statement recorded
// for this epoch, or because W0 is over. It is the last guard of R8.
func (s State) PeerStopped(now Boottime) bool {
	return s.Rec.Fenced == s.Rec.Ep || s.waitOver(now)
}

// AtRisk says whether the pair could not go on by itself if the peer died now: it has no arbiter,
// or the witness has not confirmed the present membership yet.
func (s State) AtRisk() bool {
	return s.Mode == Paired && (s.Rec.Arb.Kind == ArbNone || s.Push.Nonce != 0)
}

// Owns says whether this node owns r by its durable record. While a prepared tuple is pending, only
// by both tables (R5).
func (s State) Owns(r ResourceID) bool {
	o := s.owners()[r]
	return o.Version != 0 && o.Node == s.Cfg.Self
}

func (s State) waitOver(now Boottime) bool { return now >= s.PeerWait }

func (s State) self() Node { return s.Cfg.Self }

func (s State) peer() Node { return s.Cfg.Self.Peer() }

// epochs is max(ep, prep) of R4, R6 and R7.
func (s State) epochs() Epoch { return max(s.Rec.Ep, s.Rec.Prep.Ep) }

// alone says whether there is no session that counts for R4: one with a fresh node does not.
func (s State) alone() bool { return s.Session == 0 || s.Peer.Fresh }

// peerCommitted says whether the peer has shown, by HELLO or beat, that it is committed at this epoch.
func (s *State) peerCommitted() bool { return s.Peer.Ep == s.Rec.Ep && s.Peer.Prep == 0 }

// together: both nodes are committed in this session, as far as this one knows.
func (s *State) together() bool { return s.Committed() && s.Session != 0 && s.peerCommitted() }

// pairOwner says whether this node may begin what concerns the pair itself.
func (s *State) pairOwner() bool { return s.Owns(PairResource) }

// waits says whether the mode is one in which a HELLO or the witness may decide.
func (s State) waits() bool { return s.Mode == Init || s.Mode == Frozen }
