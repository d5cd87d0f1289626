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
	Docs       Docs  // current: what managers act on
	Pending    Docs  // R25: recorded for the peer, which may have acknowledged it; Version 0: none
	Forced     Force // Counter 0: never
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
	Set      Set
	Pending  bool       // R24: this node's leg is equal and not in Set yet; nothing was acknowledged without it since
	Resource ResourceID // whose volume it is: its owner decides about the legs (R23)
	Version  uint32
}

// Legs has one entry a volume slot.
type Legs [MaxVolumes]VolumeLegs

// ArbKind is how a node may leave "frozen" alone.
type ArbKind uint8

// The kinds. None is legal in the middle of a change (R21a) and in a site that was founded without a witness: it waits.
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

// DocID names a document: the writer of the site document is the pair owner, that of the database record the owner of
// the database.
type DocID uint8

// The documents.
const (
	DocSite DocID = iota
	DocDatabase
	docCount
)

// Docs has one entry a document.
type Docs [docCount]DocRef

// Force is the durable mark of an override (R26): a person made this node go on from a record that did not allow it.
// It is shown wherever the site is shown, and it is copied to the peer at the join.
type Force struct {
	Counter uint32 // grows with every override; of two sides that went on alone, the higher one serves
	Ep      Epoch  // the record it was forced from
	Members Set
	Prep    Epoch
	Text    Text // who and why
}

// Text is UTF-8, cut, padded with zeros: it keeps Record a comparable value of fixed size.
type Text [64]byte

// String is the text.
func (t Text) String() string {
	n := len(t)
	for n > 0 && t[n-1] == 0 {
		n--
	}
	return string(t[:n])
}

// MakeText cuts s at a rune: a byte of the form 10xxxxxx goes on with one (RFC 3629 section 3).
func MakeText(s string) (t Text) {
	n := min(len(s), len(t))
	for n < len(s) && n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	copy(t[:], s[:n])
	return t
}
