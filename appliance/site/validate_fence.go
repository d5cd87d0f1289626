package site

import (
	"fmt"
	"slices"
	"strings"
)

// Codes of wiring that is refused here before a device is asked; ipmi/fence refuses the same of a document that was
// stored by somebody else.
const (
	codeSharedOutlet = "FENCE-5031"
	codeSharedBMC    = "FENCE-5032"
	codeReserved     = "FENCE-5036"
	codeSharedPSUs   = "FENCE-5037"
	codeUncovered    = "FENCE-5038"
)

const maxOwnNumbers = 16 // a product's whole map has fewer

func (c *checker) miswired(code, field, what, why, next string) {
	c.errors = append(c.errors, FieldError{Field: field, What: what, Why: why, Next: next, Code: code})
}

// fencing refuses what would turn off the wrong node, or what makes the evidence: hardware.md section 4.5, protocol.md
// section 2, "shared PSU".
func (c *checker) fencing(d Document) {
	a, b := d.Nodes.A, d.Nodes.B
	for i, o := range b.Outlets {
		if slices.ContainsFunc(a.Outlets, func(p Outlet) bool { return p.Outlet == o.Outlet }) {
			c.miswired(codeSharedOutlet, fmt.Sprintf("nodes.b.outlets[%d].outlet", i), fmt.Sprintf("outlet %d feeds both nodes", o.Outlet),
				"fencing one node by it would turn off the survivor too", "feed each node from outlets of its own")
		}
	}
	if a.BMC != nil && b.BMC != nil && withPort(a.BMC.Address, "623") == withPort(b.BMC.Address, "623") {
		c.miswired(codeSharedBMC, "nodes.b.bmc.address", "is the BMC of node a", "a node would turn off itself instead of its peer", "give each node its own BMC's address")
	}
	for _, n := range []struct {
		slot string
		node Node
	}{{"a", a}, {"b", b}} {
		c.supplies(n.slot, n.node, d)
	}
	if d.PDU != nil {
		c.pdu(d)
	}
}

// supplies: the outlet path exists only if it covers every supply of the node, and nothing else.
func (c *checker) supplies(slot string, n Node, d Document) {
	field := "nodes." + slot
	if n.PSUs < 0 || n.PSUs > MaxOutlet {
		c.wrong(field+".psus", fmt.Sprintf("is %d", n.PSUs), "a node has 1 to 64 power supplies", "count them, or leave the field away")
	}
	if len(n.Outlets) == 0 {
		return
	}
	if d.Fencing != nil && d.Fencing.SharedPSUs {
		c.miswired(codeSharedPSUs, field+".outlets", "feed both nodes", "this chassis shares its power supplies: outlets would turn both nodes off",
			"remove the outlets; the BMCs fence alone")
	}
	if n.PSUs > 0 && n.PSUs != len(n.Outlets) {
		c.miswired(codeUncovered, field+".outlets", fmt.Sprintf("are %d for %d power supplies", len(n.Outlets), n.PSUs),
			"a supply without an outlet keeps the node on when its outlets are off", "name one outlet for each supply")
	}
	for i, o := range n.Outlets {
		if d.PDU == nil {
			continue
		}
		if k := slices.IndexFunc(d.PDU.Feeds, func(f Feed) bool { return f.Outlet == o.Outlet }); k >= 0 {
			c.miswired(codeReserved, fmt.Sprintf("%s.outlets[%d].outlet", field, i), fmt.Sprintf("outlet %d feeds the %s too", o.Outlet, d.PDU.Feeds[k].What),
				"fencing would cut what makes evidence", "feed the nodes from outlets of their own")
		}
	}
}

func (c *checker) pdu(d Document) {
	p := d.PDU
	c.address("pdu.address", p.Address, false)
	if p.Product == "" || len(c.products) > 0 && !slices.Contains(c.products, p.Product) {
		c.wrong("pdu.product", fmt.Sprintf("%q is not known", p.Product), "each product has its own registers", "use one of: "+strings.Join(c.products, ", "))
	}
	if len(d.Nodes.A.Outlets)+len(d.Nodes.B.Outlets) == 0 {
		c.wrong("pdu", "no outlet is named", "without the outlets of each node the PDU fences nobody", "list nodes.a.outlets and nodes.b.outlets, or remove pdu")
	}
	if len(p.Numbers) > maxOwnNumbers {
		c.wrong("pdu.numbers", fmt.Sprintf("are %d", len(p.Numbers)), "a map has fewer numbers", "give those that the product lacks")
	}
	for i, f := range p.Feeds {
		at := fmt.Sprintf("pdu.feeds[%d]", i)
		if f.Outlet < 1 || f.Outlet > MaxOutlet {
			c.wrong(at+".outlet", fmt.Sprintf("is %d", f.Outlet), "outlets count from 1, as printed on the metal", "read the number off the PDU")
		}
		if !slices.Contains([]string{"pdu", "witness", "switch"}, f.What) {
			c.wrong(at+".what", fmt.Sprintf("is %q", f.What), "what makes evidence is pdu, witness or switch", "name one of them")
		}
	}
}
