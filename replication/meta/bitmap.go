package meta

// Bitmap is a set of 4 KiB blocks, safe for concurrent use.
type Bitmap struct{}

// NewBitmap makes an empty set for that many blocks.
func NewBitmap(blocks int64) *Bitmap { panic("unfinished") }

// Blocks is the capacity.
func (b *Bitmap) Blocks() int64 { panic("unfinished") }

// Set adds n blocks from block from and returns how many were new.
func (b *Bitmap) Set(from, n int64) int64 { panic("unfinished") }

// Clear removes n blocks and returns how many were there.
func (b *Bitmap) Clear(from, n int64) int64 { panic("unfinished") }

// Has says whether a block is in the set.
func (b *Bitmap) Has(block int64) bool { panic("unfinished") }

// Count is the number of blocks in the set.
func (b *Bitmap) Count() int64 { panic("unfinished") }

// Next is the first run of blocks in the set at or after from, cut at max blocks; n = 0: none.
func (b *Bitmap) Next(from, max int64) (start, n int64) { panic("unfinished") }
