package flight

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"duet/appliance/membership"
)

// Bytes of a value, by its type:
//
//	bool                1 byte, 0 or 1
//	8 bit               1 byte
//	16-64 bit           uvarint; signed: zigzag
//	Nonce, Session      a place among the last nonces (1 byte), or 0xff and 8 bytes
//	array of bytes      1 byte whether it is anything but zero, then the bytes
//	other arrays        uvarint count of elements that are not zero, then place and value of each, in order
//	struct              its fields in order
//	interface           uvarint place in its list, then the value
//
// Nothing else is in the closed list; a test walks it. A reader takes every value only in its one form.

// recent are the last nonces that were written: a beat's nonce comes again with each of its answers.
type recent struct {
	list [recentNonces]uint64
	next int
}

// recentNonces: beats of two paths and their answers for a second; a place is less than newNonce.
const (
	recentNonces = 32
	newNonce     = 0xff
)

func (r *recent) find(n uint64) (int, bool) {
	for i, v := range r.list {
		if v == n {
			return i, true
		}
	}
	return 0, false
}

func (r *recent) add(n uint64) {
	r.list[r.next] = n
	r.next = (r.next + 1) % recentNonces
}

var (
	nonceType   = reflect.TypeFor[membership.Nonce]()
	sessionType = reflect.TypeFor[membership.Session]()
)

// writer encodes. Without nonces every nonce is written whole: digests and states stand for themselves.
type writer struct {
	b      []byte
	nonces *recent
}

func (w *writer) uvarint(v uint64) { w.b = binary.AppendUvarint(w.b, v) }

func (w *writer) nonce(n uint64) {
	if w.nonces != nil {
		if i, ok := w.nonces.find(n); ok {
			w.b = append(w.b, byte(i))
			return
		}
		w.nonces.add(n)
	}
	w.b = binary.LittleEndian.AppendUint64(append(w.b, newNonce), n)
}

// value appends v. A type outside the closed list is a fault of this package; the recorder stops with it.
func (w *writer) value(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Bool:
		var b byte
		if v.Bool() {
			b = 1
		}
		w.b = append(w.b, b)
	case reflect.Uint8:
		w.b = append(w.b, byte(v.Uint())) //nolint:gosec // 8 bit
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if v.Type() == nonceType || v.Type() == sessionType {
			w.nonce(v.Uint())
			return nil
		}
		w.uvarint(v.Uint())
	case reflect.Int64:
		w.b = binary.AppendVarint(w.b, v.Int())
	case reflect.Array:
		return w.array(v)
	case reflect.Struct:
		for _, f := range v.Fields() {
			if err := w.value(f); err != nil {
				return err
			}
		}
	case reflect.Interface:
		return w.dynamic(v)
	default:
		return fmt.Errorf("flight: %v cannot be recorded", v.Type())
	}
	return nil
}

