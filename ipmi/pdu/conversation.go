package pdu

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/goburrow/modbus"
)

// conversation is one connection on which the PDU has identified itself.
type conversation struct {
	client  modbus.Client
	handler modbus.ClientHandler
	product Product
	outlets int
}

// Coil values of Modbus function 5. Only these two: 0x5500 would flip a relay on some products.
const (
	coilOn  = 0xff00
	coilOff = 0x0000
)

func (p *conversation) count(c Count) (int, error) {
	values, err := p.registers(c.FC.Value, c.Address.Value, 1)
	if err != nil {
		return 0, err
	}
	return int(values[0]), nil
}

// read takes all outlets in one request: one moment, not several.
func (p *conversation) read() ([]bool, error) {
	a := p.product.Read
	span := a.Stride.Value*uint16(p.outlets-1) + 1
	states := make([]bool, p.outlets)
	if a.registers() {
		values, err := p.registers(a.FC.Value, a.Base.Value, span)
		if err != nil {
			return nil, err
		}
		for i := range states {
			switch value := values[i*int(a.Stride.Value)]; value {
			case a.On.Value:
				states[i] = true
			case a.Off.Value:
			default:
				return nil, &Error{Class: BadReply, Err: fmt.Errorf("outlet %d has state %d, neither on nor off", i+1, value)}
			}
		}
		return states, nil
	}
	ask := p.client.ReadCoils
	if a.FC.Value == fcReadInputs {
		ask = p.client.ReadDiscreteInputs
	}
	bits, err := ask(a.Base.Value, span)
	if err != nil {
		return nil, err
	}
	if len(bits) != (int(span)+7)/8 {
		return nil, &Error{Class: BadReply, Err: fmt.Errorf("%d bytes for %d coils", len(bits), span)}
	}
	for i := range states {
		at := i * int(a.Stride.Value)
		states[i] = bits[at/8]&(1<<(at%8)) != 0
	}
	return states, nil
}

// power reads the meter of each of these outlets by a request of its own: some products refuse to read across the end
// of a block. false: no sensor.
func (p *conversation) power(m Meter, outlet int) (watts float64, metered bool, err error) {
	words, err := p.registers(m.FC.Value, m.Address(outlet), m.Type.Words())
	if err != nil {
		return 0, false, err
	}
	if absent := p.product.Quirks.NoSensor; absent != nil && words[0] == absent.Value {
		return 0, false, nil
	}
	value, ok := m.Type.decode(words)
	if !ok {
		return 0, false, &Error{Class: BadReply, Err: fmt.Errorf("the meter of outlet %d reads %x, which is no power", outlet, words)}
	}
	return value / float64(m.Divisor.Value), true, nil
}

// decode is the value in the registers; false: it is not a number.
func (t Type) decode(words []uint16) (float64, bool) {
	if t == U16 {
		return float64(words[0]), true
	}
	high, low := uint32(words[0]), uint32(words[1])
	if t == U32Low || t == F32Low {
		high, low = low, high
	}
	if t == U32 || t == U32Low {
		return float64(high<<16 | low), true
	}
	value := float64(math.Float32frombits(high<<16 | low))
	return value, !math.IsNaN(value) && !math.IsInf(value, 0)
}

func (p *conversation) write(outlet int, on bool) error {
	a := p.product.Switch
	if a.registers() {
		value := a.Off.Value
		if on {
			value = a.On.Value
		}
		_, err := p.client.WriteSingleRegister(a.Address(outlet), value)
		return err
	}
	value := uint16(coilOff)
	if on {
		value = coilOn
	}
	_, err := p.client.WriteSingleCoil(a.Address(outlet), value)
	return err
}

func (p *conversation) registers(fc, address, count uint16) ([]uint16, error) {
	ask := p.client.ReadHoldingRegisters
	if fc == fcReadInputRegs {
		ask = p.client.ReadInputRegisters
	}
	raw, err := ask(address, count)
	if err != nil {
		return nil, err
	}
	if len(raw) != 2*int(count) {
		return nil, &Error{Class: BadReply, Err: fmt.Errorf("%d bytes for %d registers", len(raw), count)}
	}
	values := make([]uint16, count)
	for i := range values {
		values[i] = binary.BigEndian.Uint16(raw[2*i:])
	}
	return values, nil
}
