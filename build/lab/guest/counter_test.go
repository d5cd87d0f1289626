package guest

import (
	"slices"
	"testing"
)

func disk(last uint64) []byte {
	d := make([]byte, Slots*BlockSize)
	for n := uint64(1); n <= last; n++ {
		at := n % Slots * BlockSize
		Encode(d[at:at+BlockSize], n)
	}
	return d
}

// The guest must see every loss: a missing newest number is the oracle's business (RESUME), anything else is BAD here.
func TestLast(t *testing.T) {
	for _, last := range []uint64{0, 1, 5, Slots - 1, Slots, Slots + 1, 1000} {
		if got, err := Last(disk(last)); err != nil || got != last {
			t.Errorf("last %d: read %d, %v", last, got, err)
		}
	}
}

// The block of the number that was being written may be torn, before the first round of the slots and after it.
func TestLastInFlight(t *testing.T) {
	for _, last := range []uint64{0, 3, Slots - 2, Slots - 1, Slots, 1000} {
		d := disk(last)
		at := (last + 1) % Slots * BlockSize
		next := make([]byte, BlockSize)
		Encode(next, last+1)
		copy(d[at+512:at+BlockSize], next[512:])
		if got, err := Last(d); err != nil || got != last {
			t.Errorf("last %d, the next one torn: read %d, %v", last, got, err)
		}
		if d[(last+3)%Slots*BlockSize]++; last > Slots {
			if got, err := Last(d); err == nil {
				t.Errorf("last %d, two torn: read %d without complaint", last, got)
			}
		}
	}
}

func TestLastSeesDamage(t *testing.T) {
	whole := disk(1000)
	for _, tc := range []struct {
		name   string
		damage func(d []byte)
	}{
		{"older number in one slot", func(d []byte) { Encode(d[3*BlockSize:4*BlockSize], 1000-1000%Slots-2*Slots+3) }},
		{"zeroed slot", func(d []byte) { clear(d[7*BlockSize : 8*BlockSize]) }},
		{"half old, half new", func(d []byte) {
			old := make([]byte, BlockSize)
			Encode(old, 9)
			copy(d[9*BlockSize:], old[:BlockSize/2])
		}},
		{"number of another slot", func(d []byte) { copy(d[:BlockSize], whole[BlockSize:2*BlockSize]) }},
	} {
		d := slices.Clone(whole)
		tc.damage(d)
		if got, err := Last(d); err == nil {
			t.Errorf("%s: read %d without complaint", tc.name, got)
		}
	}
}
