package flight

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"reflect"
	"time"

	"duet/appliance/membership"
)

// Entry is one thing in a recording: a whole state, or an input with the digests of what it led to.
type Entry struct {
	Seq      uint64
	Snapshot *Snapshot // nil: an input

	Input   membership.Input // Fresh is 1 where the decision did not use it
	Changed bool             // the state after it differs from the one before
	Acted   bool             // it had effects
	Died    bool             // Step panicked; nothing else is known
	State   Digest           // of the state after it, if Changed; of a beat: of both, two bytes, if Changed or Acted
	Effects Digest           // of the effects, if Acted and no beat
}

// Digest is the beginning of a SHA-256: enough to tell a difference, of which a real one shows in many entries.
type Digest [4]byte

// beatDigest is how much of it a beat has. Beats are nearly all of a recording, and a state that differs after one of
// them differs after the next as well.
const beatDigest = 2

// Reason says why a whole state was written.
type Reason uint8

// The reasons.
const (
	AtStart    Reason = iota // duetd began
	Periodic                 // every ten minutes
	AtSegment                // the first entry of a file
	AfterLoss                // entries before it were left out
	reasonLast = AfterLoss
)

// String is the word for people.
func (r Reason) String() string {
	if r > reasonLast {
		return "?"
	}
	return [...]string{"duetd began", "ten minutes", "a new file", "entries were left out"}[r]
}

// Snapshot is a whole state: replay begins at any of them, and compares itself with the others.
type Snapshot struct {
	Reason Reason
	Lost   uint64 // entries left out before it
	BootID string
	Now    membership.Boottime
	Wall   time.Time // for people
	State  membership.State
}

// The first byte of an entry.
const (
	kindSnapshot byte = 0x01
	kindInput    byte = 0x10 // the low bits are flags

	flagChanged byte = 1
	flagActed   byte = 2
	flagFresh   byte = 4
	flagDied    byte = 8
	flagsAll         = flagChanged | flagActed | flagFresh | flagDied
)

// run is what the encoding of an entry refers to; it begins anew with every snapshot, on both sides.
type run struct {
	nonces recent
	now    membership.Boottime
	last   map[reflect.Type]reflect.Value // of each event and message type: fields that are equal are left out
}

func newRun(now membership.Boottime) *run {
	return &run{now: now, last: map[reflect.Type]reflect.Value{}}
}

func digest(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest(sum[:len(Digest{})])
}

func appendSnapshot(b []byte, s *Snapshot) ([]byte, error) {
	state, err := stateBytes(&s.State)
	if err != nil {
		return nil, err
	}
	w := writer{b: append(b, kindSnapshot, byte(s.Reason))}
	w.uvarint(s.Lost)
	id := s.BootID[:min(len(s.BootID), maxText)]
	w.b = append(append(w.b, byte(len(id))), id...)
	w.uvarint(uint64(s.Now))             //nolint:gosec // never negative
	w.uvarint(uint64(s.Wall.UnixNano())) //nolint:gosec // read back the same way
	w.uvarint(uint64(len(state)))
	return append(w.b, state...), nil
}

// appendInput encodes an entry against what came before it in the run.
func (u *run) appendInput(b []byte, e *Entry, usesFresh bool) ([]byte, error) {
	var flags byte
	for i, set := range [...]bool{e.Changed, e.Acted, usesFresh, e.Died} {
		if set {
			flags |= 1 << i
		}
	}
	w := writer{b: append(b, kindInput|flags), nonces: &u.nonces}
	w.uvarint(uint64(e.Input.Now - u.now)) //nolint:gosec // boot time does not go back; if it did, this wraps and comes back
	u.now = e.Input.Now
	if usesFresh {
		w.nonce(uint64(e.Input.Fresh))
	}
	if err := u.write(&w, reflect.ValueOf(&e.Input.Event).Elem()); err != nil {
		return nil, err
	}
	switch {
	case isBeat(e.Input.Event) && (e.Changed || e.Acted):
		w.b = append(w.b, e.State[:beatDigest]...)
	case isBeat(e.Input.Event):
	default:
		if e.Changed {
			w.b = append(w.b, e.State[:]...)
		}
		if e.Acted {
			w.b = append(w.b, e.Effects[:]...)
		}
	}
	return w.b, nil
}

// write is an interface value: its number, a bit for each field that differs from the last value of its type, and those
// fields. A field that is an interface itself always counts as different and is written the same way.
func (u *run) write(w *writer, v reflect.Value) error {
	number, err := numberOf(v)
	if err != nil {
		return err
	}
	w.uvarint(uint64(number)) //nolint:gosec // an index
	inner := v.Elem()
	last := u.lastOf(inner.Type())
	var differ uint64
	for i := range inner.NumField() {
		if inner.Field(i).Kind() == reflect.Interface || !inner.Field(i).Equal(last.Field(i)) {
			differ |= 1 << i
		}
	}
	if inner.NumField() > 0 {
		w.uvarint(differ)
	}
	for i := range inner.NumField() {
		if differ&(1<<i) == 0 {
			continue
		}
		if inner.Field(i).Kind() == reflect.Interface {
			err = u.write(w, inner.Field(i))
		} else {
			err = w.value(inner.Field(i))
		}
		if err != nil {
			return err
		}
	}
	u.last[inner.Type()] = inner
	return nil
}

func (u *run) lastOf(t reflect.Type) reflect.Value {
	if v, ok := u.last[t]; ok {
		return v
	}
	return reflect.Zero(t)
}

