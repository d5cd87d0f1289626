package core

import "duet/build/lab/ns"

// Config is everything the core is told by the process that starts it. Nothing of the product is in here but as
// data: units, files, folders.
type Config struct {
	Name     string          `json:"name"`
	State    string          `json:"state"` // absolute
	PID      int             `json:"pid"`   // of the core, as seen outside
	Seed     uint64          `json:"seed"`
	Cache    string          `json:"cache"` // drive.ParseSurvival
	Bin      string          `json:"bin"`   // absolute; empty: none
	DataMiB  int64           `json:"data_mib"`
	PoolMiB  int64           `json:"pool_mib"`
	Off      bool            `json:"off"` // nodes wait for the power button
	Machines []MachineConfig `json:"machines"`
	BMCUser  string          `json:"bmc_user"`
	BMCPass  string          `json:"bmc_pass"`
	PDU      string          `json:"pdu"` // a name of ipmi/pdu/products
}

// MachineConfig is what one machine has beside its hardware.
type MachineConfig struct {
	Name     string    `json:"name"` // a, b, witness, client
	Hostname string    `json:"hostname"`
	Units    []ns.Unit `json:"units"`
	Files    []ns.File `json:"files"`
	Folders  []string  `json:"folders"`
	Remove   []string  `json:"remove"`
}

// Greeting is what the core says to its starter: progress while it comes up, then Ready or Error, once.
type Greeting struct {
	Progress string `json:"progress,omitempty"`
	Ready    bool   `json:"ready,omitempty"`
	Error    string `json:"error,omitempty"`
}

// Placeholders in a machine's files and units, filled in by the core, which makes the identities.
const (
	MachineIDMark = "@MACHINE_ID@"
	HostUUIDMark  = "@HOST_UUID@"
)
