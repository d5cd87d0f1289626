package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"duet/appliance/postgres/decide"
)

// Control is what pg_control says (src/include/catalog/pg_control.h of PostgreSQL 15). It is read here and not by
// pg_controldata, whose words change with the locale and the version.
type Control struct {
	SystemID       uint64
	State          ControlState
	Checkpoint     decide.LSN // where the last checkpoint record begins
	Redo           decide.LSN // where recovery would begin
	Timeline       uint32     // of the last checkpoint
	MinRecovery    decide.LSN // a standby is consistent from here on
	MinRecoveryTLI uint32
	SegmentBytes   uint32 // of one WAL file
	Checksums      bool
	WALLogHints    bool
}

// ControlState is DBState.
type ControlState uint32

// The states; all others are those of a server that runs or has crashed.
const (
	StateStartup            ControlState = 0
	StateShutDown           ControlState = 1
	StateShutDownInRecovery ControlState = 2
	StateInArchiveRecovery  ControlState = 5
	StateInProduction       ControlState = 6
)

// Clean says whether the server was shut down and not killed.
func (c Control) Clean() bool { return c.State == StateShutDown || c.State == StateShutDownInRecovery }

// LatestTimeline is the highest timeline of which the directory has something.
func (c Control) LatestTimeline() uint32 { return max(c.Timeline, c.MinRecoveryTLI) }

// Offsets on 64-bit little-endian machines, where the compiler of PostgreSQL aligns 8-byte fields to 8.
const (
	controlVersion  = 1300 // PG_CONTROL_VERSION of 13 to 15
	controlCRC      = 288
	controlFileSize = 8192
)

// ErrControl says that bytes are not a control file of PostgreSQL 13 to 15.
var ErrControl = errors.New("not a control file of this version")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ParseControl reads a control file; its checksum must be right.
func ParseControl(b []byte) (Control, error) {
	if len(b) < controlCRC+4 {
		return Control{}, fmt.Errorf("%w: %d bytes", ErrControl, len(b))
	}
	le := binary.LittleEndian
	if v := le.Uint32(b[8:]); v != controlVersion {
		return Control{}, fmt.Errorf("%w: version %d", ErrControl, v)
	}
	if crc32.Checksum(b[:controlCRC], castagnoli) != le.Uint32(b[controlCRC:]) {
		return Control{}, fmt.Errorf("%w: checksum", ErrControl)
	}
	c := Control{
		SystemID: le.Uint64(b), State: ControlState(le.Uint32(b[16:])), Checkpoint: decide.LSN(le.Uint64(b[32:])),
		Redo: decide.LSN(le.Uint64(b[40:])), Timeline: le.Uint32(b[48:]), MinRecovery: decide.LSN(le.Uint64(b[136:])),
		MinRecoveryTLI: le.Uint32(b[144:]), WALLogHints: b[176] != 0, SegmentBytes: le.Uint32(b[228:]), Checksums: le.Uint32(b[252:]) != 0,
	}
	if n := c.SegmentBytes; n < 1<<20 || n > 1<<30 || n&(n-1) != 0 {
		return Control{}, fmt.Errorf("%w: segments of %d bytes", ErrControl, n)
	}
	return c, nil
}

func readControl(dir string) (Control, error) {
	b, err := os.ReadFile(filepath.Join(dir, "global", "pg_control"))
	if err != nil {
		return Control{}, fmt.Errorf("control file: %w", err)
	}
	return ParseControl(b)
}
