// Package control is duet-mirrord's local interface: what duetd tells it (configuration, grants, copy) and
// what it tells back (events, status), over one unix socket that only root may use.
//
// duetd decides, duet-mirrord obeys: a grant says who may write until when, and replaces the last one whole.
// A grant is confirmed when nothing more is issued under the old one; confirmation never waits for a device.
// What duet-mirrord says about legs (LegFailed, LegSynced) changes no right: the grant that follows does.
// One connection is one duetd; a second connection takes over and the first is closed. When the connection
// ends the grant stays in force up to its deadline (a restart of duetd is not a reason to stop I/O).
package control

// Node is a chassis slot: 0 is a, 1 is b.
type Node uint8

// Set is a set of nodes: bit 0 is a, bit 1 is b.
type Set uint8

// Has says whether n is in s.
func (s Set) Has(n Node) bool { return s&(1<<n) != 0 }

// Mode is the granted mode; the words are those of the membership protocol.
type Mode uint8

// The modes of a grant. Revoked is also the state of a daemon that has no grant yet.
const (
	Revoked   Mode = iota // nothing is served, no lane is kept
	Frozen                // no session: writes and flushes are held; reads go on until the deadline
	Joining               // copy target: takes the peer's writes and copies, serves nobody
	Resolving             // both legs may differ: lanes for the copy, writes held
	Prepared              // takes the peer's writes of the prepared epoch; serves nobody until committed
	Paired                // every leg of the grant, until the deadline
	Solo                  // own leg only; no deadline; with a session: the peer is being brought up to date
)

// Grant is the whole right of this node. A grant of another boot, or with a lower sequence, is refused.
type Grant struct {
	BootID   string // boot id of this node, of the duetd that grants
	Sequence uint64 // grows with every grant of this boot
	Mode     Mode
	Epoch    uint64
	Prepared uint64 // frames of this epoch are taken too; 0: none
	Session  uint64 // frames of another session are refused; 0: no lanes
	Members  Set
	Deadline int64 // ns on CLOCK_BOOTTIME; after it everything is held. 0 only in Solo: no deadline
	Volumes  []VolumeGrant
}

// VolumeGrant is the part of one volume.
type VolumeGrant struct {
	Volume      string // volume id, 32 hex digits
	Owner       Node   // coordinates the volume while its leg counts; the other node forwards to it
	Legs        Set    // legs that hold every acknowledged write; a single one while the other is taken out (R23)
	LegsVersion uint32
}

// Config says what exists. It is sent on every connect and whenever the site document changes; it grants nothing.
type Config struct {
	Site        string // site id, 32 hex digits
	Node        Node
	BootID      string
	IdentityPEM []byte // this node's ed25519 private key, PKCS #8
	PeerKey     []byte // the peer's ed25519 public key, 32 bytes
	Paths       []Path // in order of preference
	Port        int    // TCP port of the data lane, on every path
	Volumes     []VolumeConfig
}

// Path is one way to the peer's data lane.
type Path struct {
	Name  string // "mirror0", "lan0"
	Local string // address to listen on or dial from, with zone for link-local
	Peer  string
	Clear bool `json:",omitempty"` // no encryption after the handshake, if both nodes say so: for a cable that nobody else reaches
}

// VolumeConfig is a volume that has a leg here. A missing leg is created (zeroed, state "new"), which takes
// time and is reported as progress; an existing one of another size or site is a fault and left alone.
type VolumeConfig struct {
	ID        string // 32 hex digits
	Name      string // NBD export name
	SizeBytes int64  // a multiple of 4096
}

// Event is what duet-mirrord reports without being asked. Exactly one field is set.
type Event struct {
	Link       *LinkEvent
	CopyDone   *CopyDone
	CopyFailed *CopyFailed
	LegFailed  *LegFailed
	LegSynced  *LegSynced
	Fault      *Fault
}

