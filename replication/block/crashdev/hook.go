package crashdev

import (
	"fmt"
	"slices"
	"sync/atomic"

	"duet/replication/block"
)

// Kind is what a call does. Kinds are bits, so that a fault can be for several.
type Kind uint8

// The kinds of calls.
const (
	Read Kind = 1 << iota
	Write
	Zero
	Sync

	AnyKind = Read | Write | Zero | Sync
)

// String is the name in errors.
func (k Kind) String() string {
	switch k {
	case Read:
		return "read"
	case Write:
		return "write"
	case Zero:
		return "zero"
	case Sync:
		return "sync"
	default: // the others as below
	}
	return fmt.Sprintf("kind %#x", uint8(k))
}

// Op is a call in flight.
type Op struct {
	Kind       Kind
	Off, Len   int64
	Durability block.Durability // of a Write or Zero
}

// Hook adds f to what every later call runs through, in flight and outside the device's lock: f may call Cut,
// may block, and fails the call with its error.
func (d *Device) Hook(f func(Op) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hooks = append(slices.Clip(d.hooks), f)
}

// FailNth makes the k-th call of these kinds from now (1 is the next) fail with err. A failed read is alone;
// after a failed write or sync the device is dead anyway.
func (d *Device) FailNth(k int, kinds Kind, err error) {
	var calls atomic.Int64
	d.Hook(func(op Op) error {
		if op.Kind&kinds != 0 && calls.Add(1) == int64(k) {
			return err
		}
		return nil
	})
}

func (d *Device) run(op Op) error {
	d.mu.Lock()
	hooks := d.hooks
	d.mu.Unlock()
	for _, f := range hooks {
		if err := f(op); err != nil {
			return err
		}
	}
	return nil
}
