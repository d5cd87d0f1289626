package meta

import "duet/replication/block"

// Geometry of a leg; fixed for format major 1.
const (
	BlockBytes      = 4096
	BlocksPerExtent = 1024
	ExtentBytes     = BlockBytes * BlocksPerExtent
	ExtentsPerGroup = 28
)

// Meta is an open meta object of a leg.
type Meta struct{}

// SizeFor is the size in bytes of the meta object of a volume.
func SizeFor(volumeBytes int64) int64 { panic("unfinished") }

// Format writes an empty meta for s.VolumeBytes; every layout field, the sequence and the leg id (if zero) are
// filled in. A device that already holds a superblock is refused.
func Format(dev block.Device, s Superblock) error { panic("unfinished") }

// Open reads the superblock and the map pages.
func Open(dev block.Device) (*Meta, error) { panic("unfinished") }

// Super is a copy of the superblock as it is durable.
func (m *Meta) Super() Superblock { panic("unfinished") }

// Unclean says that the leg was found with FlagOpen set: every extent may differ from the other leg's.
func (m *Meta) Unclean() bool { panic("unfinished") }

// BadPages is how many map pages were unreadable at Open; their extents count as all dirty.
func (m *Meta) BadPages() int { panic("unfinished") }

// ReadOnly says that an unknown read-only-compatible feature forbids writing.
func (m *Meta) ReadOnly() bool { panic("unfinished") }

// Change applies f to a copy of the superblock and makes it durable in the other slot (O8). Serialised. The
// sequence and the layout are not f's to change. After an error the old value stands and the device is dead.
func (m *Meta) Change(f func(*Superblock)) error { panic("unfinished") }

// Dirty is the map in RAM: blocks that the other leg does not certainly hold.
func (m *Meta) Dirty() *Bitmap { panic("unfinished") }

// StoreDirty makes the map pages of these extents durable as they are in RAM now; without extents, every page
// that changed since it was last stored.
func (m *Meta) StoreDirty(extents ...int64) error { panic("unfinished") }

// Acked clears blocks in RAM that the other leg reported written; StoreDirty goes on writing them as dirty
// until Covered (O6).
func (m *Meta) Acked(from, n int64) { panic("unfinished") }

// Mark names the Acked calls made so far; take it before asking the other leg for a sync.
func (m *Meta) Mark() uint64 { panic("unfinished") }

// Covered says that the other leg reported a sync asked for after Mark.
func (m *Meta) Covered(mark uint64) { panic("unfinished") }

// Close closes the device. It does not clear FlagOpen: a clean close is the owner's decision (O4).
func (m *Meta) Close() error { panic("unfinished") }
