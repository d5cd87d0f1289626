package sim

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"duet/ipmi/pdu"
)

// PDUConfig describes one PDU.
type PDUConfig struct {
	Product   string                    // a name of ipmi/pdu/products
	Outlets   int                       // how many it has
	SetOutlet func(outlet int, on bool) // outlet as printed on the metal, from 1; called when a relay has moved; may be nil

	Numbers map[string]uint16        // the site's own numbers, as ipmi/pdu takes them
	Device  [3]string                // company, product, version, where the product tells them
	Watts   func(outlet int) float64 // what is drawn while the outlet is on; nil: nothing is plugged in
}

// PDU is a simulated power distribution unit. All outlets start on.
type PDU struct {
	cfg     PDUConfig
	product pdu.Product

	mu     sync.Mutex
	relays []bool
	faults PDUFaults
	writes int
}

// PDUFaults are the switches of a PDU; the zero value is a healthy one.
type PDUFaults struct {
	Mute      bool          // connections are accepted, nothing is answered or carried out
	Late      time.Duration // every answer leaves this much later; commands are carried out at once
	LateWrite time.Duration // a write is carried out and answered this much later
	Stuck     []int         // relays that do not move, though the command is answered
	Lying     []int         // relays that do not move, though they read as commanded: welded contacts
	Truncate  bool          // answers end in the middle
	WrongID   bool          // answers carry another transaction id
	Exception uint8         // not 0: every write is answered with this Modbus exception
	Identity  int           // not 0: claims to have this many outlets
	Product   string        // not empty: claims to be this product
	NoMeter   bool          // the meters have no sensor, or the question is rejected
	Garbage   bool          // meters answer what is no number
}

// NewPDU makes a PDU; Serve lets it answer.
func NewPDU(cfg PDUConfig) (*PDU, error) {
	product, err := pdu.Find(cfg.Product)
	if err != nil {
		return nil, err
	}
	if product, err = product.With(cfg.Numbers); err != nil {
		return nil, err
	}
	if cfg.Outlets < 1 || cfg.Outlets > int(product.OutletsMax.Value) {
		return nil, fmt.Errorf("a %s has 1 to %d outlets, not %d", product.Title, product.OutletsMax.Value, cfg.Outlets)
	}
	if cfg.Watts == nil {
		cfg.Watts = func(int) float64 { return 0 }
	}
	if cfg.SetOutlet == nil {
		cfg.SetOutlet = func(int, bool) {}
	}
	p := &PDU{cfg: cfg, product: product, relays: make([]bool, cfg.Outlets)}
	for i := range p.relays {
		p.relays[i] = true
	}
	return p, nil
}

// Serve answers on ln until ctx ends, then closes ln and its connections.
func (p *PDU) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	defer ln.Close()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("PDU on %s: %w", ln.Addr(), err)
		}
		running.Go(func() {
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			p.converse(ctx, conn)
		})
	}
}

// Outlet says how the relay of an outlet stands.
func (p *PDU) Outlet(outlet int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return outlet >= 1 && outlet <= len(p.relays) && p.relays[outlet-1]
}

// Writes counts the commands that reached the relays.
func (p *PDU) Writes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writes
}

// SetFaults turns all switches at once.
func (p *PDU) SetFaults(faults PDUFaults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = faults
}

// Faults says how the switches stand.
func (p *PDU) Faults() PDUFaults {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults
}

// Press switches an outlet by the button on the PDU itself, past all faults but a stuck relay.
func (p *PDU) Press(outlet int, on bool) { p.move(outlet, on) }

// move moves a relay, and tells the lab when it did.
func (p *PDU) move(outlet int, on bool) {
	p.mu.Lock()
	p.writes++
	stuck := slices.Contains(p.faults.Stuck, outlet) || slices.Contains(p.faults.Lying, outlet)
	moved := !stuck && p.relays[outlet-1] != on
	if moved {
		p.relays[outlet-1] = on
	}
	p.mu.Unlock()
	if moved {
		p.cfg.SetOutlet(outlet, on)
	}
}

// outletAt finds the outlet behind a wire address.
func (p *PDU) outletAt(a *pdu.Access, address uint16) (int, bool) {
	if a == nil || !a.Base.Known() || !a.Stride.Known() {
		return 0, false
	}
	return at(int(address)-int(a.Base.Value), int(a.Stride.Value), len(p.relays))
}

func at(offset, stride, outlets int) (int, bool) {
	if offset < 0 || offset%stride != 0 || offset/stride >= outlets {
		return 0, false
	}
	return offset/stride + 1, true
}

// watts is what flows through an outlet: nothing, unless its contacts are closed; welded ones are, whatever it reads.
func (p *PDU) watts(outlet int) float64 {
	if !p.Outlet(outlet) {
		return 0
	}
	return p.cfg.Watts(outlet)
}
