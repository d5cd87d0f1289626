package membership

import "fmt"

// messageKind is the first byte of every message between the nodes. Numbers are never used twice.
type messageKind uint8

const (
	kindHello messageKind = iota + 1
	kindJoin
	kindPrepare
	kindPrepared
	kindCommit
	kindBeat
	kindBeatAck
	kindYield
	kindGive
	kindTaken
	kindWDrop
	kindWDropped
	kindWSet
	kindDocPrepare
	kindDocPrepared
	kindDocCommit
	kindLegBad
	kindLegOut
	kindLegOutOK
	kindLegPrepare
	kindLegPrepared
	kindLegCommit
)

// MaxMessageSize is the longest encoded message: a HELLO.
const MaxMessageSize = 1 + RecordSize

// MarshalMessage is the wire form: one kind byte, then the fields, little-endian. The session is the transport's.
func MarshalMessage(m Message) []byte {
	var w writer
	switch m := m.(type) {
	case Hello:
		return AppendRecord([]byte{byte(kindHello)}, m.Record)
	case Join:
		w.epochs(kindJoin, m.Ep, m.High)
	case Prepare:
		w.u8(uint8(kindPrepare))
		w.b = append(w.b, m.Site[:]...)
		w.prepared(m.Tuple)
	case PreparedMsg:
		w.epochs(kindPrepared, m.Ep)
	case Commit:
		w.epochs(kindCommit, m.Ep)
	case BeatMsg:
		w.epochs(kindBeat, Epoch(m.Nonce), m.Ep, m.Prep)
		w.arb(m.Arb)
	case BeatAck:
		w.epochs(kindBeatAck, Epoch(m.Nonce), m.Ep, m.Prep)
		w.arb(m.Arb)
	case Yield:
		return AppendRecord([]byte{byte(kindYield)}, m.Record)
	case Give:
		w.versioned(kindGive, uint8(m.Resource), m.Version)
	case Taken:
		w.versioned(kindTaken, uint8(m.Resource), m.Version)
	default:
		w.change(m)
	}
	return w.b
}

// change codes the messages of R21a, R23, R24 and R25.
func (w *writer) change(m Message) {
	switch m := m.(type) {
	case WDrop:
		w.numbered(kindWDrop, m.Number, m.Target)
	case WDropped:
		w.u8(uint8(kindWDropped))
		w.u32(m.Number)
	case WSet:
		w.numbered(kindWSet, m.Number, m.Target)
	case DocPrepare:
		w.document(kindDocPrepare, m.Doc, m.Ref)
	case DocPrepared:
		w.document(kindDocPrepared, m.Doc, m.Ref)
	case DocCommit:
		w.document(kindDocCommit, m.Doc, m.Ref)
	case LegBad:
		w.b = append(w.b, uint8(kindLegBad), uint8(m.Volume))
	case LegOut:
		w.versioned(kindLegOut, uint8(m.Volume), m.Version)
		w.u8(uint8(m.Out))
	case LegOutOK:
		w.versioned(kindLegOutOK, uint8(m.Volume), m.Version)
	case LegPrepare:
		w.versioned(kindLegPrepare, uint8(m.Volume), m.Version)
		w.b = append(w.b, m.Digest[:]...)
	case LegPrepared:
		w.versioned(kindLegPrepared, uint8(m.Volume), m.Version)
	case LegCommit:
		w.versioned(kindLegCommit, uint8(m.Volume), m.Version)
	}
}

func (w *writer) versioned(k messageKind, slot uint8, version uint32) {
	w.b = append(w.b, uint8(k), slot)
	w.u32(version)
}

func (w *writer) numbered(k messageKind, number uint32, target Arb) {
	w.u8(uint8(k))
	w.u32(number)
	w.arb(target)
}

func (w *writer) document(k messageKind, doc DocID, ref DocRef) {
	w.b = append(w.b, uint8(k), uint8(doc))
	w.doc(ref)
}

func (w *writer) epochs(k messageKind, es ...Epoch) {
	w.u8(uint8(k))
	for _, e := range es {
		w.u64(uint64(e))
	}
}

// ParseMessage reads exactly one message.
func ParseMessage(b []byte) (Message, error) {
	r := reader{b: b}
	kind := messageKind(r.u8())
	m := r.message(kind)
	if m == nil {
		return nil, fmt.Errorf("membership message of kind %d: %w", kind, ErrCorrupt)
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("membership message of kind %d: %w", kind, err)
	}
	return m, nil
}

func (r *reader) message(kind messageKind) Message {
	switch kind {
	case kindHello:
		return Hello{r.record()}
	case kindJoin:
		return Join{r.epoch(), r.epoch()}
	case kindPrepare:
		return Prepare{r.id(), r.prepared()}
	case kindPrepared:
		return PreparedMsg{r.epoch()}
	case kindCommit:
		return Commit{r.epoch()}
	case kindBeat:
		return BeatMsg{r.nonce(), r.epoch(), r.epoch(), r.arb()}
	case kindBeatAck:
		return BeatAck{r.nonce(), r.epoch(), r.epoch(), r.arb()}
	case kindYield:
		return Yield{r.record()}
	case kindGive:
		return Give{r.resource(), r.u32()}
	case kindTaken:
		return Taken{r.resource(), r.u32()}
	}
	return r.change(kind)
}

func (r *reader) change(kind messageKind) Message {
	switch kind {
	case kindWDrop:
		return WDrop{r.u32(), r.arb()}
	case kindWDropped:
		return WDropped{r.u32()}
	case kindWSet:
		return WSet{r.u32(), r.arb()}
	case kindDocPrepare:
		return DocPrepare{r.docID(), r.doc()}
	case kindDocPrepared:
		return DocPrepared{r.docID(), r.doc()}
	case kindDocCommit:
		return DocCommit{r.docID(), r.doc()}
	case kindLegBad:
		return LegBad{r.volume()}
	case kindLegOut:
		v, version := r.volume(), r.u32()
		return LegOut{v, Node(r.small(uint8(B))), version}
	case kindLegOutOK:
		return LegOutOK{r.volume(), r.u32()}
	case kindLegPrepare:
		return LegPrepare{r.volume(), r.u32(), r.hash()}
	case kindLegPrepared:
		return LegPrepared{r.volume(), r.u32()}
	case kindLegCommit:
		return LegCommit{r.volume(), r.u32()}
	default: // the others above
	}
	return nil
}

func (r *reader) resource() ResourceID { return ResourceID(r.small(MaxResources - 1)) }
func (r *reader) volume() VolumeSlot   { return VolumeSlot(r.small(MaxVolumes - 1)) }
func (r *reader) docID() DocID         { return DocID(r.small(uint8(docCount) - 1)) }
