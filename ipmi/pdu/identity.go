package pdu

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goburrow/modbus"
)

// Identity is what a PDU says of itself on every connection before anything else.
type Identity struct {
	Outlets int    // 0: this product does not say
	Company string // empty: this product does not say
	Product string
	Version string // for people; an update of its firmware is not another device
}

// String is what is recorded and compared: what must not change for as long as the same device is there.
func (i Identity) String() string {
	var parts []string
	if i.Outlets > 0 {
		parts = append(parts, fmt.Sprintf("%d outlets", i.Outlets))
	}
	if i.Company+i.Product != "" {
		parts = append(parts, i.Company+" "+i.Product)
	}
	return strings.Join(parts, ", ")
}

// Relearn makes the next contact count as the first: a person exchanged the PDU and orders a live test of the new one.
// The returned function takes it back, if the test fails.
func (c *Client) Relearn() (undo func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.recorded
	c.recorded = ""
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.recorded = before
	}
}

// identify asks who it is and compares that with what is recorded, or with the first answer this client ever got.
func (c *Client) identify(p *conversation) error {
	id, err := p.identity()
	if err != nil {
		return err
	}
	if d := c.product.Identify.Device; d != nil && !strings.Contains(strings.ToLower(id.Company), d.Company) {
		return &Error{Class: WrongIdentity, Err: fmt.Errorf("it says that it is %q of %q, not a %s", id.Product, id.Company, c.product.Title)}
	}
	limit := int(c.product.OutletsMax.Value)
	p.outlets = id.Outlets
	if c.product.Identify.Count == nil {
		p.outlets = min(max(c.cfg.Outlets, 1), limit)
	} else if id.Outlets < 1 || id.Outlets > limit {
		return &Error{Class: WrongIdentity, Err: fmt.Errorf("it says that it has %d outlets; a %s has 1 to %d", id.Outlets, c.product.Title, limit)}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.recorded != "" && c.recorded != id.String() {
		return &Error{Class: WrongIdentity, Err: fmt.Errorf("it says that it is %q, before it was %q: another device", id, c.recorded)}
	}
	c.recorded, c.seen = id.String(), id
	return nil
}

func (p *conversation) identity() (Identity, error) {
	var id Identity
	if c := p.product.Identify.Count; c != nil {
		count, err := p.count(*c)
		if err != nil {
			return Identity{}, err
		}
		id.Outlets = count
	}
	if p.product.Identify.Device != nil {
		objects, err := p.deviceObjects()
		if err != nil {
			return Identity{}, err
		}
		id.Company, id.Product, id.Version = objects[0], objects[1], objects[2]
	}
	return id, nil
}

// Read Device Identification (Modbus application protocol 1.1b3, section 6.21).
const (
	fcEncapsulated   = 0x2b
	meiDevice        = 0x0e
	deviceBasic      = 1 // objects 0 company, 1 product, 2 version, as a stream
	deviceHead       = 6 // MEI type, code, conformity, more follows, next object, number of objects
	deviceExchanges  = 3 // three objects: a device that hands out one at a time is done then
	deviceTextBytes  = 64
	moreFollows      = 0xff
	basicObjectCount = 3
)

// deviceObjects reads the three basic objects. The library does not know this function: the request goes through its
// packager and transporter, so that transaction ids, timeouts and the closing of connections are the same.
func (p *conversation) deviceObjects() ([basicObjectCount]string, error) {
	var objects [basicObjectCount]string
	next := byte(0)
	for range deviceExchanges {
		data, err := p.exchange(fcEncapsulated, []byte{meiDevice, deviceBasic, next})
		if err != nil {
			return objects, err
		}
		more, following, err := parseDevice(data, &objects)
		if err != nil {
			return objects, &Error{Class: BadReply, Err: err}
		}
		if !more {
			return objects, nil
		}
		if following <= next || following >= basicObjectCount {
			return objects, nil // the basic ones are complete
		}
		next = following
	}
	return objects, nil
}

// parseDevice takes one answer apart, after the function code.
func parseDevice(data []byte, into *[basicObjectCount]string) (more bool, next byte, err error) {
	if len(data) < deviceHead || data[0] != meiDevice || data[1] != deviceBasic {
		return false, 0, errors.New("not an identification")
	}
	rest := data[deviceHead:]
	for range data[5] {
		if len(rest) < 2 || len(rest) < 2+int(rest[1]) {
			return false, 0, errors.New("an identification that is cut short")
		}
		id, text := rest[0], rest[2:2+int(rest[1])]
		rest = rest[2+int(rest[1]):]
		if int(id) < len(into) {
			into[id] = printable(text)
		}
	}
	return data[3] == moreFollows, data[4], nil
}

// printable keeps what a person and a log can bear of a stranger's text.
func printable(text []byte) string {
	text = text[:min(len(text), deviceTextBytes)]
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, string(text)))
}

// exchange sends one request of any function and returns the data of its answer.
func (p *conversation) exchange(function byte, data []byte) ([]byte, error) {
	request, err := p.handler.Encode(&modbus.ProtocolDataUnit{FunctionCode: function, Data: data})
	if err != nil {
		return nil, err
	}
	answer, err := p.handler.Send(request)
	if err != nil {
		return nil, err
	}
	if err := p.handler.Verify(request, answer); err != nil {
		return nil, err
	}
	unit, err := p.handler.Decode(answer)
	if err != nil {
		return nil, err
	}
	switch {
	case unit.FunctionCode == function|0x80 && len(unit.Data) > 0:
		return nil, &modbus.ModbusError{FunctionCode: unit.FunctionCode, ExceptionCode: unit.Data[0]}
	case unit.FunctionCode != function:
		return nil, &Error{Class: BadReply, Err: fmt.Errorf("function %d is answered by function %d", function, unit.FunctionCode)}
	}
	return unit.Data, nil
}
