package api

import "time"

// Site is the answer to `duet status`: what the site can lose right now, and the facts behind it. JSON is lower_snake,
// unit last; the word and the sentence come from appliance/outlook and are not composed again by any client.
type Site struct {
	Name     string `json:"name"`
	SiteID   string `json:"site_id"`
	Word     string `json:"word" enum:"safe,rebuilding,at risk,frozen,stopped,unknown"`
	Sentence string `json:"sentence"`
	Losses   []Loss `json:"losses"`
	Next     string `json:"next,omitempty"` // the one next safe step

	Node      string   `json:"node"`       // who answers: "a" or "b"
	Mode      string   `json:"mode"`       // paired, solo, frozen, joining, starting: of that node
	WaitsFor  string   `json:"waits_for"`  // what a frozen, joining or starting node waits for
	Epoch     uint64   `json:"epoch"`      // committed
	Members   []string `json:"members"`    // nodes whose copies hold every acknowledged write
	PairOwner string   `json:"pair_owner"` // who may change the pair
	Session   string   `json:"session"`    // hex, empty: none

	Nodes   []Node   `json:"nodes"`
	Witness Witness  `json:"witness"`
	Fence   Fence    `json:"fence"`
	Volumes []Volume `json:"volumes"`
	VMs     []VM     `json:"vms"`
	Faults  []Fault  `json:"faults"` // active now, worst first
	Setup   string   `json:"setup"`  // fresh, founding, testing, complete

	Link           Link           `json:"link"`
	FlightRecorder FlightRecorder `json:"flight_recorder"`

	LeaseMS int64    `json:"lease_ms"` // what is left of this node's right to run; -1: no lease is needed (solo) or none runs
	Moments []Moment `json:"moments"`  // what happened last on this node, oldest first

	ObservedAt time.Time `json:"observed_at"`
	BootID     string    `json:"boot_id"`
	BoottimeMS int64     `json:"boottime_ms"`
}

// Link is what was turned away from the place of the other node since duetd began. Nothing of it was believed.
type Link struct {
	Refused map[string]uint64 `json:"refused"` // connections, by reason: wrong-key, other-version, other-site, no-tls, ...
	Dropped map[string]uint64 `json:"dropped"` // frames of the peer: repeated (ordinary), out-of-order, other-session, earlier-process
}

// FlightRecorder is the ring of decisions of the answering node.
type FlightRecorder struct {
	Recording bool   `json:"recording"`
	Sequence  uint64 `json:"sequence"` // of the newest entry
	Lost      uint64 `json:"lost"`     // entries left out since duetd began
}

// Moment is one thing that happened on the answering node, on its own clock and on the wall's.
type Moment struct {
	What       string    `json:"what"` // peer-lost, frozen, solo, fence confirmed, start, vm-starting, vm-running, paired, ...
	Detail     string    `json:"detail,omitempty"`
	BoottimeMS int64     `json:"boottime_ms"`
	Wall       time.Time `json:"wall"`
}

// Loss is one thing that may be lost, and what happens then.
type Loss struct {
	Of          string `json:"of"` // link, witness, node a, node b, a disk in a
	Survived    bool   `json:"survived"`
	Consequence string `json:"consequence"`
}

// Node is one slot as the answering node sees it.
type Node struct {
	Node     string    `json:"node"`
	Self     bool      `json:"self"`
	Reached  bool      `json:"reached"`        // heard in this session
	Mode     string    `json:"mode"`           // own mode, or what the peer last said; empty: unknown
	Since    time.Time `json:"since,omitzero"` // of Reached; absent: unknown
	LastAck  int64     `json:"last_ack_age_ms"`
	BootID   string    `json:"boot_id,omitempty"`
	Paths    []Path    `json:"paths,omitempty"`
	DataPath string    `json:"data_path,omitempty"` // path of the mirror's data lane; empty: none
}

// Path is one network way to the peer.
type Path struct {
	Name  string `json:"name"`
	Up    bool   `json:"up"`
	AgeMS int64  `json:"age_ms"` // since the last answer on it; -1: never
}

