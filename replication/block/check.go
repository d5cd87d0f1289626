package block

import "fmt"

// CheckBuffer and CheckRange are the preconditions of every Device: multiples of Unit, within the device.
// Implementations call them before anything is issued.
func CheckBuffer(p []byte, off, size int64) error {
	if !aligned(p) {
		return fmt.Errorf("%w: memory is not aligned to %d", ErrInvalid, Unit)
	}
	return CheckRange(off, int64(len(p)), size)
}

// CheckRange checks a range without memory.
func CheckRange(off, n, size int64) error {
	if (off|n)&(Unit-1) != 0 {
		return fmt.Errorf("%w: %d+%d is not a multiple of %d", ErrInvalid, off, n, Unit)
	}
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%w: %d+%d of %d bytes", ErrInvalid, off, n, size)
	}
	return nil
}

// CheckDurability refuses a write that does not say what it promises.
func CheckDurability(d Durability) error {
	if d != Cached && d != Durable {
		return fmt.Errorf("%w: durability %d", ErrInvalid, d)
	}
	return nil
}
