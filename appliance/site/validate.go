package site

import (
	"fmt"
	"slices"
	"strings"
)

// Limits of one site, with their reasons.
const (
	MaxResources   = 32        // slot 0 is the pair; the tables of membership, checked by a test
	MaxVolumes     = 32        // same
	MaxVolumeBytes = 256 << 30 // without an activity log a crash compares whole volumes: about 30 min at 150 MB/s
	MaxDisks       = 26        // vda to vdz
	MaxVCPUs       = 64
	MinMemoryMiB   = 16
	MaxMemoryMiB   = 1 << 20
	MaxOutlet      = 64 // of ipmi/pdu: one Modbus request reads them all
	blockBytes     = 4096
)

// FieldError is one wrong field of a document.
type FieldError struct {
	Field string `json:"field"` // path: "volumes[1].size_bytes"
	What  string `json:"what"`
	Why   string `json:"why"`
	Next  string `json:"next"`
	Code  string `json:"code,omitempty"` // of the fault that it would become; empty: none but SITE-1001
}

// FieldErrors are all wrong fields, in the order of the document. As an error it is their list; Err avoids the typed nil.
type FieldErrors []FieldError

// Error is one line a field.
func (e FieldErrors) Error() string {
	lines := make([]string, len(e))
	for i, f := range e {
		lines[i] = fmt.Sprintf("%s: %s: %s", f.Field, f.What, f.Why)
	}
	return strings.Join(lines, "\n")
}

// Err is nil when no field is wrong.
func (e FieldErrors) Err() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// Validate names every wrong field of a person's answers. Products are the PDU products that this build knows; with
// none given the name is not checked.
func Validate(d Document, products ...string) FieldErrors {
	c := checker{products: products}
	c.absent("version", d.Version != 0)
	c.absent("site_id", d.SiteID != "")
	if d.Witness != nil {
		c.absent("witness.rid", d.Witness.RID != "")
		c.absent("former_witness", d.Former != nil)
	}
	for i, v := range d.Volumes {
		c.absent(fmt.Sprintf("volumes[%d].slot", i), v.Slot != 0)
		c.absent(fmt.Sprintf("volumes[%d].resource", i), v.Resource != 0)
		c.absent(fmt.Sprintf("volumes[%d].id", i), v.ID != "")
	}
	for i, v := range d.VMs {
		c.absent(fmt.Sprintf("vms[%d].slot", i), v.Slot != 0)
		c.absent(fmt.Sprintf("vms[%d].id", i), v.ID != "")
	}
	if d.Database != nil {
		c.absent("database.slot", d.Database.Slot != 0)
		c.absent("database.password", d.Database.Password != "")
	}
	c.document(d)
	return c.errors
}

// checker collects what is wrong; each method looks at one part and never stops at the first fault, because a person
// who founds a site should read everything at once.
type checker struct {
	products []string
	errors   FieldErrors
}

func (c *checker) wrong(field, what, why, next string) {
	c.errors = append(c.errors, FieldError{Field: field, What: what, Why: why, Next: next})
}

func (c *checker) absent(field string, present bool) {
	if present {
		c.wrong(field, "must be absent", "setup makes it", "remove the field")
	}
}

// document checks what answers and founded documents have in common.
func (c *checker) document(d Document) {
	if d.Format != 1 {
		c.wrong("format", fmt.Sprintf("is %d", d.Format), "this version reads format 1", `write "format": 1`)
	}
	c.name("name", d.Name)
	c.node("nodes.a", "a", d.Nodes.A, d.PDU != nil)
	c.node("nodes.b", "b", d.Nodes.B, d.PDU != nil)
	c.fencing(d)
	c.witness("witness", d.Witness)
	c.witness("former_witness", d.Former)
	c.volumes(d.Volumes)
	c.vms(d.VMs, d.Volumes)
	c.database(d.Database)
	c.count(d)
}

// name: what may become a file name, an NBD export name and a libvirt domain name without quoting anywhere.
func (c *checker) name(field, name string) {
	ok := len(name) >= 1 && len(name) <= 32 && name[0] != '-' && name[len(name)-1] != '-'
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
	}
	if !ok {
		c.wrong(field, fmt.Sprintf("%q is not a name", name),
			"names are 1 to 32 of a-z, 0-9 and -, neither first nor last", "choose a name such as press-control")
	}
}