// Witness is the third vote as this node sees it.
type Witness struct {
	Configured bool   `json:"configured"`
	Address    string `json:"address,omitempty"`
	Key        string `json:"key,omitempty"` // pinned
	Reached    bool   `json:"reached"`
	ForMS      int64  `json:"for_ms"` // for how long that has been so; -1: unknown
	AgeMS      int64  `json:"age_ms"` // since its last answer; -1: never
	RTTMS      int64  `json:"rtt_ms"`
	Register   string `json:"register,omitempty"` // rid that the record names, 32 hex digits; absent: none is in use
	Known      bool   `json:"known"`              // the witness has that register
	Confirmed  bool   `json:"confirmed"`          // the register holds the committed epoch

	Arbiter  string `json:"arbiter" enum:"none,witness,fencing"` // how this node may go on alone, by its record
	Changing string `json:"changing,omitempty"`                  // the arbiter that both nodes are changing to
	Former   string `json:"former,omitempty"`                    // address of the witness that is being replaced
}

// Volume is a mirrored virtual disk.
type Volume struct {
	Name           string   `json:"name"`
	ID             string   `json:"id"`
	SizeBytes      int64    `json:"size_bytes"`
	Owner          string   `json:"owner"`
	InSync         []string `json:"in_sync"` // nodes whose leg holds every acknowledged write
	Stage          string   `json:"stage"`   // of the answering node's engine: paired, alone, catching, held, ...
	Leg            string   `json:"leg"`     // state of the answering node's leg
	Held           bool     `json:"held"`    // writes wait for a grant
	HeldOps        int      `json:"held_ops"`
	DirtyBytes     int64    `json:"dirty_bytes"`      // what the other leg lacks now, or may lack
	CopyDirtyBytes int64    `json:"copy_dirty_bytes"` // of the running or last copy, as the next three: marked when it began
	ResyncBytes    int64    `json:"resync_bytes"`
	DigestBytes    int64    `json:"digest_bytes"`
	RemainingBytes int64    `json:"remaining_bytes"`
	Generation     string   `json:"generation,omitempty"`
	ProvenEpoch    uint64   `json:"proven_epoch"` // epoch of the last equal digest
	LastStallMS    int64    `json:"last_stall_ms"`
	RepairedBlocks int64    `json:"repaired_blocks"` // of the answering node's leg, from the other one, since its mirror started
	DamagedBlocks  int      `json:"damaged_blocks"`  // that no leg has as they were written, as far as the answering node read them
	Scrub          Scrub    `json:"scrub"`
	UsedBy         string   `json:"used_by,omitempty"` // VM
}

// Scrub is about the running comparison of both legs, or the last one, by the answering node.
type Scrub struct {
	Running      bool   `json:"running"`
	DoneBytes    int64  `json:"done_bytes"`           // of the running pass, or of the last one
	Passes       int    `json:"passes"`               // that reached the end since the mirror started
	AgeSeconds   int64  `json:"age_seconds"`          // since the last of them ended; -1: none has
	Why          string `json:"why,omitempty"`        // the last one ended early
	PeerRepaired int64  `json:"peer_repaired_blocks"` // of the other node's leg
	Different    int64  `json:"different_blocks"`     // that were different without a sign of it
}

// VM is a virtual machine.
type VM struct {
	Name      string   `json:"name"`
	ID        string   `json:"id"`
	Desired   string   `json:"desired" enum:"running,stopped"`
	State     string   `json:"state"` // running, paused, starting, stopped, unknown
	Owner     string   `json:"owner"`
	Why       string   `json:"why,omitempty"` // why State is not Desired
	MemoryMiB int      `json:"memory_mib"`
	VCPUs     int      `json:"vcpus"`
	Disks     []string `json:"disks"`
}

