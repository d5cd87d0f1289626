package sim

import (
	"context"
	"net"
	"time"
)

// PDUConfig describes one PDU.
type PDUConfig struct {
	Product   string                    // a name of ipmi/pdu/products
	Outlets   int                       // how many it has
	SetOutlet func(outlet int, on bool) // outlet as printed on the metal, from 1; called on every change of a relay
}

// PDU is a simulated power distribution unit. All outlets start on.
type PDU struct{ cfg PDUConfig }

// PDUFaults are the switches of a PDU; the zero value is a healthy one.
type PDUFaults struct {
	Mute      bool          // connections are accepted, nothing is answered
	Late      time.Duration // every answer leaves this much later
	Stuck     []int         // relays that do not move
	Truncate  bool          // answers end in the middle
	WrongID   bool          // answers carry another transaction id
	Exception uint8         // not 0: every write is answered with this Modbus exception
	Identity  int           // not 0: claims to have this many outlets
}

// NewPDU makes a PDU; Serve lets it answer.
func NewPDU(cfg PDUConfig) (*PDU, error) { return &PDU{cfg}, nil }

// Serve answers on ln until ctx ends, then closes ln and its connections.
func (p *PDU) Serve(ctx context.Context, ln net.Listener) error { <-ctx.Done(); return ln.Close() }

// Outlet says how the relay of an outlet stands.
func (p *PDU) Outlet(outlet int) bool { return true }

// SetFaults turns all switches at once.
func (p *PDU) SetFaults(faults PDUFaults) {}

// Faults says how the switches stand.
func (p *PDU) Faults() PDUFaults { return PDUFaults{} }
