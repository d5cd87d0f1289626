package membership

// Record is what a node remembers over a crash: protocol.md section 3. One atomic
// record per node in two checksummed slots; durable before it is acted on.
type Record struct {
	Seq        uint64   // grows with every Persist
	Site       ID       // zero: a fresh node
	Ep         Epoch    // committed epoch
	Members    Set      // committed members
	High       Epoch    // highest epoch this node ever recorded, committed or prepared; never falls (R14)
	Prep       Prepared // Prep.Ep = 0: none
	Owners     Owners
	Legs       Legs
	Arb        Arb
	Consistent bool  // false while being brought up to date
	Fenced     Epoch // epoch for which the peer is known to be stopped; counts only while = Ep
	Docs       Docs
}

// Prepared is the whole tuple that PREPARE names. Ep = 0 means none.
type Prepared struct {
	Ep     Epoch
	Owners Owners
	Legs   Legs
	Arb    Arb
	Docs   Docs
	Digest Digest // of the copy: what the prepared node holds
}

// Owner is who coordinates and runs a resource. Version 0: no such resource.
type Owner struct {
	Node    Node
	Version uint32 // +1 with every change; the higher version wins a merge (R13)
}

// Owners has one entry a resource slot.
type Owners [MaxResources]Owner

// VolumeLegs are the legs that hold every acknowledged write of a volume. Version 0: no such volume.
type VolumeLegs struct {
	Set     Set
	Version uint32
}

// Legs has one entry a volume slot.
type Legs [MaxVolumes]VolumeLegs

// ArbKind is how a node may leave "frozen" alone.
type ArbKind uint8

// The kinds. Fence belongs to R21 and is never entered yet.
const (
	ArbNone ArbKind = iota
	ArbWitness
	ArbFence
)

// Arb is one field: the method of arbitration and, for a witness, the register id (rid).
type Arb struct {
	Kind ArbKind
	RID  ID
}

// DocRef names one version of a document that rides on the record (section 10).
type DocRef struct {
	Ep      Epoch
	Version uint64
	Hash    Digest
}

// The documents. The database record joins with the PostgreSQL pair.
const (
	DocSite = iota
	docCount
)

// Docs has one entry a document.
type Docs [docCount]DocRef