// LegFailed: this node's leg of a volume cannot be written, synced, read or opened. The volume is held until a grant takes
// the leg out (protocol.md R23), and the leg comes back only by a copy that ends in a proof (R24). It is a level: a new
// client hears it again.
type LegFailed struct{ Volume string }

// LegSynced: while paired, a leg that had been taken out is equal again, proved at a barrier, both legs are durable, and
// the coordinator of the volume holds its writes since (protocol.md R24). Both nodes report it, and until the legs of the
// grant change it is a level, as LegFailed is. LegsVersion is that of the grant in which the leg was out.
type LegSynced struct {
	Volume      string
	Session     uint64
	LegsVersion uint32
	Digest      [32]byte
}

// LinkEvent: the data lane of a session is up (authenticated, same session and epoch on both sides) or lost.
type LinkEvent struct {
	Session uint64
	Up      bool
	Path    string
}

// CopyDone: every volume whose legs work was brought together and proved: both sides' digests at the same barrier are equal,
// both legs are durable, and this daemon holds writes since that barrier until the next grant.
// Reported on the source's node and on the target's node.
type CopyDone struct {
	Session uint64
	Digest  [32]byte
	// Out are the volumes whose leg of a node (a, b) is broken: it stays out, and the other one is the only leg. The digest
	// binds them.
	Out [2][]string
}

// CopyFailed: the copy of this session will not finish.
type CopyFailed struct {
	Session uint64
	Reason  string
}

// Fault is an operator-visible problem: code, what, why, next.
type Fault struct {
	Code, What, Why, Next string
	Volume                string // volume id, or empty
}

// Status is a snapshot for people and tests.
type Status struct {
	Instance string // random per start of the daemon: a restart is seen by it
	Grant    Grant
	Held     bool // no live grant, or past its deadline
	LinkUp   bool
	LinkPath string
	Volumes  []VolumeStatus
}

// VolumeStatus tells one leg and its engine. Reads, Writes and Flushes count since the daemon's start.
type VolumeStatus struct {
	ID, Name       string
	SizeBytes      int64
	Stage          string // creating, held, paired, alone, catching, target, reconciling, preparing, remote, failed; draining, drained
	LegState       string // new, uptodate, inconsistent, outdated, failed, ejected
	Generation     string
	DirtyBytes     int64 // what the other leg certainly or possibly lacks
	HeldOps        int   // requests that wait for a grant
	Reads          uint64
	Writes         uint64
	Flushes        uint64
	Copy           CopyProgress
	Scrub          ScrubProgress
	ProvenEpoch    uint64 // epoch of the last equal digest
	RepairedBlocks int64  // blocks of this leg that were repaired from the other one since the daemon started
	DamagedBlocks  int    // blocks that no leg has as they were written, as far as they were read
	LastStallMS    int64  // longest time a guest request of the last hold waited, ms; 0: none since start
}

// ScrubProgress is about the running scrub, or the last one, of a volume that this node coordinates.
type ScrubProgress struct {
	Running      bool
	Ordered      bool   // and not begun
	DoneBytes    int64  // of the running pass, or of the last one
	Passes       int    // that reached the end since the daemon started
	Ended        int64  // when the last of them did, ns of CLOCK_BOOTTIME; 0: none yet
	Why          string // the last one ended early; empty: it did not
	PeerRepaired int64  // blocks of the other leg that were bad and were written anew, since the daemon started
	Different    int64  // blocks that were different although both legs vouched for their own
}

// CopyProgress is about the running or the last copy of a volume, a reconcile inside a session too.
type CopyProgress struct {
	Running        bool
	DirtyBytes     int64 // marked different or possibly different when it began; the target knows only its own marks
	ResyncBytes    int64 // bytes of blocks sent or received
	DigestBytes    int64 // bytes read and digested on this node for comparing and proving
	RemainingBytes int64 // not compared yet, or different and not sent yet
}
