package guest

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// The counter's place on the disk: Slots blocks from the start, number n in block n mod Slots.
const (
	BlockSize = 4096
	Slots     = 64
)

const magic = 0x64756574_67756573 // "duetgues"

// Encode fills one block with number n: magic, n, the same bytes all over, and a CRC over everything.
func Encode(block []byte, n uint64) {
	for i := 0; i < BlockSize; i += 8 {
		binary.LittleEndian.PutUint64(block[i:], n^uint64(i)<<32)
	}
	binary.LittleEndian.PutUint64(block[0:], magic)
	binary.LittleEndian.PutUint64(block[8:], n)
	binary.LittleEndian.PutUint32(block[BlockSize-4:], crc32.ChecksumIEEE(block[:BlockSize-4]))
}

// decode reads one block: its number, 0 for an untouched one, or an error for anything that was never written.
func decode(block []byte) (uint64, error) {
	zero := true
	for _, b := range block {
		zero = zero && b == 0
	}
	if zero {
		return 0, nil
	}
	if binary.LittleEndian.Uint64(block) != magic ||
		binary.LittleEndian.Uint32(block[BlockSize-4:]) != crc32.ChecksumIEEE(block[:BlockSize-4]) {
		return 0, fmt.Errorf("torn or foreign block %x", block[:16])
	}
	return binary.LittleEndian.Uint64(block[8:]), nil
}

// Last finds the newest number on a disk's first Slots blocks. Every number is on the disk before the next one is
// written, so each slot must hold the newest number that belongs to it: an older one, or a torn block, is damage. One
// block may be torn: that of the number after the newest, which was being written when the last node lost its power;
// nobody was told that it was there.
func Last(disk []byte) (uint64, error) {
	const none = -1
	var numbers [Slots]uint64
	var last uint64
	torn, damage := none, error(nil)
	for i := range numbers {
		n, err := decode(disk[i*BlockSize : (i+1)*BlockSize])
		switch {
		case err != nil && torn != none:
			return 0, fmt.Errorf("slot %d: %w", i, err)
		case err != nil:
			torn, damage = i, err
			continue
		case n != 0 && n%Slots != uint64(i):
			return 0, fmt.Errorf("slot %d holds number %d of another slot", i, n)
		}
		numbers[i], last = n, max(last, n)
	}
	if next := int((last + 1) % Slots); torn != none && torn != next {
		return 0, fmt.Errorf("slot %d: %w", torn, damage)
	}
	for n := last; n > 0 && n+Slots > last; n-- {
		if slot := int(n % Slots); slot != torn && numbers[slot] != n {
			return 0, fmt.Errorf("the newest number is %d, but slot %d holds %d", last, slot, numbers[slot])
		}
	}
	return last, nil
}
