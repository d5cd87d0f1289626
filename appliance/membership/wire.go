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
	case BeatAck:
		w.epochs(kindBeatAck, Epoch(m.Nonce), m.Ep, m.Prep)
	}
	return w.b
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
		return BeatMsg{r.nonce(), r.epoch(), r.epoch()}
	case kindBeatAck:
		return BeatAck{r.nonce(), r.epoch(), r.epoch()}
	}
	return nil
}
