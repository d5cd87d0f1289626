package pdu

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// Product is the register map of a family of PDUs. It is data: products/<name>.json, one engine for all.
type Product struct {
	Name       string   `json:"name"`
	Title      string   `json:"title"`
	Supported  bool     `json:"supported"` // every number below was tried on a device
	OutletsMax int      `json:"outlets_max"`
	Identify   Identify `json:"identify"`
	Switch     Access   `json:"switch"`
	Read       Access   `json:"read"`
	Verify     string   `json:"verify"` // "state": the relay is read back. Power is for metered products
	Quirks     []string `json:"quirks"`
}

// Identify is what is read before the first write: the number of outlets. A PDU that was replaced by another model
// must not be switched by the old map.
type Identify struct {
	FC      uint8  `json:"fc"` // 3 or 4
	Address uint16 `json:"address"`
	State   Known  `json:"state"`
}

// Access says where outlet 1 is and how far the next. Addresses are those of the wire, from 0, always.
type Access struct {
	FC     uint8  `json:"fc"` // switch: 5 coil, 6 register; read: 1 coils, 2 inputs, 3 or 4 registers
	Base   uint16 `json:"base"`
	Stride uint16 `json:"stride"`
	On     uint16 `json:"on"` // register values; coils have none
	Off    uint16 `json:"off"`
	State  Known  `json:"state"`
}

// Known is how a number is known: V the vendor's text, I an independent map of the device, A arithmetic, N not seen.
type Known string

// Modbus function codes that a product may use.
const (
	fcReadCoils     = 1
	fcReadInputs    = 2
	fcReadHolding   = 3
	fcReadInputRegs = 4
	fcWriteCoil     = 5
	fcWriteRegister = 6
)

const (
	outletsLimit      = 64   // one request reads them all (2000 coils or 125 registers are allowed)
	productBytesLimit = 8192 // of a file
)

//go:embed products/*.json
var productFiles embed.FS

var productName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// Find loads a product by name.
func Find(name string) (Product, error) {
	unknown := fmt.Errorf("PDU product %q is not known; known are: %s", name, strings.Join(Names(), ", "))
	if !productName.MatchString(name) {
		return Product{}, unknown
	}
	text, err := productFiles.ReadFile("products/" + name + ".json")
	if err != nil {
		return Product{}, unknown
	}
	return Parse(name, text)
}

// Names are the products that there are, in order.
func Names() []string {
	entries, err := productFiles.ReadDir("products")
	if err != nil {
		return nil // an embedded folder can be read
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, strings.TrimSuffix(entry.Name(), ".json"))
	}
	return names
}

// Parse reads a product file and refuses what the engine could carry out wrongly.
func Parse(name string, text []byte) (Product, error) {
	if len(text) > productBytesLimit {
		return Product{}, fmt.Errorf("PDU product %s: more than %d bytes", name, productBytesLimit)
	}
	var p Product
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		return Product{}, fmt.Errorf("PDU product %s: %w", name, err)
	}
	if decoder.More() {
		return Product{}, fmt.Errorf("PDU product %s: more than one JSON value", name)
	}
	if p.Name != name {
		return Product{}, fmt.Errorf("PDU product %s: the file names %q", name, p.Name)
	}
	if err := p.check(); err != nil {
		return Product{}, fmt.Errorf("PDU product %s: %w", name, err)
	}
	return p, nil
}

func (p Product) check() error {
	if p.OutletsMax < 1 || p.OutletsMax > outletsLimit {
		return fmt.Errorf("%d outlets: 1 to %d", p.OutletsMax, outletsLimit)
	}
	if p.Identify.FC != fcReadHolding && p.Identify.FC != fcReadInputRegs {
		return fmt.Errorf("identify by function %d: 3 or 4", p.Identify.FC)
	}
	if p.Verify != "state" {
		return fmt.Errorf("verify %q: only \"state\" is built", p.Verify)
	}
	if err := p.Switch.check("switch", p.OutletsMax, fcWriteCoil, fcWriteRegister); err != nil {
		return err
	}
	if err := p.Read.check("read", p.OutletsMax, fcReadCoils, fcReadInputs, fcReadHolding, fcReadInputRegs); err != nil {
		return err
	}
	for _, known := range []Known{p.Identify.State, p.Switch.State, p.Read.State} {
		switch known {
		case "V", "I", "A":
		default:
			return fmt.Errorf("a number of state %q cannot be used: V, I or A", known)
		}
	}
	return nil
}

func (a Access) check(what string, outlets int, allowed ...uint8) error {
	ok := false
	for _, fc := range allowed {
		ok = ok || a.FC == fc
	}
	registers := a.FC == fcWriteRegister || a.FC == fcReadHolding || a.FC == fcReadInputRegs
	span := int(a.Stride)*(outlets-1) + 1
	switch {
	case !ok:
		return fmt.Errorf("%s by function %d: %d are possible", what, a.FC, allowed)
	case a.Stride == 0:
		return fmt.Errorf("%s: stride 0: all outlets would be one", what)
	case int(a.Base)+span > 1<<16:
		return fmt.Errorf("%s: the last outlet lies beyond address 65535", what)
	case registers && a.On == a.Off:
		return fmt.Errorf("%s: on and off are the same value", what)
	case !registers && (a.On != 0 || a.Off != 0):
		return fmt.Errorf("%s: a coil has no values", what)
	case registers && span > 125, !registers && span > 2000: // Modbus application protocol 6.1 to 6.4
		return fmt.Errorf("%s: %d addresses do not fit one request", what, span)
	}
	return nil
}

// Address is the wire address of an outlet, from 1.
func (a Access) Address(outlet int) uint16 { return a.Base + uint16(outlet-1)*a.Stride }
