package pdu

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Product is the register map of a family of PDUs. It is data: products/<name>.json, one engine for all.
type Product struct {
	Name       string   `json:"name"`
	Title      string   `json:"title"`
	Supported  bool     `json:"supported"` // every number below was tried on a device
	OutletsMax Number   `json:"outlets_max"`
	Identify   Identify `json:"identify"`
	Switch     *Access  `json:"switch"` // nil: it only measures
	Read       *Access  `json:"read"`   // relay states; nil: none
	Meters     []Meter  `json:"meters"`
	Verify     Verify   `json:"verify"`
	Quirks     Quirks   `json:"quirks"`
	Notes      []string `json:"notes"`
}

// Verify says what a reading of this product can show.
type Verify string

// What a reading can show.
const (
	VerifyState Verify = "state" // the outlet is off, as the PDU says
	VerifyPower Verify = "power" // what flows; no state
	VerifyBoth  Verify = "both"  // state, and power where the numbers are known
	VerifyRelay Verify = "relay" // "the relay says off", and never more: nothing tells this device from another
)

// Identify is what is read on every connection before anything is written. A PDU that was replaced by another model
// must not be switched by the old map.
type Identify struct {
	Count  *Count  `json:"count,omitempty"`
	Device *Device `json:"device,omitempty"`
}

// Count is a register that holds the number of outlets.
type Count struct {
	FC      Number `json:"fc"` // 3 or 4
	Address Number `json:"address"`
}

// Device is Read Device Identification (function 0x2B, MEI type 0x0E; Modbus application protocol 1.1b3, 6.21): what
// it says at the first contact is what it must say for ever.
type Device struct {
	State   Known  `json:"state"`
	Company string `json:"company"` // part of object 0, any case; empty: any
}

// Access says where outlet 1 is and how far the next. Addresses are those of the wire, from 0, always.
type Access struct {
	FC     Number  `json:"fc"` // switch: 5 coil, 6 register; read: 1 coils, 2 inputs, 3 or 4 registers
	Base   Number  `json:"base"`
	Stride Number  `json:"stride"`
	On     *Number `json:"on,omitempty"` // register values; coils have none
	Off    *Number `json:"off,omitempty"`
}

// Meter says where power in watts is.
type Meter struct {
	Of      string `json:"of"` // outlet, or total: all outlets together, which is evidence of nothing
	FC      Number `json:"fc"` // 3 or 4
	Base    Number `json:"base"`
	Stride  Number `json:"stride"`
	Type    Type   `json:"type"`
	Divisor Number `json:"divisor"` // register / divisor = W
}

const (
	ofOutlet = "outlet"
	ofTotal  = "total"
)

// Type is how a value lies in registers; in more than one, the word order is part of it.
type Type string

// The types.
const (
	U16    Type = "u16"
	U32    Type = "u32"     // big-endian words: the high word comes first
	U32Low Type = "u32 low" // the low word comes first
	F32    Type = "f32"     // IEEE 754, high word first
	F32Low Type = "f32 low" // low word first
)

// Words is how many registers a value takes; 0: no such type.
func (t Type) Words() uint16 {
	switch t {
	case U16:
		return 1
	case U32, U32Low, F32, F32Low:
		return 2
	default:
		return 0
	}
}

// Quirks are what the engine must know of a product besides numbers.
type Quirks struct {
	NoSensor *Number `json:"no_sensor,omitempty"` // the (first) register of a value that no sensor measures
}

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
	metersLimit       = 2    // outlet and total
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