func (w *writer) array(v reflect.Value) error {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		if v.IsZero() {
			w.b = append(w.b, 0)
			return nil
		}
		w.b = append(w.b, 1)
		for i := range v.Len() {
			w.b = append(w.b, byte(v.Index(i).Uint())) //nolint:gosec // 8 bit
		}
		return nil
	}
	count := 0
	for i := range v.Len() {
		if !v.Index(i).IsZero() {
			count++
		}
	}
	w.uvarint(uint64(count)) //nolint:gosec // a count
	for i := range v.Len() {
		if v.Index(i).IsZero() {
			continue
		}
		w.uvarint(uint64(i)) //nolint:gosec // an index
		if err := w.value(v.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) dynamic(v reflect.Value) error {
	number, err := numberOf(v)
	if err != nil {
		return err
	}
	w.uvarint(uint64(number)) //nolint:gosec // an index
	return w.value(v.Elem())
}

func numberOf(v reflect.Value) (int, error) {
	r := registries[v.Type()]
	if r == nil || v.IsNil() {
		return 0, fmt.Errorf("flight: a nil or unknown %v cannot be recorded", v.Type())
	}
	number, ok := r.number[v.Elem().Type()]
	if !ok {
		return 0, fmt.Errorf("flight: %v is not in the closed list", v.Elem().Type())
	}
	return number, nil
}

// errCorrupt: the bytes pass their checksum and are not a recording.
var errCorrupt = errors.New("not a valid entry")

// reader decodes; after the first error it reads zeros.
type reader struct {
	b      []byte
	nonces *recent
	bad    bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || len(r.b) < n {
		r.bad = true
		return make([]byte, max(0, min(n, maxFrame)))
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u8() byte { return r.take(1)[0] }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 || n > 1 && r.b[n-1] == 0 { // the last: a longer form of the same number
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1) //nolint:gosec // zigzag
}

func (r *reader) nonce() uint64 {
	place := r.u8()
	if place != newNonce {
		if r.nonces == nil || int(place) >= recentNonces {
			r.bad = true
			return 0
		}
		return r.nonces.list[place]
	}
	n := binary.LittleEndian.Uint64(r.take(8))
	if r.nonces != nil {
		if _, known := r.nonces.find(n); known {
			r.bad = true
		}
		r.nonces.add(n)
	}
	return n
}

// value fills v, which can be set.
func (r *reader) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		b := r.u8()
		r.bad = r.bad || b > 1
		v.SetBool(b == 1)
	case reflect.Uint8:
		v.SetUint(uint64(r.u8()))
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		r.unsigned(v)
	case reflect.Int64:
		v.SetInt(r.varint())
	case reflect.Array:
		r.array(v)
	case reflect.Struct:
		for _, f := range v.Fields() {
			r.value(f)
		}
	case reflect.Interface:
		r.dynamic(v)
	default:
		r.bad = true
	}
}

func (r *reader) unsigned(v reflect.Value) {
	var n uint64
	if v.Type() == nonceType || v.Type() == sessionType {
		n = r.nonce()
	} else {
		n = r.uvarint()
	}
	if v.OverflowUint(n) {
		r.bad = true
		return
	}
	v.SetUint(n)
}

func (r *reader) array(v reflect.Value) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		switch r.u8() {
		case 0:
		case 1:
			b := r.take(v.Len())
			for i := range v.Len() {
				v.Index(i).SetUint(uint64(b[i]))
			}
			r.bad = r.bad || v.IsZero()
		default:
			r.bad = true
		}
		return
	}
	next := uint64(0)
	for range r.uvarint() {
		i := r.uvarint()
		if r.bad || i < next || i >= uint64(v.Len()) { //nolint:gosec // a length
			r.bad = true
			return
		}
		r.value(v.Index(int(i)))                  //nolint:gosec // below the length
		r.bad = r.bad || v.Index(int(i)).IsZero() //nolint:gosec // below the length
		next = i + 1
	}
}

func (r *reader) dynamic(v reflect.Value) {
	list := registries[v.Type()]
	number := r.uvarint()
	if r.bad || list == nil || number >= uint64(len(list.types)) {
		r.bad = true
		return
	}
	inner := reflect.New(list.types[number]).Elem()
	r.value(inner)
	v.Set(inner)
}

// stateBytes is the whole state, for snapshots and digests.
func stateBytes(s *membership.State) ([]byte, error) {
	w := writer{b: make([]byte, 0, 1024)}
	err := w.value(reflect.ValueOf(s).Elem())
	return w.b, err
}

// parseState reads exactly one state.
func parseState(b []byte) (membership.State, error) {
	var s membership.State
	r := reader{b: b}
	r.value(reflect.ValueOf(&s).Elem())
	if r.bad || len(r.b) != 0 {
		return membership.State{}, errCorrupt
	}
	return s, nil
}

// effectsBytes is the list in order.
func effectsBytes(list []membership.Effect) ([]byte, error) {
	w := writer{b: make([]byte, 0, 256)}
	for i := range list {
		if err := w.dynamic(reflect.ValueOf(&list[i]).Elem()); err != nil {
			return nil, err
		}
	}
	return w.b, nil
}
