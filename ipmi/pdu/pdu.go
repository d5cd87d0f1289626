// Package pdu reads and switches the outlets of one power distribution unit over Modbus TCP. It knows nothing of
// which node an outlet feeds.
//
// It promises that no outlet is written on a connection on which the PDU has not first said who it is, by the number
// of its outlets, its device identification or both, as it was recorded or as this client learned it at its first
// contact: a PDU that was replaced by another model is a fault, not a target. The one product that can say neither
// (verify "relay") is for that reason worth less as evidence, and says so.
// Every call has a connection of its own, because the library takes a late answer for the answer to the next question
// and never recovers on that connection (goburrow/modbus#64); calls run one after another and end by their context.
// Outlets are numbered as printed on the metal, from 1. Products are data (products/*.json), and every number in them
// carries how it is known: an outlet is never switched by a number that nobody saw.
//
// It refuses everything but plain on and off: no toggle, no cycle, no timer. A command that got no answer may still be
// carried out, so its outlet is unsettled: an unanswered "off" blocks "on" until two readings over new connections, at
// least 10 s after the last attempt, agree, and an unanswered "on" makes a reading of "off" worthless until then
// (Outlet.Settled). What cannot be told is an error, never a state.
package pdu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/goburrow/modbus"
)

// Config says how to reach a PDU.
type Config struct {
	Address string // host or host:port; default port 502
	Product string // a name of products/
	UnitID  uint8

	Numbers  map[string]uint16 // the site's own numbers, for those that the product's file lacks ("switch.base")
	Outlets  int               // how many to read where the PDU does not say how many it has
	Metered  []int             // outlets whose power is wanted, where it is metered
	Identity string            // as recorded (Identity.String); empty: learn it at the first contact
}

// Outlet is one reading of one relay.
type Outlet struct {
	Number  int // from 1
	On      bool
	Settled bool    // no command that might contradict this reading is on its way
	Metered bool    // Watts was read
	Watts   float64 // what flows through it
}

// The limits, and their reasons.
const (
	dialLimit   = time.Second // the library's timeout covers write and read together, and dial apart
	defaultPort = 502
	idleLimit   = 5 * time.Second // the library keeps a timer this long for each closed connection
)

// Client is one PDU.
type Client struct {
	cfg     Config
	address string
	product Product
	now     func() time.Time

	turn    chan struct{} // holds one token: the call that runs
	running sync.WaitGroup

	mu        sync.Mutex
	recorded  string          // identity; empty: not yet
	seen      Identity        // as last said
	unsettled map[int]pending // by outlet
}

// New makes a client. It reaches nothing.
func New(cfg Config) (*Client, error) {
	product, err := Find(cfg.Product)
	if err != nil {
		return nil, err
	}
	if product, err = product.With(cfg.Numbers); err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(cfg.Address)
	if err != nil {
		host, port = cfg.Address, strconv.Itoa(defaultPort)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return nil, fmt.Errorf("PDU address %q is not host or host:port", cfg.Address)
	}
	return &Client{
		cfg: cfg, address: net.JoinHostPort(host, port), product: product, now: time.Now,
		recorded: cfg.Identity, turn: make(chan struct{}, 1), unsettled: make(map[int]pending),
	}, nil
}

// Close waits for a call that was cut off; it ends within two seconds.
func (c *Client) Close() error {
	c.running.Wait()
	return nil
}

// Product is the register map in use.
func (c *Client) Product() Product { return c.product }

// Seen is what the PDU last said of itself; the zero value before the first contact.
func (c *Client) Seen() Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// Read identifies the PDU and reads all its outlets, and the power of those that are metered. Power is an addition: a
// meter that says nothing leaves the reading of the relays as good as it is.
func (c *Client) Read(ctx context.Context) ([]Outlet, error) {
	if err := c.product.CanSwitch(); err != nil {
		return nil, c.fail("read", &Error{Class: NoMap, Err: err})
	}
	var outlets []Outlet
	err := c.call(ctx, "read", func(p *conversation) error {
		states, err := p.read()
		if err == nil {
			outlets = c.reading(states)
			c.meter(ctx, p, outlets)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return outlets, nil
}

// meter adds the power of the wanted outlets. It stops at the first question without an answer: the connection is
// worth nothing after it (goburrow/modbus#64).
func (c *Client) meter(ctx context.Context, p *conversation, outlets []Outlet) {
	m, ok := c.product.OutletMeter()
	if !ok {
		return
	}
	for _, outlet := range c.cfg.Metered {
		if outlet < 1 || outlet > len(outlets) || ctx.Err() != nil {
			continue
		}
		watts, metered, err := p.power(m, outlet)
		if err != nil && classify(err) != Rejected {
			return
		}
		outlets[outlet-1].Watts, outlets[outlet-1].Metered = watts, metered
	}
}

// Switch identifies the PDU and switches outlets. An error means that some of them may have been switched, and some
// not; read. Switching on is refused with class Settling while an "off" without answer may still come.
func (c *Client) Switch(ctx context.Context, outlets []int, on bool) error {
	if err := c.product.CanSwitch(); err != nil {
		return c.fail("switch", &Error{Class: NoMap, Err: err})
	}
	return c.call(ctx, "switch", func(p *conversation) error {
		for _, outlet := range outlets {
			if outlet < 1 || outlet > p.outlets {
				return &Error{Class: NoSuchOutlet, Err: fmt.Errorf("outlet %d of %d", outlet, p.outlets)}
			}
		}
		if wait, blocked := c.Settling(outlets); on && blocked {
			return &Error{Class: Settling, Held: wait, Err: errors.New("an unanswered off may still be carried out")}
		}
		for _, outlet := range outlets {
			if err := ctx.Err(); err != nil {
				return err // nothing more is sent
			}
			answered := c.attempt(outlet, on)
			err := p.write(outlet, on)
			if err == nil || classify(err) == Rejected {
				answered()
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// call runs do on a connection of its own, when it is its turn, after the PDU identified itself. The library takes no
// context: when ctx ends first, call returns and the conversation ends by its own timeouts, still holding the turn.
func (c *Client) call(ctx context.Context, op string, do func(*conversation) error) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return c.fail(op, ctx.Err())
	}
	if err := ctx.Err(); err != nil {
		<-c.turn
		return c.fail(op, err)
	}
	done := make(chan error, 1)
	c.running.Go(func() {
		defer func() { <-c.turn }()
		done <- c.converse(do)
	})
	select {
	case err := <-done:
		if err != nil {
			return c.fail(op, err)
		}
		return nil
	case <-ctx.Done():
		return c.fail(op, ctx.Err())
	}
}

func (c *Client) converse(do func(*conversation) error) error {
	handler := modbus.NewTCPClientHandler(c.address)
	handler.Timeout, handler.IdleTimeout, handler.SlaveId = dialLimit, idleLimit, c.cfg.UnitID
	defer handler.Close() // on any error, and without one
	p := &conversation{client: modbus.NewClient(handler), handler: handler, product: c.product}
	if err := c.identify(p); err != nil {
		return err
	}
	return do(p)
}
