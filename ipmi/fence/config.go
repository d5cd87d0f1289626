package fence

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"

	"duet/ipmi/bmc"
	"duet/ipmi/pdu"
)

// Secret is a password; it prints as ***.
type Secret string

// String hides the value from logs and messages.
func (Secret) String() string { return "***" }

// GoString hides the value from %#v.
func (Secret) GoString() string { return "***" }

// MarshalText hides the value from encoders: a configuration that is printed is not one that is stored.
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// BMCConfig says how to reach a node's BMC.
type BMCConfig struct {
	Address  string // host or host:port, default port 623
	User     string
	Password Secret
	GUID     string // the system GUID recorded at founding, 32 hex digits; empty: not recorded yet
	Firmware string // as the live test saw it; empty: not recorded yet
}

// PDUConfig says how to reach the PDU.
type PDUConfig struct {
	Address string // host or host:port, default port 502
	Product string // a name of ipmi/pdu/products
	UnitID  uint8

	Numbers  map[string]uint16 // the site's own numbers for its device
	Identity string            // as the live test saw it; empty: not recorded yet
	Reserved []int             // outlets that feed the PDU, the witness or the switch to them
}

// LearnedLoad is what the live test learned of the power of a node, at all its outlets together. Thresholds are never fixed
// numbers: chassis differ by more than any margin.
type LearnedLoad struct {
	Known        bool    `json:"known"`
	OffWatts     float64 `json:"off_watts"`     // with its outlets off: what the meters call nothing
	StandbyWatts float64 `json:"standby_watts"` // switched off, its BMC alive
}

const (
	runningWatts  = 20.0 // above standby: no node that is off draws it (hardware.md 4.1)
	learnStepMin  = 1.0  // between off and standby: less cannot be told from noise
	learnedFactor = 0.5  // the threshold lies in the middle
)

// judge is what a reading means.
func (l LearnedLoad) judge(watts float64) Load {
	switch {
	case !l.Known:
		return LoadUnknown
	case watts <= l.OffWatts+learnedFactor*(l.StandbyWatts-l.OffWatts):
		return LoadNone
	case watts > l.StandbyWatts+runningWatts:
		return LoadRuns
	default:
		return LoadDraws
	}
}

// Target is a node that may be fenced, and the ways to do it.
type Target struct {
	Node          Node
	BMC           *BMCConfig // nil: none
	PDU           *PDUConfig // nil: none
	Outlets       []int      // as printed on the metal, from 1: every PSU of the node
	OutletsProven bool       // a live test showed that they feed this node
	Load          LearnedLoad
	PSUs          int  // that the node has; 0: not said
	SharedPSUs    bool // the chassis feeds both nodes from the same supplies: there is no outlet path
	Strict        bool // BMC and outlets must both say off
}

// Config is all a Runner needs.
type Config struct {
	Target  Target
	OwnGUID string       // system GUID of this node's own BMC, if known: an answer from it is never the peer's
	Log     *slog.Logger // nil: silent
}

// Check refuses wiring that could fence the wrong node: an outlet that feeds both, a BMC that stands for both
// (hardware.md section 4.5). Its error is a *Fault.
func Check(a, b Target) error {
	if a.BMC != nil && b.BMC != nil {
		if sameAddress(a.BMC.Address, b.BMC.Address, "623") {
			return &Fault{CodeSharedBMC, "Both nodes have the same BMC address", "Each would fence itself: " + a.BMC.Address, "Enter the address of each node's own BMC"}
		}
		if a.BMC.GUID != "" && strings.EqualFold(a.BMC.GUID, b.BMC.GUID) {
			return &Fault{CodeSharedBMC, "Both nodes have the same system GUID", "Each would fence itself: " + a.BMC.GUID, "Run the live test of both nodes again"}
		}
	}
	if a.PDU != nil && b.PDU != nil && sameAddress(a.PDU.Address, b.PDU.Address, "502") {
		for _, outlet := range a.Outlets {
			if slices.Contains(b.Outlets, outlet) {
				return &Fault{
					CodeSharedOutlet, fmt.Sprintf("Outlet %d feeds both nodes", outlet), "Switching one node off would switch the other off too",
					"Give each node outlets of its own, or leave the outlets away and fence by BMC only",
				}
			}
		}
	}
	for _, t := range []Target{a, b} {
		if err := t.check(); err != nil {
			return err
		}
		if err := t.wiring(); err != nil {
			return err
		}
		if err := t.product(); err != nil {
			return err
		}
	}
	return nil
}

