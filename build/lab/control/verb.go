package control

import (
	"encoding/json"
	"time"
)

// Request is one verb with its words, as on the command line: {"verb":"link","args":["mirror0","cut"]}.
// An exec carries stdin, stdout and stderr as files.
type Request struct {
	Verb string   `json:"verb"`
	Args []string `json:"args,omitempty"`
}

// Reply answers one request. Error is a sentence for people; then Value is absent.
type Reply struct {
	Error string          `json:"error,omitempty"`
	Exit  int             `json:"exit,omitempty"`  // exit code of an exec; 128 + n when signal n ended it
	Value json.RawMessage `json:"value,omitempty"` // Status, Truth, ...
}

// Status is what the lab was told to be.
type Status struct {
	Name     string                `json:"name"`
	State    string                `json:"state"` // the state folder
	PID      int                   `json:"pid"`   // of the core, as seen outside
	Seed     uint64                `json:"seed"`
	UpMS     int64                 `json:"up_ms"`
	Machines map[string]Machine    `json:"machines"` // a, b, witness, client
	Links    map[string]string     `json:"links"`    // mirror0, lan, a.lan0, ...: up, cut or no-carrier
	BMC      map[string]string     `json:"bmc"`      // a, b: ok, mute or dead (no standby power)
	PDU      string                `json:"pdu"`      // ok, mute or late D
	Outlets  []bool                `json:"outlets"`  // from outlet 1
	Drives   map[string]DriveState `json:"drives"`
}

// Machine is one body as seen from outside.
type Machine struct {
	Power     string             `json:"power"` // on, off, crashed (power, but nothing runs) or hung (frozen)
	Boots     int                `json:"boots"`
	BootID    string             `json:"boot_id,omitempty"`
	PSUs      map[string]PSU     `json:"psus,omitempty"`
	Cause     string             `json:"cause,omitempty"`    // of the last loss of power or reset
	Watchdog  string             `json:"watchdog,omitempty"` // idle, armed 5s
	Resets    int                `json:"watchdog_resets"`
	Services  map[string]Service `json:"services,omitempty"`
	PID       int                `json:"pid,omitempty"` // of its init, in the lab's PID namespace
	ChassisOn bool               `json:"chassis_on"`    // what its BMC would say
}

// PSU is one power supply.
type PSU struct {
	Cord   bool `json:"cord"` // plugged into the outlet
	Outlet int  `json:"outlet"`
	AC     bool `json:"ac"`
}

// Service is one unit of a machine's init.
type Service struct {
	State    string    `json:"state"` // starting, ready, running (does not tell when it is ready), waiting, stopped
	PID      int       `json:"pid,omitempty"`
	Restarts int       `json:"restarts"`
	Since    time.Time `json:"since"`
	LastExit string    `json:"last_exit,omitempty"`
}

// DriveState counts what a drive was asked, since the lab is up.
type DriveState struct {
	Attached   bool   `json:"attached"`
	SizeBytes  int64  `json:"size_bytes"`
	Reads      uint64 `json:"reads"`
	Writes     uint64 `json:"writes"`
	FUA        uint64 `json:"fua"`
	Flushes    uint64 `json:"flushes"`
	WriteBytes uint64 `json:"write_bytes"`
	Misaligned uint64 `json:"misaligned"`   // refused
	DirtyBlock int    `json:"dirty_blocks"` // 4 KiB blocks in the volatile cache now
	Cuts       uint64 `json:"cuts"`
	LostBlocks uint64 `json:"lost_blocks"` // at cuts: kept the old content
	TornBlocks uint64 `json:"torn_blocks"`
	KeptBlocks uint64 `json:"kept_blocks"` // reached the medium although nobody asked
	CutErrors  uint64 `json:"cut_errors"`  // requests answered EIO by a cut
}

// Truth is what is so, whatever the product says: looked at from outside the nodes.
type Truth struct {
	Name        string              `json:"name"`
	TimeMS      int64               `json:"time_ms"` // since the lab is up
	Machines    map[string]Machine  `json:"machines"`
	VMs         map[string][]VMProc `json:"vms"`           // by VM UUID: living QEMU processes
	DoubleRunMS float64             `json:"double_run_ms"` // the runner-overlap counter
	Overlaps    []Overlap           `json:"overlaps,omitempty"`
	Polls       uint64              `json:"polls"` // of the monitor; one each PollEvery
	PollMaxMS   float64             `json:"poll_max_ms"`
	Events      []Event             `json:"events"`
	Dropped     int                 `json:"events_dropped"` // older ones, beyond the bound
}

// VMProc is one living QEMU process that runs a VM. A frozen node's processes count: nobody promised that they
// will not go on.
type VMProc struct {
	Machine string `json:"machine"`
	PID     int    `json:"pid"`
	UUID    string `json:"uuid"`
	Name    string `json:"name"`
	SinceMS int64  `json:"since_ms"`
}

// Overlap is a time during which one VM ran twice.
type Overlap struct {
	UUID   string  `json:"uuid"`
	FromMS int64   `json:"from_ms"`
	ForMS  float64 `json:"for_ms"`
}

// Event is something that really happened.
type Event struct {
	TimeMS  int64     `json:"time_ms"` // since the lab is up, monotonic
	Time    time.Time `json:"time"`
	Machine string    `json:"machine,omitempty"`
	Kind    string    `json:"kind"` // power-on, power-cut, reset, vm-start, vm-end, service-exit, link, bmc, ...
	Text    string    `json:"text,omitempty"`
}

// Legs is a comparison of the copies of every volume.
type Legs struct {
	Equal   bool               `json:"equal"` // every volume that either node has is there twice and byte-identical
	Volumes map[string]LegPair `json:"volumes"`
}

// LegPair is one volume's two legs.
type LegPair struct {
	SizeA int64  `json:"size_a_bytes"` // -1: no leg
	SizeB int64  `json:"size_b_bytes"`
	SumA  string `json:"sha256_a"`
	SumB  string `json:"sha256_b"`
	Equal bool   `json:"equal"`
	Diff  []int  `json:"different_mib,omitempty"` // numbers of the differing MiB, the first hundred
}
