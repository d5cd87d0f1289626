package membership

// Message travels between the two nodes inside one session; the transport tags it with the session
// (protocol.md section 5.2). MarshalMessage and ParseMessage are the wire form.
type Message interface{ message() }

type (
	// Hello is the first message of a session: the sender's whole record.
	Hello struct{ Record Record }

	// Join: I am outdated and everything here is stopped (R12). Ep is the epoch it recorded.
	Join struct{ Ep, High Epoch }

	// Prepare names the tuple that both will commit (R14); in R27 it founds the site.
	Prepare struct {
		Site  ID
		Tuple Prepared
	}

	// PreparedMsg answers Prepare (R15).
	PreparedMsg struct{ Ep Epoch }

	// Commit makes the prepared tuple the record (R16, R16b).
	Commit struct{ Ep Epoch }

	// BeatMsg carries a fresh nonce; BeatAck repeats it (R11). Both tell committed and prepared epoch and the arbiter.
	BeatMsg struct {
		Nonce    Nonce
		Ep, Prep Epoch
		Arb      Arb
	}
	// BeatAck is the answer.
	BeatAck struct {
		Nonce    Nonce
		Ep, Prep Epoch
		Arb      Arb
	}

	// Yield is the record of a node that has left: its peer is the only member (R18).
	Yield struct{ Record Record }

	// Give: the owner of this resource is you, at this version (R22). Repeated until Taken.
	Give struct {
		Resource ResourceID
		Version  uint32
	}
	// Taken answers Give.
	Taken struct {
		Resource ResourceID
		Version  uint32
	}

	// WDrop opens a change of arbitration: give up every right to go on alone (R21a, step 1).
	WDrop struct {
		Number uint32
		Target Arb
	}
	// WDropped: this node has none any more (step 2).
	WDropped struct{ Number uint32 }
	// WSet: the target is the arbiter of both (step 3); repeated until a beat shows it.
	WSet struct {
		Number uint32
		Target Arb
	}

	// DocPrepare asks to record a version of a document as pending (R25). It is delivered only after the document
	// itself is durable on this node.
	DocPrepare struct {
		Doc DocID
		Ref DocRef
	}
	// DocPrepared: it is.
	DocPrepared struct {
		Doc DocID
		Ref DocRef
	}
	// DocCommit: it is current on the writer's node.
	DocCommit struct {
		Doc DocID
		Ref DocRef
	}

	// LegBad: the sender's leg of this volume has failed (R23).
	LegBad struct{ Volume VolumeSlot }
	// LegOut: the owner has recorded that a leg is out, at this version (R23).
	LegOut struct {
		Volume  VolumeSlot
		Out     Node
		Version uint32
	}
	// LegOutOK: the peer has recorded it too.
	LegOutOK struct {
		Volume  VolumeSlot
		Version uint32
	}
	// LegPrepare: your leg is equal to mine and I hold the writes; record it as pending, at this version (R24).
	LegPrepare struct {
		Volume  VolumeSlot
		Version uint32
		Digest  Digest
	}
	// LegPrepared: recorded.
	LegPrepared struct {
		Volume  VolumeSlot
		Version uint32
	}
	// LegCommit: both legs are in, at this version.
	LegCommit struct {
		Volume  VolumeSlot
		Version uint32
	}
)

func (Hello) message()       {}
func (Join) message()        {}
func (Prepare) message()     {}
func (PreparedMsg) message() {}
func (Commit) message()      {}
func (BeatMsg) message()     {}
func (BeatAck) message()     {}
func (Yield) message()       {}
func (Give) message()        {}
func (Taken) message()       {}
func (WDrop) message()       {}
func (WDropped) message()    {}
func (WSet) message()        {}
func (DocPrepare) message()  {}
func (DocPrepared) message() {}
func (DocCommit) message()   {}
func (LegBad) message()      {}
func (LegOut) message()      {}
func (LegOutOK) message()    {}
func (LegPrepare) message()  {}
func (LegPrepared) message() {}
func (LegCommit) message()   {}