// CanSwitch is nil if outlets may be switched by this map. A number that nobody saw is not guessed: a wrong coil is
// another outlet.
func (p Product) CanSwitch() error {
	if p.Switch == nil {
		return errors.New("it measures and does not switch")
	}
	var missing []string
	for _, name := range p.missing() {
		if strings.HasPrefix(name, "switch.") || strings.HasPrefix(name, "read.") || strings.HasPrefix(name, "identify.") {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("these numbers of its register map are not known: %s", strings.Join(missing, ", "))
	}
	return nil
}

// OutletMeter is how the power of single outlets is read; false: it is not, or a number that it needs is not known.
func (p Product) OutletMeter() (Meter, bool) {
	for _, m := range p.Meters {
		if m.Of == ofOutlet {
			return m, m.FC.Known() && m.Base.Known() && m.Stride.Known() && m.Divisor.Known()
		}
	}
	return Meter{}, false
}

func (p Product) check() error {
	outlets := int(p.OutletsMax.Value)
	if !p.OutletsMax.Known() || outlets < 1 || outlets > outletsLimit {
		return fmt.Errorf("%s outlets: 1 to %d", p.OutletsMax, outletsLimit)
	}
	if err := p.Identify.check(); err != nil {
		return err
	}
	if err := p.checkVerify(); err != nil {
		return err
	}
	if err := p.Switch.check("switch", outlets, fcWriteCoil, fcWriteRegister); err != nil {
		return err
	}
	if err := p.Read.check("read", outlets, fcReadCoils, fcReadInputs, fcReadHolding, fcReadInputRegs); err != nil {
		return err
	}
	if len(p.Meters) > metersLimit {
		return fmt.Errorf("%d meters: at most %d", len(p.Meters), metersLimit)
	}
	for i, m := range p.Meters {
		if err := m.check(outlets); err != nil {
			return err
		}
		if slices.ContainsFunc(p.Meters[:i], func(o Meter) bool { return o.Of == m.Of }) {
			return fmt.Errorf("two meters of the same thing: %s", m.Of)
		}
	}
	if p.Supported && len(p.missing()) > 0 {
		return fmt.Errorf("supported, and nobody saw %s", strings.Join(p.missing(), ", "))
	}
	return nil
}

func (p Product) checkVerify() error {
	switch p.Verify {
	case VerifyState, VerifyBoth, VerifyRelay:
		if p.Switch == nil || p.Read == nil {
			return fmt.Errorf("verify %q needs switch and read: what is switched is read back", p.Verify)
		}
	case VerifyPower:
		if p.Switch != nil || len(p.Meters) == 0 {
			return fmt.Errorf("verify %q is for what only measures", p.Verify)
		}
	default:
		return fmt.Errorf("verify %q: state, power, both or relay", p.Verify)
	}
	if p.Identify.Count == nil && p.Identify.Device == nil && p.Switch != nil && p.Verify != VerifyRelay {
		return fmt.Errorf("verify %q: a device that cannot be told from another is worth no more than %q", p.Verify, VerifyRelay)
	}
	return nil
}

func (i Identify) check() error {
	if c := i.Count; c != nil && c.FC.Known() && c.FC.Value != fcReadHolding && c.FC.Value != fcReadInputRegs {
		return fmt.Errorf("identify by function %d: 3 or 4", c.FC.Value)
	}
	if d := i.Device; d != nil && !slices.Contains([]Known{Vendor, Independent}, d.State) {
		return fmt.Errorf("identification of state %q cannot be used: V or I", d.State)
	}
	return nil
}

func (a *Access) check(what string, outlets int, allowed ...uint16) error {
	if a == nil {
		return nil
	}
	if !a.FC.Known() || !slices.Contains(allowed, a.FC.Value) {
		return fmt.Errorf("%s by function %s: %d are possible", what, a.FC, allowed)
	}
	registers := a.registers()
	switch {
	case registers && (a.On == nil || a.Off == nil || *a.On == *a.Off || !a.On.Known() || !a.Off.Known() || a.On.Value == a.Off.Value):
		return fmt.Errorf("%s: a register needs a value for on and another for off", what)
	case !registers && (a.On != nil || a.Off != nil):
		return fmt.Errorf("%s: a coil has no values", what)
	case !a.Base.Known() || !a.Stride.Known():
		return nil // refused where it is used: CanSwitch
	case a.Stride.Value == 0:
		return fmt.Errorf("%s: stride 0: all outlets would be one", what)
	}
	span := int(a.Stride.Value)*(outlets-1) + 1
	switch {
	case int(a.Base.Value)+span > 1<<16:
		return fmt.Errorf("%s: the last outlet lies beyond address 65535", what)
	case registers && span > 125, !registers && span > 2000: // Modbus application protocol 6.1 to 6.4
		return fmt.Errorf("%s: %d addresses do not fit one request", what, span)
	}
	return nil
}

// registers says whether the values are 16-bit registers instead of coils or inputs.
func (a *Access) registers() bool {
	return a.FC.Value == fcWriteRegister || a.FC.Value == fcReadHolding || a.FC.Value == fcReadInputRegs
}

// Address is the wire address of an outlet, from 1.
func (a *Access) Address(outlet int) uint16 { return a.Base.Value + uint16(outlet-1)*a.Stride.Value }

func (m Meter) check(outlets int) error {
	switch {
	case m.Of != ofOutlet && m.Of != ofTotal:
		return fmt.Errorf("meter of %q: outlet or total", m.Of)
	case m.FC.Known() && m.FC.Value != fcReadHolding && m.FC.Value != fcReadInputRegs:
		return fmt.Errorf("meter by function %s: 3 or 4", m.FC)
	case m.Type.Words() == 0:
		return fmt.Errorf("meter of type %q: u16, u32, u32 low, f32 or f32 low", m.Type)
	case m.Divisor.Known() && m.Divisor.Value == 0:
		return errors.New("meter with divisor 0")
	case m.Of == ofTotal || !m.Base.Known() || !m.Stride.Known():
		return nil
	case m.Stride.Value < m.Type.Words():
		return fmt.Errorf("meter: stride %d, and each value takes %d registers", m.Stride.Value, m.Type.Words())
	case int(m.Base.Value)+int(m.Stride.Value)*(outlets-1)+int(m.Type.Words()) > 1<<16:
		return errors.New("meter: the last outlet lies beyond address 65535")
	}
	return nil
}

// Address is the wire address of the first register of an outlet, from 1.
func (m Meter) Address(outlet int) uint16 { return m.Base.Value + uint16(outlet-1)*m.Stride.Value }
