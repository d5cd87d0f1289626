// Package site holds the desired state of one appliance: the site document, and the bootstrap configuration that
// each node has before there is a site.
//
// The document says which volumes, VMs, witness, BMCs and PDU the site has. It never says who may write or who runs
// what: that is the membership record's. Both nodes keep the same version; its SHA-256 rides on the record. A document
// is validated whole before it is accepted (Validate names every wrong field), and slots are never reused.
package site

// Document is the desired state. JSON, lower_snake, unit last; this is also the form of `duet setup answer FILE`
// (ids, slots and version are then made by setup and must be absent).
type Document struct {
	Format  int      `json:"format"`  // 1
	Version uint64   `json:"version"` // grows with every change
	SiteID  string   `json:"site_id"` // 32 hex digits
	Name    string   `json:"name"`    // shown to people
	Nodes   Nodes    `json:"nodes"`
	Witness *Witness `json:"witness,omitempty"`        // nil: none
	Former  *Witness `json:"former_witness,omitempty"` // the one that is being replaced, until no record names its register
	PDU     *PDU     `json:"pdu,omitempty"`
	Fencing *Fencing `json:"fencing,omitempty"`
	Volumes []Volume `json:"volumes"`
	VMs     []VM     `json:"vms"`

	Database *Database `json:"database,omitempty"` // nil: none
}

// Nodes are the two slots.
type Nodes struct {
	A Node `json:"a"`
	B Node `json:"b"`
}

// Node is one slot's identity and fencing means.
type Node struct {
	Key     string   `json:"key,omitempty"` // ed25519 public key, base64; pinned at founding
	BMC     *BMC     `json:"bmc,omitempty"`
	Outlets []Outlet `json:"outlets,omitempty"` // every PSU of the node
	PSUs    int      `json:"psus,omitempty"`    // power supplies that it has; 0: as many as it has outlets
}

// Fencing is what else decides whether outlets are a way to fence (hardware.md section 4.5).
type Fencing struct {
	SharedPSUs bool `json:"shared_psus,omitempty"` // the chassis feeds both nodes from the same supplies
	Strict     bool `json:"strict,omitempty"`      // BMC and outlets must both say off: for a site whose BMC was caught lying
}

// BMC is a baseboard management controller on the LAN.
type BMC struct {
	Address  string `json:"address"` // host or host:port, default port 623
	User     string `json:"user"`
	Password Secret `json:"password"`
	GUID     string `json:"guid,omitempty"` // recorded at founding: 32 hex digits
}

// Outlet feeds one power supply.
type Outlet struct {
	Outlet int    `json:"outlet"` // as printed on the metal, from 1
	PSU    string `json:"psu"`    // "a.1"
}

// PDU is a power distribution unit switched by Modbus TCP.
type PDU struct {
	Address string `json:"address"` // host:port
	Product string `json:"product"` // a name of ipmi/pdu/products
	UnitID  uint8  `json:"unit_id,omitempty"`

	Numbers map[string]uint16 `json:"numbers,omitempty"` // the device's own, for those that the product's map lacks
	Feeds   []Feed            `json:"feeds,omitempty"`   // what else hangs on it
}

// Feed is an outlet that feeds something without which there is no evidence.
type Feed struct {
	Outlet int    `json:"outlet"`
	What   string `json:"what"` // pdu, witness, switch
}

// Witness is where the register lives.
type Witness struct {
	Address string `json:"address"`       // host:port
	Key     string `json:"key"`           // ed25519 public key of the server, base64
	RID     string `json:"rid,omitempty"` // made at founding
}

// Volume is a mirrored virtual disk.
type Volume struct {
	Slot      int    `json:"slot"`
	Resource  int    `json:"resource"` // the resource slot that owns it: its VM's, or its own; made at founding
	ID        string `json:"id"`       // 32 hex digits
	Name      string `json:"name"`
	SizeBytes int64  `json:"size_bytes"` // a multiple of 4096
}

// VM is a virtual machine. Its resource slot owns all its volumes; an unattached volume has a resource of its own.
type VM struct {
	Slot      int      `json:"slot"` // resource slot, ≥ 1
	ID        string   `json:"id"`   // UUID
	Name      string   `json:"name"`
	MemoryMiB int      `json:"memory_mib"`
	VCPUs     int      `json:"vcpus"`
	Disks     []string `json:"disks"` // volume names, in order: vda, vdb, ...
	Boot      Boot     `json:"boot"`
}

// Database is the PostgreSQL pair (docs/postgres.md). It is a resource of its own; its data is on neither volume nor mirror.
type Database struct {
	Slot      int    `json:"slot"`           // resource slot, ≥ 1; made at founding
	Interface string `json:"interface"`      // of both nodes, for the service addresses: "lan0"
	Write     string `json:"write"`          // service address of the primary
	Read      string `json:"read"`           // service address of the standby while it streams, else of the primary
	Port      int    `json:"port,omitempty"` // 0: 5432

	Durability string         `json:"durability,omitempty"` // "available" (also empty): without its standby it goes on alone; "strict": commits wait
	Settings   []string       `json:"settings,omitempty"`   // lines of PostgreSQL's configuration, from a list of names
	Rules      []DatabaseRule `json:"rules,omitempty"`      // who may connect, over TCP; nobody else may
	Password   Secret         `json:"password,omitempty"`   // of replication; made at founding
}

// DatabaseRule lets users of the site into databases of it.
type DatabaseRule struct {
	Networks  []string `json:"networks"` // "198.51.100.0/24"
	Users     []string `json:"users"`
	Databases []string `json:"databases"`
	Method    string   `json:"method"` // "scram" or "cert"
}

// DatabasePort is PostgreSQL's.
const DatabasePort = 5432

// ListenPort is where clients find it.
func (d Database) ListenPort() int {
	if d.Port == 0 {
		return DatabasePort
	}
	return d.Port
}

// Boot is direct kernel boot; paths are on the node. Empty: from the first disk.
type Boot struct {
	Kernel  string `json:"kernel,omitempty"`
	Initrd  string `json:"initrd,omitempty"`
	Cmdline string `json:"cmdline,omitempty"`
}