// Fence is the fencing view: which ways exist to make sure that a node is off, and whether they are proven.
type Fence struct {
	Says    []string    `json:"says"` // one line for each node: can it be fenced, by what, how lately that was proven
	Paths   []FencePath `json:"paths"`
	Last    *Evidence   `json:"last,omitempty"`
	Latches []Latch     `json:"latches"` // nodes that are off and stay off
}

// FencePath is one way to turn one node off.
type FencePath struct {
	Node   string `json:"node"`   // whom it turns off
	Kind   string `json:"kind"`   // bmc, outlets
	Target string `json:"target"` // address, or "1+2 at 192.0.2.21:502"
	State  string `json:"state"`  // ready, silent, refused, unproven, unknown
	Proven bool   `json:"proven"` // by a live off/on test
	AgeMS  int64  `json:"age_ms"` // since the last answer; -1: never

	By         string  `json:"by"`                // who proves it: the other node
	Fresh      bool    `json:"fresh"`             // by the standing proof it would bring evidence now
	ProofAgeMS int64   `json:"proof_age_ms"`      // since the standing proof last held; -1: never
	NextMS     int64   `json:"next_ms"`           // until it is proven again; -1: unknown
	Power      string  `json:"power"`             // on, off, mixed, unknown: as this way sees the node
	Numbers    string  `json:"numbers,omitempty"` // outlets: how the register numbers of the product are known
	Supported  bool    `json:"supported"`         // outlets: each of them was tried on a device
	Watts      float64 `json:"watts"`             // through all its outlets; -1: not metered

	Problem string `json:"problem,omitempty"`
	Fault   *Fault `json:"fault,omitempty"` // what has to be mended
}

// Evidence is the result of a fence attempt.
type Evidence struct {
	Node    string    `json:"node"`
	Verdict string    `json:"verdict" enum:"confirmed,refused,unknown"`
	By      string    `json:"by"` // bmc, outlets, statement, lease
	Epoch   uint64    `json:"epoch"`
	At      time.Time `json:"at"`
	Detail  string    `json:"detail"`
}

// Fault is an active or returned problem in the four words.
type Fault struct {
	Code     string            `json:"code"`
	Severity string            `json:"severity"`
	What     string            `json:"what"`
	Why      string            `json:"why"`
	Next     string            `json:"next"`
	Command  string            `json:"command,omitempty"`
	Args     map[string]string `json:"args,omitempty"`
	Since    *time.Time        `json:"since,omitempty"`
}

// Setup tells how far founding has come; every step of it is known from durable state, so it survives the restart of
// each node that the live fence test causes.
type Setup struct {
	State         string     `json:"state" enum:"fresh,founding,testing,complete"`
	Node          string     `json:"node"`
	NodeKey       string     `json:"node_key"` // ed25519 public key, base64
	ChassisSerial string     `json:"chassis_serial"`
	Peer          *SetupPeer `json:"peer,omitempty"` // nil: not seen
	Steps         []Step     `json:"steps"`
	Problem       *Fault     `json:"problem,omitempty"` // why the last try ended
}

// SetupPeer is the other node as seen over a chassis path.
type SetupPeer struct {
	Node          string `json:"node"`
	Key           string `json:"key"`
	ChassisSerial string `json:"chassis_serial"`
	Fresh         bool   `json:"fresh"`
	Path          string `json:"path"`
}

// Step is one step of a long action: what it does, what it waits for, until when.
type Step struct {
	Name       string    `json:"name"` // "validate", "witness register", "found", "fence test of b", ...
	State      string    `json:"state" enum:"waiting,running,done,failed,skipped"`
	Detail     string    `json:"detail,omitempty"`
	WaitingFor string    `json:"waiting_for,omitempty"`
	Since      time.Time `json:"since"`
	Deadline   time.Time `json:"deadline"`
}

// Task is a long action.
type Task struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"`
	State    string    `json:"state" enum:"running,done,failed"`
	Node     string    `json:"node"`
	Started  time.Time `json:"started"`
	Deadline time.Time `json:"deadline"`
	Steps    []Step    `json:"steps"`
	Problem  *Fault    `json:"problem,omitempty"`
}