// product refuses outlets that could never be switched.
func (t Target) product() error {
	if t.PDU == nil || len(t.Outlets) == 0 {
		return nil
	}
	p, err := pdu.Find(t.PDU.Product)
	if err == nil {
		p, err = p.With(t.PDU.Numbers)
	}
	if err != nil {
		return &Fault{CodeBadConfig, "The PDU is set up wrongly", err.Error(), "Correct the site's setup"}
	}
	if err := p.CanSwitch(); err != nil {
		return noMap(t.PDU.Product, err)
	}
	return nil
}

// wiring is what makes outlets no way to fence, or the wrong one (hardware.md section 4.5).
func (t Target) wiring() error {
	if len(t.Outlets) == 0 || t.PDU == nil {
		return nil
	}
	if t.SharedPSUs {
		return &Fault{
			CodeSharedPSUs, "The chassis feeds both nodes from the same power supplies", "Outlets would switch both nodes off",
			"Leave the outlets away and fence by BMC only",
		}
	}
	for _, outlet := range t.Outlets {
		if slices.Contains(t.PDU.Reserved, outlet) {
			return &Fault{
				CodeReserved, fmt.Sprintf("Outlet %d of node %s feeds something else too", outlet, t.Node),
				"It feeds the PDU itself, the witness or the switch to the BMCs: fencing would cut what makes evidence",
				"Feed the nodes from outlets of their own",
			}
		}
	}
	if t.PSUs != 0 && t.PSUs != len(t.Outlets) {
		return &Fault{
			CodeUncovered, fmt.Sprintf("Node %s has %d power supplies and %d outlets", t.Node, t.PSUs, len(t.Outlets)),
			"A supply without an outlet keeps the node on when its outlets are off", "Name one outlet for each supply",
		}
	}
	return nil
}

// Identify asks a BMC for its system GUID; nothing is switched. Its error is a *Fault, or that of ctx.
func Identify(ctx context.Context, node Node, b BMCConfig) (guid string, err error) {
	client, err := bmc.New(bmc.Config{Address: b.Address, User: b.User, Password: string(b.Password)})
	if err != nil {
		return "", &Fault{CodeBadConfig, fmt.Sprintf("The BMC of node %s is set up wrongly", node), err.Error(), "Correct the site's setup"}
	}
	defer client.Close()
	id, _, err := client.Identify(ctx)
	if err != nil {
		return "", bmcFault(node, b.Address, err)
	}
	return id.String(), nil
}

func sameAddress(a, b, defaultPort string) bool {
	full := func(address string) string {
		if _, _, err := net.SplitHostPort(address); err == nil {
			return strings.ToLower(address)
		}
		return strings.ToLower(net.JoinHostPort(address, defaultPort))
	}
	return full(a) == full(b)
}

func (t Target) check() error {
	bad := func(why string) error {
		return &Fault{CodeBadConfig, fmt.Sprintf("The ways to fence node %s are set up wrongly", t.Node), why, "Correct the site's setup"}
	}
	if t.Node > B {
		return bad("there are two nodes, a and b")
	}
	if t.BMC != nil && t.BMC.GUID != "" {
		if raw, err := hex.DecodeString(t.BMC.GUID); err != nil || len(raw) != 16 {
			return bad(fmt.Sprintf("system GUID %q has not 32 hex digits", t.BMC.GUID))
		}
	}
	if t.PDU == nil && len(t.Outlets) > 0 {
		return bad("it has outlets and no PDU")
	}
	seen := make(map[int]bool)
	for _, outlet := range t.Outlets {
		if outlet < 1 || seen[outlet] {
			return bad("outlet " + strconv.Itoa(outlet) + " is named twice, or is not counted from 1")
		}
		seen[outlet] = true
	}
	return nil
}