func (c *checker) node(field, slot string, n Node, pdu bool) {
	if n.Key != "" {
		c.key(field+".key", n.Key)
	}
	if b := n.BMC; b != nil {
		c.address(field+".bmc.address", b.Address, true)
		// IPMI 2.0 sections 22.28 and 22.30: 16 bytes of user name, 20 of password.
		if b.User == "" || len(b.User) > 16 {
			c.wrong(field+".bmc.user", fmt.Sprintf("has %d characters", len(b.User)), "IPMI allows 1 to 16", "give the BMC's user")
		}
		if b.Password == "" || len(b.Password) > 20 {
			c.wrong(field+".bmc.password", "has a wrong length", "IPMI allows 1 to 20 characters", "give the BMC user's password")
		}
		if b.GUID != "" {
			c.hex(field+".bmc.guid", b.GUID)
		}
	}
	for i, o := range n.Outlets {
		at := fmt.Sprintf("%s.outlets[%d]", field, i)
		if o.Outlet < 1 || o.Outlet > MaxOutlet {
			c.wrong(at+".outlet", fmt.Sprintf("is %d", o.Outlet), "outlets count from 1, as printed on the metal", "read the number off the PDU")
		}
		if !strings.HasPrefix(o.PSU, slot+".") || len(o.PSU) < 3 {
			c.wrong(at+".psu", fmt.Sprintf("is %q", o.PSU), "a power supply of node "+slot+" is named "+slot+".1 or "+slot+".2", "name the supply that this outlet feeds")
		}
		if slices.ContainsFunc(n.Outlets[:i], func(p Outlet) bool { return p.Outlet == o.Outlet || p.PSU == o.PSU }) {
			c.wrong(at, "is listed twice", "one outlet feeds one power supply", "list every outlet and every supply once")
		}
	}
	if len(n.Outlets) > 0 && !pdu {
		c.wrong(field+".outlets", "are outlets of no PDU", "the document has no pdu", "add pdu, or remove the outlets")
	}
}

func (c *checker) witness(field string, w *Witness) {
	if w == nil {
		return
	}
	c.address(field+".address", w.Address, false)
	c.key(field+".key", w.Key)
	if w.RID != "" {
		c.hex(field+".rid", w.RID)
	}
}

func (c *checker) volumes(volumes []Volume) {
	for i, v := range volumes {
		at := fmt.Sprintf("volumes[%d]", i)
		c.name(at+".name", v.Name)
		if slices.ContainsFunc(volumes[:i], func(o Volume) bool { return o.Name == v.Name }) {
			c.wrong(at+".name", fmt.Sprintf("%q is used twice", v.Name), "a volume is found by its name", "choose another name")
		}
		switch {
		case v.SizeBytes <= 0:
			c.wrong(at+".size_bytes", fmt.Sprintf("is %d", v.SizeBytes), "a volume has a size", "give a multiple of 4096")
		case v.SizeBytes%blockBytes != 0:
			c.wrong(at+".size_bytes", fmt.Sprintf("%d is not a multiple of 4096", v.SizeBytes), "the mirror works in blocks of 4096 bytes",
				fmt.Sprintf("use %d or %d", v.SizeBytes/blockBytes*blockBytes, (v.SizeBytes/blockBytes+1)*blockBytes))
		case v.SizeBytes > MaxVolumeBytes:
			c.wrong(at+".size_bytes", fmt.Sprintf("%d is more than %d", v.SizeBytes, int64(MaxVolumeBytes)),
				"after a crash this release compares whole volumes, which would take hours", "use several volumes")
		}
	}
}

func (c *checker) count(d Document) {
	if len(d.Volumes) > MaxVolumes {
		c.wrong("volumes", fmt.Sprintf("are %d", len(d.Volumes)), fmt.Sprintf("a site has at most %d volumes", MaxVolumes), "use fewer, larger volumes")
	}
	n := 1 + len(d.VMs) + len(unattached(d))
	if d.Database != nil {
		n++
	}
	if n > MaxResources {
		c.wrong("vms", fmt.Sprintf("VMs, unattached volumes and the database are %d", n-1), fmt.Sprintf("a site has at most %d of them together", MaxResources-1), "attach volumes to VMs, or use fewer")
	}
}

// CheckWitness names what is wrong with a witness by itself.
func CheckWitness(w Witness) FieldErrors {
	var c checker
	c.witness("witness", &w)
	return c.errors
}
