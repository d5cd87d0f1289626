package sim

import (
	"context"
	"encoding/binary"
	"io"
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

// answer carries one request out: function codes 1-6 and 15.
func (p *PDU) answer(request []byte, faults PDUFaults) []byte {
	function := request[0]
	if isWrite(function) && faults.Exception != 0 {
		return exception(function, faults.Exception)
	}
	if function == 15 {
		return p.writeCoils(request)
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
		if a.FC == 6 && value != a.On && value != a.Off {
			return exception(function, illegalValue)
		}
		return p.writeOne(request, address, value == a.On)
	}
}

// writeOne is functions 5 and 6: the answer repeats the request.
func (p *PDU) writeOne(request []byte, address uint16, on bool) []byte {
	outlet, ok := p.outletAt(p.product.Switch, address)
	if !ok || p.product.Switch.FC != request[0] {
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
	if p.product.Switch.FC != 5 || int(address)+count > 1<<16 {
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
	if a.FC != function {
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
func between(a pdu.Access, address uint16, outlets int) bool {
	return address >= a.Base && int(address) <= int(a.Address(outlets))
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
	if id := p.product.Identify; id.FC == function && id.Address == address {
		if faults.Identity != 0 {
			return uint16(faults.Identity), true
		}
		return uint16(len(p.relays)), true
	}
	a := p.product.Read
	if a.FC != function || !between(a, address, len(p.relays)) {
		return 0, false
	}
	if outlet, ok := p.outletAt(a, address); ok && p.reads(outlet, faults) {
		return a.On, true
	}
	return a.Off, true
}
