package meta

import (
	"cmp"
	"slices"
)

// DamagedBlock is a block of which a leg found that it is not what was written.
//
// The table of sums says so, too, as long as the block's sum is known. A crash makes the sums of hot extents unknown, and what has no sum
// counts as it is; so what is damaged is remembered where no crash takes it. It is listed before anything is done about it, and leaves the
// list when what is good there is durable, before that is acknowledged. At every moment between, a block that is listed and has no sum
// counts as damaged.
type DamagedBlock struct {
	Block uint64
	Sum   uint32 // what it should have, or SumUnknown
}

// DamagedMax is how many blocks the list holds. What is found beyond it is known until the next crash only.
const DamagedMax = 128

// AddDamaged lists a block, if there is room. SumUnknown does not take the place of a sum.
func (s *Superblock) AddDamaged(b int64, sum uint32) {
	i, found := slices.BinarySearchFunc(s.Damaged, uint64(b), byBlock)
	switch {
	case found && sum != SumUnknown:
		s.Damaged[i].Sum = sum
	case !found && len(s.Damaged) < DamagedMax:
		s.Damaged = slices.Insert(s.Damaged, i, DamagedBlock{uint64(b), sum})
	}
}

// removeDamaged takes blocks from the list.
func (s *Superblock) removeDamaged(from, n int64) {
	s.Damaged = slices.DeleteFunc(s.Damaged, func(d DamagedBlock) bool { return int64(d.Block) >= from && int64(d.Block) < from+n })
	if len(s.Damaged) == 0 {
		s.Damaged = nil
	}
}

func byBlock(d DamagedBlock, b uint64) int { return cmp.Compare(d.Block, b) }

// Damaged says whether one of these blocks is listed as damaged.
func (m *Meta) Damaged(from, n int64) bool {
	list := m.super.Load().Damaged
	if len(list) == 0 {
		return false
	}
	i, _ := slices.BinarySearchFunc(list, uint64(from), byBlock)
	return i < len(list) && int64(list[i].Block) < from+n
}

// Expected is the sum that a block should have: the table's, or that of the list.
func (m *Meta) Expected(b int64) uint32 {
	var sum [1]uint32
	m.Sums(b, sum[:])
	if sum[0] != SumUnknown {
		return sum[0]
	}
	list := m.super.Load().Damaged
	if i, found := slices.BinarySearchFunc(list, uint64(b), byBlock); found {
		return list[i].Sum
	}
	return SumUnknown
}

// Undamaged takes blocks from the list, durably: what they hold now is good and durable.
func (m *Meta) Undamaged(from, n int64) error {
	if !m.Damaged(from, n) {
		return nil
	}
	return m.Change(func(s *Superblock) { s.removeDamaged(from, n) })
}
