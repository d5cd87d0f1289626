package sim

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"slices"
	"time"

	"duet/ipmi/pdu"
)

// Modbus TCP (messaging on TCP/IP implementation guide 1.0b, 3.1.3): transaction 2, protocol 2 (zero), length 2,
// unit 1, then function and data.
const (
	mbapSize = 7
	pduMax   = 253

	illegalFunction = 1
	illegalAddress  = 2
	illegalValue    = 3

	coilOn  = 0xff00
	coilOff = 0x0000
)

func (p *PDU) converse(ctx context.Context, conn net.Conn) {
	var header [mbapSize]byte
	for {
		if _, err := io.ReadFull(conn, header[:]); err != nil {
			return
		}
		length := int(binary.BigEndian.Uint16(header[4:]))
		if binary.BigEndian.Uint16(header[2:]) != 0 || length < 2 || length > pduMax+1 {
			return // not Modbus: nothing that follows can be found
		}
		request := make([]byte, length-1)
		if _, err := io.ReadFull(conn, request); err != nil {
			return
		}
		faults := p.Faults()
		if faults.Mute {
			continue
		}
		if isWrite(request[0]) && !wait(ctx, faults.LateWrite) {
			return
		}
		reply := p.answer(request, faults)
		if !wait(ctx, faults.Late) {
			return
		}
		if _, err := conn.Write(frame(header, reply, faults)); err != nil || faults.Truncate {
			return
		}
	}
}

func frame(header [mbapSize]byte, reply []byte, faults PDUFaults) []byte {
	binary.BigEndian.PutUint16(header[4:], uint16(len(reply)+1))
	if faults.WrongID {
		header[1] ^= 0x55
	}
	out := append(header[:], reply...)
	if faults.Truncate {
		out = out[:len(out)-1]
	}
	return out
}

func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func isWrite(function byte) bool { return function == 5 || function == 6 || function == 15 }

func exception(function, code byte) []byte { return []byte{function | 0x80, code} }

// answer carries one request out: function codes 1-6, 15 and 43.
func (p *PDU) answer(request []byte, faults PDUFaults) []byte {
	function := request[0]
	if isWrite(function) && faults.Exception != 0 {
		return exception(function, faults.Exception)
	}
	switch {
	case function == 15:
		return p.writeCoils(request)
	case function == fcDevice && p.product.Identify.Device != nil:
		return p.device(request, faults)
	}
	if len(request) != 5 || function < 1 || function > 6 {
		return exception(function, illegalFunction)
	}
	address, value := binary.BigEndian.Uint16(request[1:]), binary.BigEndian.Uint16(request[3:])
	switch function {
	case 1, 2:
		return p.readBits(function, address, int(value), faults)
	case 3, 4:
		return p.readRegisters(function, address, int(value), faults)
	case 5:
		if value != coilOn && value != coilOff {
			return exception(function, illegalValue)
		}
		return p.writeOne(request, address, value == coilOn)
	default:
		a := p.product.Switch
		if a == nil || a.FC.Value != 6 {
			return exception(function, illegalAddress)
		}
		if value != a.On.Value && value != a.Off.Value {
			return exception(function, illegalValue)
		}
		return p.writeOne(request, address, value == a.On.Value)
	}
}

// writeOne is functions 5 and 6: the answer repeats the request.
func (p *PDU) writeOne(request []byte, address uint16, on bool) []byte {
	outlet, ok := p.outletAt(p.product.Switch, address)
	if !ok || p.product.Switch.FC.Value != uint16(request[0]) {
		return exception(request[0], illegalAddress)
	}
	p.move(outlet, on)
	return request
}

func (p *PDU) writeCoils(request []byte) []byte {
	if len(request) < 7 {
		return exception(15, illegalValue)
	}
	address, count := binary.BigEndian.Uint16(request[1:]), int(binary.BigEndian.Uint16(request[3:]))
	bits := request[6:]
	if count < 1 || int(request[5]) != len(bits) || len(bits) != (count+7)/8 {
		return exception(15, illegalValue)
	}
	if p.product.Switch == nil || p.product.Switch.FC.Value != 5 || int(address)+count > 1<<16 {
		return exception(15, illegalAddress)
	}
	outlets := make([]int, count)
	for i := range outlets {
		outlet, ok := p.outletAt(p.product.Switch, address+uint16(i))
		if !ok {
			return exception(15, illegalAddress)
		}
		outlets[i] = outlet
	}
	for i, outlet := range outlets {
		p.move(outlet, bits[i/8]&(1<<(i%8)) != 0)
	}
	return request[:5]
}

