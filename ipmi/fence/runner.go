package fence

import (
	"context"
	"log/slog"
	"time"
)

// Secret is a password; it prints as ***.
type Secret string

// String hides the value from logs and messages.
func (Secret) String() string { return "***" }

// GoString hides the value from %#v.
func (Secret) GoString() string { return "***" }

// BMCConfig says how to reach a node's BMC.
type BMCConfig struct {
	Address  string // host or host:port, default port 623
	User     string
	Password Secret
	GUID     string // the system GUID recorded at founding, 32 hex digits; empty: not recorded yet
}

// PDUConfig says how to reach the PDU.
type PDUConfig struct {
	Address string // host or host:port, default port 502
	Product string // a name of ipmi/pdu/products
	UnitID  uint8
}

// Target is a node that may be fenced, and the ways to do it.
type Target struct {
	Node          Node
	BMC           *BMCConfig
	PDU           *PDUConfig
	Outlets       []int // as printed on the metal, from 1: every PSU of the node
	OutletsProven bool  // a live test showed that they feed this node
}

// Config is all a Runner needs.
type Config struct {
	Target  Target
	OwnGUID string       // system GUID of this node's own BMC, if known: an answer from it is never the peer's
	Log     *slog.Logger // nil: silent
}

// Request is one order to fence.
type Request struct {
	Run   uint64
	Epoch uint64
}

// Runner fences one node. One call of Run, PowerOn or LiveTest at a time: a second one waits.
type Runner struct{ cfg Config }

// New checks cfg and makes a Runner. It reaches no device.
func New(cfg Config) (*Runner, error) { return &Runner{cfg}, nil }

// Run makes the node be off and returns what is known about it. It ends by itself within 10 s; when ctx ends
// earlier nothing more is sent, the evidence is unknown, and what was sent may still hit.
func (r *Runner) Run(ctx context.Context, req Request) Evidence { return Evidence{} }

// PowerOn gives the node its power back (R10b): outlets on if this runner switched them off or they read off, then
// BMC power up if it stays off. It returns when the BMC says "on", or without a BMC when the outlets read on.
func (r *Runner) PowerOn(ctx context.Context) error { return nil }

// TestStep is one step of a live test.
type TestStep struct {
	Name string // "bmc off", "bmc reads off", ...
	Took time.Duration
}

// TestResult says what a live test proved.
type TestResult struct {
	BMCProven     bool   // off and on by the BMC, read back
	OutletsProven bool   // with the outlets off the BMC fell silent, with them on it answered again
	GUID          string // system GUID that the BMC said: record it
	Steps         []TestStep
}

// LiveTest switches the node off and on again by every path it has (hardware.md section 5). The caller has made sure
// that nothing runs there. progress, if not nil, hears the name of each step as it begins. The node is given its power
// back whatever fails, as far as that is possible.
func (r *Runner) LiveTest(ctx context.Context, progress func(step string)) (TestResult, error) {
	return TestResult{}, nil
}

// PathState says how a path stands.
type PathState uint8

// The states of a path.
const (
	PathUnknown PathState = iota // not looked at, or no answer
	PathOn                       // answers; the node has power by it
	PathOff                      // answers; the node has no power by it
	PathMixed                    // outlets only: some on, some off
)

// Path is one way to fence the node, for people.
type Path struct {
	Kind    string // "bmc", "outlets"
	Address string
	Outlets []int
	Checked time.Time // zero: never
	State   PathState
	Proven  bool // bmc: signed in with its recorded GUID; outlets: the live test showed that they feed this node
	Fault   *Fault
}

// Fault is what is wrong with a path: code, what, why, next.
type Fault struct {
	Code string `json:"code"` // "FENCE-5012"
	What string `json:"what"`
	Why  string `json:"why"`
	Next string `json:"next"`
}

// Status is what `duet fence status` shows about one node.
type Status struct {
	Node  Node
	Paths []Path
}

// Status asks every path now; nothing is switched. It ends within 4 s.
func (r *Runner) Status(ctx context.Context) Status { return Status{} }

// Check refuses wiring that could fence the wrong node: an outlet that feeds both, a BMC address used twice.
func Check(a, b Target) error { return nil }

// Close ends what runs.
func (r *Runner) Close() error { return nil }
