package pdu

import (
	"encoding/binary"
	"fmt"

	"github.com/goburrow/modbus"
)

// conversation is one connection on which the PDU has identified itself.
type conversation struct {
	client  modbus.Client
	product Product
	outlets int
}

// Coil values of Modbus function 5. Only these two: 0x5500 would flip a relay on some products.
const (
	coilOn  = 0xff00
	coilOff = 0x0000
)

func (p *conversation) count() (int, error) {
	values, err := p.registers(p.product.Identify.FC, p.product.Identify.Address, 1)
	if err != nil {
		return 0, err
	}
	return int(values[0]), nil
}

// read takes all outlets in one request: one moment, not several.
func (p *conversation) read() ([]bool, error) {
	a := p.product.Read
	span := a.Stride*uint16(p.outlets-1) + 1
	states := make([]bool, p.outlets)
	if a.FC == fcReadHolding || a.FC == fcReadInputRegs {
		values, err := p.registers(a.FC, a.Base, span)
		if err != nil {
			return nil, err
		}
		for i := range states {
			switch value := values[i*int(a.Stride)]; value {
			case a.On:
				states[i] = true
			case a.Off:
			default:
				return nil, &Error{Class: BadReply, Err: fmt.Errorf("outlet %d has state %d, neither on nor off", i+1, value)}
			}
		}
		return states, nil
	}
	ask := p.client.ReadCoils
	if a.FC == fcReadInputs {
		ask = p.client.ReadDiscreteInputs
	}
	bits, err := ask(a.Base, span)
	if err != nil {
		return nil, err
	}
	if len(bits) != (int(span)+7)/8 {
		return nil, &Error{Class: BadReply, Err: fmt.Errorf("%d bytes for %d coils", len(bits), span)}
	}
	for i := range states {
		at := i * int(a.Stride)
		states[i] = bits[at/8]&(1<<(at%8)) != 0
	}
	return states, nil
}

func (p *conversation) write(outlet int, on bool) error {
	a := p.product.Switch
	if a.FC == fcWriteRegister {
		value := a.Off
		if on {
			value = a.On
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

func (p *conversation) registers(fc uint8, address, count uint16) ([]uint16, error) {
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
