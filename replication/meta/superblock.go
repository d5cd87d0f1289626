package meta

import (
	"encoding/hex"
	"fmt"
)

// ID is a site, volume, leg or boot id.
type ID [16]byte

// String is 32 hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads 32 hex digits.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("id %q: not 32 hex digits", s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("id %q: %w", s, err)
	}
	return id, nil
}

// IsZero says that no id is set.
func (id ID) IsZero() bool { return id == ID{} }

// Generation names one unbroken history of acknowledged writes.
type Generation struct{ Epoch, Nonce uint64 }

// String is epoch and nonce, both hexadecimal.
func (g Generation) String() string { return fmt.Sprintf("%x.%016x", g.Epoch, g.Nonce) }

// IsZero says that there is no generation.
func (g Generation) IsZero() bool { return g == Generation{} }

// State is a leg's own view of its data.
type State uint8

// The states of a leg, with their values on disk.
const (
	New          State = 1 // formatted, never part of a volume
	UpToDate     State = 2
	Inconsistent State = 3 // target of an unfinished resync
	Outdated     State = 4 // was excluded while readable
	Failed       State = 5
	Ejected      State = 6
)

// String is the word in status and logs.
func (s State) String() string {
	switch s {
	case New:
		return "new"
	case UpToDate:
		return "uptodate"
	case Inconsistent:
		return "inconsistent"
	case Outdated:
		return "outdated"
	case Failed:
		return "failed"
	case Ejected:
		return "ejected"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Flags of a superblock.
const (
	FlagOpen   uint16 = 1 << 0 // in use; found set at open: it was not closed cleanly (O4)
	FlagZeroed uint16 = 1 << 1 // created full of zeroes
	// FlagLogLost: the activity log could not be read whole at an unclean open; every extent may differ until the legs are reconciled.
	FlagLogLost uint16 = 1 << 2
)

// Flags of a resync record.
const (
	ResyncByDigest    uint32 = 1 << 0
	ResyncUnconfirmed uint32 = 1 << 1 // "I am source, end not confirmed"
)

// Incompatible features: a bit this code does not know refuses the leg.
const (
	// FeatureNoActivityLog: the leg was made by a release that kept no activity log. Refused since there is one.
	FeatureNoActivityLog uint32 = 1 << 0
	// FeatureNoSums: the leg was made by a release that kept no checksums. Refused since there are some.
	FeatureNoSums uint32 = 1 << 1
)

// HistoryMax is how many generations a superblock remembers.
const HistoryMax = 16

// Superblock is the record of a leg, as on disk; see docs/disk-format.md.
type Superblock struct {
	FormatMajor, FormatMinor uint16
	Sequence                 uint64 // +1 a write; slot = sequence & 1
	Incompatible             uint32 // feature bits
	ReadOnlyCompatible       uint32
	Site, Volume, Leg        ID
	Node                     uint8 // 0 a, 1 b
	State                    State
	Flags                    uint16
	BlockBytes               uint32
	BlocksPerExtent          uint32
	ExtentsPerGroup          uint32
	VolumeBytes              uint64 // size of the volume
	MetaBytes                uint64 // volume size that meta has groups for
	DataBytes                uint64 // capacity of data at the last open
	LogOffset                uint64
	LogBlocks, LogSlots      uint32
	LogFirst                 uint64 // lowest sequence of the log that counts
	GroupsOffset, Groups     uint64
	GrantEpoch               uint64 // epoch of the last grant obeyed
	Legs                     uint8  // Legs mask of that grant: bit 0 a, bit 1 b
	Owner                    uint8  // 0 a, 1 b
	Current, Base            Generation
	SyncSource               Generation // while inconsistent
	ResyncCursor             uint64     // block number
	ResyncID, ResyncFlags    uint32
	OtherLeg                 ID
	ProofRoot                [16]byte // root digest of the last proof
	ProofEpoch               uint64
	ProofTime                uint64 // wall time, Unix seconds, for people only
	UncleanOpens             uint32
	LegsVersion              uint64
	History                  []Generation // newest first, at most HistoryMax
	Boot                     ID           // boot id of the last open
	Software                 string       // version, text, at most 32 bytes
	ReadErrors, SumErrors    uint32
	WriteErrors, SyncErrors  uint32
	ReasonCode               uint32         // reason of the state: number of the fault code
	ReasonText               string         // at most 124 bytes
	Damaged                  []DamagedBlock // ascending, at most DamagedMax
}
