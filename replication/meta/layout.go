package meta

// Offsets of replication.md section 4. The two slots are 1 MiB apart so that no torn or lost unit takes both; a
// group is one map page and the sum pages of its extents, so that growth is an append and an extent's metadata
// lie together.
const (
	slotDistance = 0x100000
	logOffset    = 0x200000 // ring of the activity log; room for logBlocksMax blocks
	groupsOffset = 0x800000
	groupBytes   = BlockBytes * (1 + ExtentsPerGroup)

	// firstSequence is that of a formatted leg: slot B, so that the first change goes to slot A.
	firstSequence = 1
)

// Geometry of a leg; fixed for format major 1.
const (
	BlockBytes      = 4096
	BlocksPerExtent = 1024
	ExtentBytes     = BlockBytes * BlocksPerExtent
	ExtentsPerGroup = 28
)

// Extents is how many extents a volume has; the last may be short.
func Extents(volumeBytes int64) int64 { return (volumeBytes + ExtentBytes - 1) / ExtentBytes }

func groupsFor(volumeBytes int64) int64 {
	return (Extents(volumeBytes) + ExtentsPerGroup - 1) / ExtentsPerGroup
}

// SizeFor is the size in bytes of the meta object of a volume.
func SizeFor(volumeBytes int64) int64 { return groupsOffset + groupsFor(volumeBytes)*groupBytes }

func slotOffset(sequence uint64) int64 { return int64(sequence&1) * slotDistance }

func mapPageOffset(group int64) int64 { return groupsOffset + group*groupBytes }
