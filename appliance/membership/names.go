package membership

// Node is a chassis slot.
type Node uint8

// The two nodes of a site.
const (
	A Node = iota
	B
)

// Peer is the other node.
func (n Node) Peer() Node { return n ^ 1 }

// String is the slot's letter.
func (n Node) String() string { return string('a' + rune(n)) }

// Set is a set of nodes: bit 0 is a, bit 1 is b.
type Set uint8

// The sets.
const (
	Nobody Set = 0
	OnlyA  Set = 1
	OnlyB  Set = 2
	Both   Set = 3
)

// Only is the set {n}.
func Only(n Node) Set { return 1 << n }

// Has says whether n is in s.
func (s Set) Has(n Node) bool { return s&Only(n) != 0 }

// Other is the one node that is missing from a set of one.
func (s Set) Other() Node {
	if s == OnlyA {
		return B
	}
	return A
}

// String is the set as the documents write it.
func (s Set) String() string { return [...]string{"{}", "{a}", "{b}", "{a,b}"}[s&3] }

// ID names a site, a register or a volume: 128 random bits.
type ID [16]byte

// IsZero says whether the id was never set.
func (id ID) IsZero() bool { return id == ID{} }

// Epoch is the number of a membership; it grows with every change.
type Epoch uint64

// Session names one unbroken conversation of the two nodes; 0 is none.
type Session uint64

// Nonce is 64 random bits that arrive inside an input (the core has no random source).
type Nonce uint64

// Boottime is nanoseconds on CLOCK_BOOTTIME of this node; 0 is "never" or "none".
type Boottime int64

// Digest is a SHA-256.
type Digest [32]byte

// ResourceID is a slot of the site document's resource table. A resource is a VM
// with its volumes, or one unattached volume. Slot 0 always exists: "pair".
type ResourceID uint8

// VolumeSlot is a slot of the site document's volume table.
type VolumeSlot uint8

// Limits of the fixed tables that keep State a comparable value.
const (
	MaxResources = 32 // VMs and unattached volumes of one site, and the pair itself
	MaxVolumes   = 32
)

// PairResource is the resource whose owner may change the pair itself.
const PairResource ResourceID = 0

// Resources is a set of resources: bit i is slot i.
type Resources uint32

// Has says whether r is in the set.
func (s Resources) Has(r ResourceID) bool { return s&(1<<r) != 0 }

// Volumes is a set of volumes: bit i is slot i.
type Volumes uint32

// Has says whether v is in the set.
func (s Volumes) Has(v VolumeSlot) bool { return s&(1<<v) != 0 }
