package membership

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The record on disk and on the wire, version 2 (1 was never released): fixed size, little-endian, no padding. The slots of the
// record device add their own checksum; the transport has TLS. Order: what a person needs first when
// reading a hex dump, then the tables.
//
//	version 1 | seq 8 | site 16 | ep 8 | members 1 | high 8 | consistent 1 | fenced 8 | arb 17 | docs | pending docs |
//	forced | owners | legs | prep
//	arb: kind 1, rid 16      doc: ep 8, version 8, hash 32      forced: counter 4, ep 8, members 1, prep 8, text 64
//	owner: node 1, version 4      legs: set 1, pending 1, resource 1, version 4
//	prep: ep 8, arb 17, docs, owners, legs, digest 32
//
// A reader refuses another version, another length and every value outside its range: a half-believed record is
// worse than none. A field is added by a new version, read by both (section 12.6).
const (
	recordVersion = 2
	arbSize       = 17
	docsSize      = int(docCount) * 48
	tablesSize    = MaxResources*5 + MaxVolumes*7
	forcedSize    = 4 + 8 + 1 + 8 + 64
	prepSize      = 8 + arbSize + docsSize + tablesSize + 32
	// RecordSize is the length of every encoded record.
	RecordSize = 1 + 8 + 16 + 8 + 1 + 8 + 1 + 8 + arbSize + 2*docsSize + forcedSize + tablesSize + prepSize
)

// ErrCorrupt says that bytes are not a record or message of this version.
var ErrCorrupt = errors.New("not a valid encoding")

// AppendRecord appends the encoded record to dst.
func AppendRecord(dst []byte, r Record) []byte {
	w := writer{dst}
	w.u8(recordVersion)
	w.u64(r.Seq)
	w.b = append(w.b, r.Site[:]...)
	w.u64(uint64(r.Ep))
	w.u8(uint8(r.Members))
	w.u64(uint64(r.High))
	w.bool(r.Consistent)
	w.u64(uint64(r.Fenced))
	w.arb(r.Arb)
	w.docs(r.Docs)
	w.docs(r.Pending)
	w.forced(r.Forced)
	w.tables(r.Owners, r.Legs)
	w.prepared(r.Prep)
	return w.b
}

// ParseRecord reads exactly one record.
func ParseRecord(b []byte) (Record, error) {
	r := reader{b: b}
	rec := r.record()
	if err := r.end(); err != nil {
		return Record{}, fmt.Errorf("membership record: %w", err)
	}
	return rec, nil
}

type writer struct{ b []byte }

func (w *writer) u8(v uint8)   { w.b = append(w.b, v) }
func (w *writer) u32(v uint32) { w.b = binary.LittleEndian.AppendUint32(w.b, v) }
func (w *writer) u64(v uint64) { w.b = binary.LittleEndian.AppendUint64(w.b, v) }

func (w *writer) bool(v bool) {
	if v {
		w.u8(1)
		return
	}
	w.u8(0)
}

func (w *writer) arb(a Arb) {
	w.u8(uint8(a.Kind))
	w.b = append(w.b, a.RID[:]...)
}

func (w *writer) docs(d Docs) {
	for _, x := range d {
		w.doc(x)
	}
}

func (w *writer) doc(x DocRef) {
	w.u64(uint64(x.Ep))
	w.u64(x.Version)
	w.b = append(w.b, x.Hash[:]...)
}

func (w *writer) forced(f Force) {
	w.u32(f.Counter)
	w.u64(uint64(f.Ep))
	w.u8(uint8(f.Members))
	w.u64(uint64(f.Prep))
	w.b = append(w.b, f.Text[:]...)
}

func (w *writer) tables(o Owners, l Legs) {
	for _, x := range o {
		w.u8(uint8(x.Node))
		w.u32(x.Version)
	}
	for _, x := range l {
		w.u8(uint8(x.Set))
		w.bool(x.Pending)
		w.u8(uint8(x.Resource))
		w.u32(x.Version)
	}
}

func (w *writer) prepared(p Prepared) {
	w.u64(uint64(p.Ep))
	w.arb(p.Arb)
	w.docs(p.Docs)
	w.tables(p.Owners, p.Legs)
	w.b = append(w.b, p.Digest[:]...)
}

// reader reads from b; after the first error it reads zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || len(r.b) < n {
		r.bad = true
		return make([]byte, n)
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

// end says whether everything was in range and used up.
func (r *reader) end() error {
	switch {
	case r.bad:
		return ErrCorrupt
	case len(r.b) != 0:
		return fmt.Errorf("%w: %d bytes too many", ErrCorrupt, len(r.b))
	}
	return nil
}

func (r *reader) u8() uint8     { return r.take(1)[0] }
func (r *reader) u32() uint32   { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64   { return binary.LittleEndian.Uint64(r.take(8)) }
func (r *reader) epoch() Epoch  { return Epoch(r.u64()) }
func (r *reader) nonce() Nonce  { return Nonce(r.u64()) }
func (r *reader) id() (id ID)   { copy(id[:], r.take(16)); return id }
func (r *reader) bool() bool    { return r.small(1) == 1 }
func (r *reader) set() Set      { return Set(r.small(uint8(Both))) }
func (r *reader) hash() Digest  { return Digest(r.take(32)) }
func (r *reader) version() bool { return r.u8() == recordVersion }

// small reads a byte that may not be above limit.
func (r *reader) small(limit uint8) uint8 {
	v := r.u8()
	if v > limit {
		r.bad = true
	}
	return v
}

func (r *reader) record() Record {
	if !r.version() {
		r.bad = true
	}
	rec := Record{
		Seq: r.u64(), Site: r.id(), Ep: r.epoch(), Members: r.set(), High: r.epoch(),
		Consistent: r.bool(), Fenced: r.epoch(), Arb: r.arb(), Docs: r.docs(), Pending: r.docs(), Forced: r.forced(),
	}
	rec.Owners, rec.Legs = r.tables()
	rec.Prep = r.prepared()
	return rec
}

func (r *reader) arb() Arb { return Arb{ArbKind(r.small(uint8(ArbFence))), r.id()} }

func (r *reader) docs() (d Docs) {
	for i := range d {
		d[i] = r.doc()
	}
	return d
}

func (r *reader) doc() DocRef { return DocRef{r.epoch(), r.u64(), r.hash()} }

func (r *reader) forced() Force {
	return Force{r.u32(), r.epoch(), r.set(), r.epoch(), Text(r.take(len(Text{})))}
}

func (r *reader) tables() (o Owners, l Legs) {
	for i := range o {
		o[i] = Owner{Node(r.small(uint8(B))), r.u32()}
	}
	for i := range l {
		l[i] = VolumeLegs{r.set(), r.bool(), ResourceID(r.small(MaxResources - 1)), r.u32()}
	}
	return o, l
}

func (r *reader) prepared() Prepared {
	p := Prepared{Ep: r.epoch(), Arb: r.arb(), Docs: r.docs()}
	p.Owners, p.Legs = r.tables()
	p.Digest = r.hash()
	return p
}
