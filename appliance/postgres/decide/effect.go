package decide

import (
	"fmt"

	"duet/appliance/membership"
)

// Work is what is under way on a node; one at a time.
type Work uint8

// The works, named for `activity`.
const (
	Idle Work = iota
	Creating
	Starting
	Stopping
	Killing
	Promoting
	Marking
	Writing // the record
	Moving  // the ownership
	Exporting
	Cloning
	Rewinding
	Copying // pg_basebackup
	Switching
	Checkpointing // in the background; beside the others
	workCount
)

var workWords = [workCount]string{
	"none", "creating", "recovering", "stopping", "killing", "promoting", "marking", "recording", "handing over", "exporting",
	"cloning", "rewinding", "copying", "switching", "checkpointing",
}

// String is the word of `activity`.
func (w Work) String() string {
	if w >= workCount {
		return "?"
	}
	return workWords[w]
}

// Gate is one of the two ways for clients.
type Gate uint8

// The gates; each has its service address.
const (
	Write Gate = iota
	Read
)

// String is the word of the log.
func (g Gate) String() string { return [...]string{"write", "read"}[g&1] }

// Effect is one thing to do.
type Effect interface {
	fmt.Stringer
	// Work is what ends as Done; Idle for what is done at once.
	Work() Work
}

type (
	// WriteRecord makes Record the newest one by rule W.
	WriteRecord struct {
		Record Record
		Growth bool // current here first; else pending on the others first
	}
	// Want asks membership for the ownership (R8): it gives it when there is evidence.
	Want struct{}
	// MoveOwner hands the database to the peer (R22, R29). Nothing of it runs here.
	MoveOwner struct{}
	// Create makes the site's only new database (B1): initdb, roles, slot.
	Create struct{}
	// StartServer starts it behind closed gates.
	StartServer struct {
		Primary bool
		Names   Names
	}
	// StopServer: fast, or immediate.
	StopServer struct{ Immediate bool }
	// KillServer is cgroup.kill.
	KillServer struct{}
	// Promote makes the standby a primary on exactly this timeline.
	Promote struct{ Timeline uint32 }
	// Checkpoint asks for one.
	Checkpoint struct{}
	// SetNames writes synchronous_standby_names and reloads.
	SetNames struct{ Names Names }
	// SetGate opens a gate until Deadline (0: no end), or closes it.
	SetGate struct {
		Gate     Gate
		Open     bool
		Deadline membership.Boottime
	}
	// SetAddress takes or drops a service address; taking it announces it.
	SetAddress struct {
		Gate Gate
		Add  bool
	}
	// Marker is G3 against the walsender PID.
	Marker struct{ PID int32 }
	// CreateSlot makes the peer's slot, in the place of a lost one.
	CreateSlot struct{}
	// ExportTail keeps what this directory has beyond the fork (J3).
	ExportTail struct{ From LSN }
	// Clone copies the directory to a new, marked one.
	Clone struct{}
	// Rewind runs pg_rewind on the clone, and clears its mark when that ended well.
	Rewind struct{}
	// Basebackup copies the peer's directory to a new one, marked until it is verified.
	Basebackup struct{}
	// SwitchCurrent lets `current` lead to the directory that was made last.
	SwitchCurrent struct{}
	// SetFault raises or clears a code of the PG area, by its number.
	SetFault struct {
		Code uint16
		On   bool
	}
	// ResetNode: the server cannot be ended, so the node must be.
	ResetNode struct{}
)