func (u *run) read(r *reader, into reflect.Value) {
	list := registries[into.Type()]
	number := r.uvarint()
	if r.bad || number >= uint64(len(list.types)) {
		r.bad = true
		return
	}
	t := list.types[number]
	v := reflect.New(t).Elem()
	v.Set(u.lastOf(t))
	var differ uint64
	if t.NumField() > 0 {
		differ = r.uvarint()
	}
	r.bad = r.bad || differ>>t.NumField() != 0
	for i := range t.NumField() {
		dynamic := t.Field(i).Type.Kind() == reflect.Interface
		switch {
		case r.bad:
			return
		case differ&(1<<i) == 0:
			r.bad = r.bad || dynamic
		case dynamic:
			u.read(r, v.Field(i))
		default:
			before := v.Field(i).Interface()
			field := reflect.New(t.Field(i).Type).Elem() // arrays are filled from zero
			r.value(field)
			v.Field(i).Set(field)
			r.bad = r.bad || reflect.ValueOf(before).Equal(field)
		}
	}
	if !r.bad {
		into.Set(v)
		u.last[t] = v
	}
}

// parseEntries reads the entries of one frame. u is the run that the frame goes on with; nil: none, until a snapshot.
// What stands before the first snapshot of a run that is not known is left out: it cannot be read.
func parseEntries(u **run, first, count uint64, b []byte) ([]Entry, error) {
	if count > uint64(len(b)) {
		return nil, errCorrupt
	}
	out := make([]Entry, 0, count)
	r := reader{b: b}
	for i := range count {
		e := Entry{Seq: first + i}
		switch kind := r.u8(); {
		case kind == kindSnapshot:
			e.Snapshot = r.snapshot()
			if !r.bad {
				*u = newRun(e.Snapshot.Now)
			}
		case kind&^flagsAll == kindInput && *u != nil:
			r.nonces = &(*u).nonces
			(*u).input(&r, &e, kind&flagsAll)
		default:
			r.bad = true
		}
		if r.bad {
			return out, fmt.Errorf("entry %d: %w", e.Seq, errCorrupt)
		}
		out = append(out, e)
	}
	if len(r.b) != 0 {
		return out, fmt.Errorf("%w: %d bytes too many", errCorrupt, len(r.b))
	}
	return out, nil
}

func (u *run) input(r *reader, e *Entry, flags byte) {
	e.Changed, e.Acted, e.Died = flags&flagChanged != 0, flags&flagActed != 0, flags&flagDied != 0
	e.Input.Now = u.now + membership.Boottime(r.uvarint()) //nolint:gosec // wraps as it was written
	u.now = e.Input.Now
	e.Input.Fresh = unusedFresh
	if flags&flagFresh != 0 {
		e.Input.Fresh = membership.Nonce(r.nonce())
	}
	u.read(r, reflect.ValueOf(&e.Input.Event).Elem())
	switch {
	case r.bad:
	case isBeat(e.Input.Event) && (e.Changed || e.Acted):
		copy(e.State[:], r.take(beatDigest))
	case isBeat(e.Input.Event):
	default:
		if e.Changed {
			e.State = Digest(r.take(len(e.State)))
		}
		if e.Acted {
			e.Effects = Digest(r.take(len(e.Effects)))
		}
	}
}

func (r *reader) snapshot() *Snapshot {
	s := &Snapshot{Reason: Reason(r.u8()), Lost: r.uvarint()}
	s.BootID = string(r.take(int(r.u8())))
	s.Now = membership.Boottime(r.uvarint())        //nolint:gosec // as it was written
	s.Wall = time.Unix(0, int64(r.uvarint())).UTC() //nolint:gosec // as it was written
	n := r.uvarint()
	if r.bad || s.Reason > reasonLast || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	var err error
	if s.State, err = parseState(r.take(int(n))); err != nil { //nolint:gosec // below the length
		r.bad = true
		return nil
	}
	return s
}

// unusedFresh stands for a random number that did not matter: 1 is as good as any.
const unusedFresh membership.Nonce = 1

// outcome is what one Step led to, as bytes.
type outcome struct {
	after          membership.State
	effects        []membership.Effect
	state, actions []byte
}

func outcomeOf(after membership.State, effects []membership.Effect) (outcome, error) {
	o := outcome{after: after, effects: effects}
	var err error
	if o.state, err = stateBytes(&o.after); err != nil {
		return o, err
	}
	o.actions, err = effectsBytes(effects)
	return o, err
}

// digests of an outcome, as an entry has them.
func (o *outcome) digests(e *Entry) (state, done Digest) {
	if isBeat(e.Input.Event) {
		if e.Changed || e.Acted {
			both := digest(append(append([]byte{}, o.state...), o.actions...))
			copy(state[:], both[:beatDigest])
		}
		return state, done
	}
	if e.Changed {
		state = digest(o.state)
	}
	if e.Acted {
		done = digest(o.actions)
	}
	return state, done
}

// entryOf describes a decision; usesFresh says whether the random number of the input mattered: then it has to be kept,
// and eight random bytes an input are most of a recording.
func entryOf(before *membership.State, in membership.Input, o *outcome, died bool) (e Entry, usesFresh bool, err error) {
	if died {
		return Entry{Input: in, Died: true}, true, nil
	}
	e = Entry{Input: in, Changed: *before != o.after, Acted: len(o.effects) > 0}
	e.State, e.Effects = o.digests(&e)
	if !e.Changed && !e.Acted || in.Fresh == unusedFresh {
		return e, false, nil
	}
	other := in
	other.Fresh = unusedFresh
	without, err := outcomeOf(membership.Step(*before, other))
	if err != nil {
		return e, false, err
	}
	return e, !bytes.Equal(without.state, o.state) || !bytes.Equal(without.actions, o.actions), nil
}
