package pdu

import (
	"encoding"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Known is how a number is known: V read in the vendor's text, I from an independent map of the device, A inferred by
// arithmetic, N not seen, S given by the site for its own device (hardware.md section 3.1).
type Known string

// The states.
const (
	Vendor      Known = "V"
	Independent Known = "I"
	Arithmetic  Known = "A"
	NotSeen     Known = "N"
	SiteOwn     Known = "S"
)

// Number is one number of a product with how it is known. In a file it is a text: "101 V", "0x3a00 V", "? N". A number
// that nobody saw has no value, so it cannot be used by mistake.
type Number struct {
	Value uint16
	State Known
}

// Known says whether there is a value.
func (n Number) Known() bool { return n.State != NotSeen && n.State != "" }

// String is the form in the file.
func (n Number) String() string {
	if !n.Known() {
		return "? N"
	}
	return fmt.Sprintf("%d %s", n.Value, n.State)
}

// MarshalText is the form in the file.
func (n Number) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads "101 V".
func (n *Number) UnmarshalText(text []byte) error {
	value, state, ok := strings.Cut(string(text), " ")
	if !ok || !slices.Contains([]Known{Vendor, Independent, Arithmetic, NotSeen}, Known(state)) {
		return fmt.Errorf("number %q is not a value and its state, such as \"101 V\"", text)
	}
	if (value == "?") != (Known(state) == NotSeen) {
		return fmt.Errorf("number %q: a number that was not seen is \"? N\", and only that", text)
	}
	n.Value, n.State = 0, Known(state)
	if value == "?" {
		return nil
	}
	parsed, err := strconv.ParseUint(value, 0, 16)
	if err != nil {
		return fmt.Errorf("number %q: %w", text, err)
	}
	n.Value = uint16(parsed)
	return nil
}

var _ encoding.TextUnmarshaler = (*Number)(nil)

// Field is a number of a product by its name, as people and site documents name it: "switch.base".
type Field struct {
	Name   string
	Number Number
}

// Numbers are all numbers of the product, in the order of the file.
func (p Product) Numbers() []Field {
	var all []Field
	p.each(func(name string, n *Number) { all = append(all, Field{name, *n}) })
	return all
}

// each visits every number of p. Optional parts that the product does not have are left out.
func (p *Product) each(visit func(name string, n *Number)) {
	visit("outlets_max", &p.OutletsMax)
	if c := p.Identify.Count; c != nil {
		visit("identify.count.fc", &c.FC)
		visit("identify.count.address", &c.Address)
	}
	access := func(name string, a *Access) {
		if a == nil {
			return
		}
		visit(name+".fc", &a.FC)
		visit(name+".base", &a.Base)
		visit(name+".stride", &a.Stride)
		if a.On != nil {
			visit(name+".on", a.On)
		}
		if a.Off != nil {
			visit(name+".off", a.Off)
		}
	}
	access("switch", p.Switch)
	access("read", p.Read)
	for i := range p.Meters {
		m := &p.Meters[i]
		name := "meter." + m.Of
		visit(name+".fc", &m.FC)
		visit(name+".base", &m.Base)
		if m.Of == ofOutlet {
			visit(name+".stride", &m.Stride)
		}
		visit(name+".divisor", &m.Divisor)
	}
	if p.Quirks.NoSensor != nil {
		visit("quirks.no_sensor", p.Quirks.NoSensor)
	}
}

// With fills in a site's own numbers and checks the product again: for a device whose register list the vendor shows
// only on its own page. A number of the file is not replaced: a wrong file is a bug to be mended for everybody.
func (p Product) With(own map[string]uint16) (Product, error) {
	p = p.clone()
	left := len(own)
	var problem error
	p.each(func(name string, n *Number) {
		value, given := own[name]
		if !given {
			return
		}
		left--
		if n.Known() {
			problem = fmt.Errorf("PDU product %s: %s is %s already", p.Name, name, n)
			return
		}
		*n = Number{value, SiteOwn}
	})
	if problem != nil {
		return Product{}, problem
	}
	if left > 0 {
		return Product{}, fmt.Errorf("PDU product %s: a number is given that it does not have; it has %s", p.Name, strings.Join(p.missing(), ", "))
	}
	if err := p.check(); err != nil {
		return Product{}, fmt.Errorf("PDU product %s, with the site's own numbers: %w", p.Name, err)
	}
	return p, nil
}

func (p Product) clone() Product {
	copied := func(n *Number) *Number {
		if n == nil {
			return nil
		}
		c := *n
		return &c
	}
	access := func(a *Access) *Access {
		if a == nil {
			return nil
		}
		c := *a
		c.On, c.Off = copied(a.On), copied(a.Off)
		return &c
	}
	p.Switch, p.Read, p.Meters = access(p.Switch), access(p.Read), slices.Clone(p.Meters)
	if p.Identify.Count != nil {
		c := *p.Identify.Count
		p.Identify.Count = &c
	}
	p.Quirks.NoSensor = copied(p.Quirks.NoSensor)
	return p
}

// missing are the names of the numbers that nobody saw.
func (p Product) missing() []string {
	var names []string
	for _, f := range p.Numbers() {
		if !f.Number.Known() {
			names = append(names, f.Name)
		}
	}
	return names
}

// States says in a few words how the numbers are known that switching and reading use: "switch V, read V, meter A".
func (p Product) States() string {
	worst := func(prefix string) Known {
		rank := []Known{Vendor, Independent, SiteOwn, Arithmetic, NotSeen}
		at := -1
		for _, f := range p.Numbers() {
			if strings.HasPrefix(f.Name, prefix) {
				at = max(at, slices.Index(rank, f.Number.State))
			}
		}
		if at < 0 {
			return "none"
		}
		return rank[at]
	}
	return fmt.Sprintf("switch %s, read %s, meter %s", worst("switch."), worst("read."), worst("meter."+ofOutlet+"."))
}