// Work of each effect.
func (WriteRecord) Work() Work   { return Writing }
func (Want) Work() Work          { return Idle }
func (MoveOwner) Work() Work     { return Moving }
func (Create) Work() Work        { return Creating }
func (StartServer) Work() Work   { return Starting }
func (StopServer) Work() Work    { return Stopping }
func (KillServer) Work() Work    { return Killing }
func (Promote) Work() Work       { return Promoting }
func (Checkpoint) Work() Work    { return Checkpointing }
func (SetNames) Work() Work      { return Idle }
func (SetGate) Work() Work       { return Idle }
func (SetAddress) Work() Work    { return Idle }
func (Marker) Work() Work        { return Marking }
func (CreateSlot) Work() Work    { return Idle }
func (ExportTail) Work() Work    { return Exporting }
func (Clone) Work() Work         { return Cloning }
func (Rewind) Work() Work        { return Rewinding }
func (Basebackup) Work() Work    { return Copying }
func (SwitchCurrent) Work() Work { return Switching }
func (SetFault) Work() Work      { return Idle }
func (ResetNode) Work() Work     { return Idle }

func (e WriteRecord) String() string {
	way := "peer first"
	if e.Growth {
		way = "here first"
	}
	text := fmt.Sprintf("record %d.%d copies=%v timeline %d (%s)", e.Record.Epoch, e.Record.Version, e.Record.Copies, e.Record.Timeline, way)
	if e.Record.PromoteLSN != 0 {
		text += " from " + e.Record.PromoteLSN.String()
	}
	return text
}
func (Want) String() string      { return "want the ownership" }
func (MoveOwner) String() string { return "move the ownership" }
func (Create) String() string    { return "create the database" }
func (e StartServer) String() string {
	if e.Primary {
		return "start as primary, names=" + e.Names.String()
	}
	return "start as standby"
}
func (e StopServer) String() string {
	if e.Immediate {
		return "stop immediate"
	}
	return "stop fast"
}
func (KillServer) String() string { return "kill the cgroup" }
func (e Promote) String() string  { return fmt.Sprintf("promote to timeline %d", e.Timeline) }
func (Checkpoint) String() string { return "checkpoint" }
func (e SetNames) String() string { return "names=" + e.Names.String() }
func (e SetGate) String() string {
	switch {
	case !e.Open:
		return fmt.Sprintf("close the %v gate", e.Gate)
	case e.Deadline == 0:
		return fmt.Sprintf("open the %v gate", e.Gate)
	}
	return fmt.Sprintf("open the %v gate until %d", e.Gate, e.Deadline/1e9)
}
func (e SetAddress) String() string {
	if e.Add {
		return fmt.Sprintf("take the %v address", e.Gate)
	}
	return fmt.Sprintf("drop the %v address", e.Gate)
}
func (e Marker) String() string      { return fmt.Sprintf("marker for walsender %d", e.PID) }
func (CreateSlot) String() string    { return "create the peer's slot" }
func (e ExportTail) String() string  { return "export the tail from " + e.From.String() }
func (Clone) String() string         { return "clone the directory" }
func (Rewind) String() string        { return "rewind the clone" }
func (Basebackup) String() string    { return "copy the peer's directory" }
func (SwitchCurrent) String() string { return "switch current" }
func (e SetFault) String() string {
	if e.On {
		return fmt.Sprintf("raise %d", e.Code)
	}
	return fmt.Sprintf("clear %d", e.Code)
}
func (ResetNode) String() string { return "reset this node" }

// The faults, numbers of the PG area.
const (
	FaultStandbyLost  uint16 = 4001
	FaultNoReturn     uint16 = 4002
	FaultWaitsHolder  uint16 = 4003
	FaultDivergedKept uint16 = 4004
	FaultNoSpace      uint16 = 4005
	FaultSlotLost     uint16 = 4007
	FaultDirectory    uint16 = 4008
	FaultLossAccepted uint16 = 4009
	FaultDiskLied     uint16 = 4010
	FaultHung         uint16 = 4011
	FaultCrashLoop    uint16 = 4014
)

// faults in the order of their bits in State.
var faults = [...]uint16{
	FaultStandbyLost, FaultNoReturn, FaultWaitsHolder, FaultDivergedKept, FaultNoSpace, FaultSlotLost, FaultDirectory,
	FaultLossAccepted, FaultDiskLied, FaultHung, FaultCrashLoop,
}