// reads says how an outlet reads: as its relay stands, unless its contacts are welded.
func (p *PDU) reads(outlet int, faults PDUFaults) bool {
	return p.Outlet(outlet) && !slices.Contains(faults.Lying, outlet)
}

func (p *PDU) readBits(function byte, address uint16, count int, faults PDUFaults) []byte {
	a := p.product.Read
	if count < 1 || count > 2000 {
		return exception(function, illegalValue)
	}
	if a == nil || a.FC.Value != uint16(function) {
		return exception(function, illegalAddress)
	}
	reply := append([]byte{function, byte((count + 7) / 8)}, make([]byte, (count+7)/8)...)
	for i := range count {
		outlet, ok := p.outletAt(a, address+uint16(i))
		switch {
		case ok && p.reads(outlet, faults):
			reply[2+i/8] |= 1 << (i % 8)
		case !ok && !between(a, address+uint16(i), len(p.relays)):
			return exception(function, illegalAddress)
		}
	}
	return reply
}

// between says whether an address lies between two outlets of a map with gaps.
func between(a *pdu.Access, address uint16, outlets int) bool {
	return a.Base.Known() && a.Stride.Known() && address >= a.Base.Value && int(address) <= int(a.Address(outlets))
}

func (p *PDU) readRegisters(function byte, address uint16, count int, faults PDUFaults) []byte {
	if count < 1 || count > 125 {
		return exception(function, illegalValue)
	}
	reply := append([]byte{function, byte(2 * count)}, make([]byte, 2*count)...)
	for i := range count {
		value, ok := p.register(function, address+uint16(i), faults)
		if !ok {
			return exception(function, illegalAddress)
		}
		binary.BigEndian.PutUint16(reply[2+2*i:], value)
	}
	return reply
}

func (p *PDU) register(function byte, address uint16, faults PDUFaults) (uint16, bool) {
	if id := p.product.Identify.Count; id != nil && id.FC.Value == uint16(function) && id.Address.Value == address {
		if faults.Identity != 0 {
			return uint16(faults.Identity), true
		}
		return uint16(len(p.relays)), true
	}
	if value, ok := p.meter(function, address, faults); ok {
		return value, true
	}
	a := p.product.Read
	if a == nil || a.FC.Value != uint16(function) || !between(a, address, len(p.relays)) {
		return 0, false
	}
	if outlet, ok := p.outletAt(a, address); ok && p.reads(outlet, faults) {
		return a.On.Value, true
	}
	return a.Off.Value, true
}

// meter is one register of an outlet's power.
func (p *PDU) meter(function byte, address uint16, faults PDUFaults) (uint16, bool) {
	m, ok := p.product.OutletMeter()
	if !ok || m.FC.Value != uint16(function) || address < m.Base.Value {
		return 0, false
	}
	word := (address - m.Base.Value) % m.Stride.Value
	outlet, ok := at(int(address-m.Base.Value-word), int(m.Stride.Value), len(p.relays))
	switch absent := p.product.Quirks.NoSensor; {
	case !ok || word >= m.Type.Words():
		return 0, false
	case faults.NoMeter && absent != nil:
		return absent.Value, true
	case faults.NoMeter:
		return 0, false
	case faults.Garbage:
		return 0xffff, true // no number as a float, and more than any outlet gives
	}
	value := p.watts(outlet) * float64(m.Divisor.Value)
	raw := uint32(value)
	switch m.Type {
	case pdu.U16:
		return uint16(raw), true
	case pdu.F32, pdu.F32Low:
		raw = math.Float32bits(float32(value))
	case pdu.U32, pdu.U32Low:
	}
	low := m.Type == pdu.U32Low || m.Type == pdu.F32Low
	if (word == 0) != low {
		return uint16(raw >> 16), true
	}
	return uint16(raw), true
}

const (
	fcDevice  = 0x2b // Read Device Identification, with MEI type 0x0e
	meiDevice = 0x0e
)

// device tells company, product and version, one object an answer, as small devices do.
func (p *PDU) device(request []byte, faults PDUFaults) []byte {
	if len(request) != 4 || request[1] != meiDevice || request[2] != 1 || request[3] > 2 {
		return exception(fcDevice, illegalValue)
	}
	object := request[3]
	text := p.cfg.Device[object]
	if object == 1 && faults.Product != "" {
		text = faults.Product
	}
	more, next := byte(0xff), object+1
	if object == 2 {
		more, next = 0, 0
	}
	return append([]byte{fcDevice, meiDevice, 1, 1, more, next, 1, object, byte(len(text))}, text...)
}
