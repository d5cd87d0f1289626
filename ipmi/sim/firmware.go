package sim

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/bougou/go-ipmi/pkg/hal"
	"github.com/bougou/go-ipmi/pkg/types"
)

// packetQueue is the network of one run of the firmware: it ends with AC, while the socket of the BMC stays.
type packetQueue struct {
	ctx    context.Context
	cancel context.CancelFunc
	in     chan packet
	out    net.PacketConn
	delay  func() time.Duration
}

type packet struct {
	data []byte
	from net.Addr
}

const queuedPackets = 64 // a burst; more is dropped, as a socket buffer would

func newPacketQueue(out net.PacketConn, delay func() time.Duration) *packetQueue {
	ctx, cancel := context.WithCancel(context.Background())
	return &packetQueue{ctx: ctx, cancel: cancel, in: make(chan packet, queuedPackets), out: out, delay: delay}
}

func (q *packetQueue) put(data []byte, from net.Addr) {
	select {
	case q.in <- packet{data, from}:
	default:
	}
}

func (q *packetQueue) close() { q.cancel() }

// ReadFrom is the firmware's receive.
func (q *packetQueue) ReadFrom(buf []byte) (int, net.Addr, error) {
	select {
	case p := <-q.in:
		return copy(buf, p.data), p.from, nil
	case <-q.ctx.Done():
		return 0, nil, net.ErrClosed
	}
}

// WriteTo is the firmware's send; a slow BMC's answer leaves later, a dead one's not at all.
func (q *packetQueue) WriteTo(data []byte, to net.Addr) (int, error) {
	wait := q.delay()
	if q.ctx.Err() != nil {
		return 0, net.ErrClosed
	}
	if wait <= 0 {
		return q.out.WriteTo(data, to)
	}
	held := append([]byte(nil), data...)
	time.AfterFunc(wait, func() {
		if q.ctx.Err() == nil {
			_, _ = q.out.WriteTo(held, to) //nolint:errcheck // UDP: nobody learns of a lost datagram
		}
	})
	return len(data), nil
}

// Close ends the run.
func (q *packetQueue) Close() error { q.cancel(); return nil }

// hardware is what the firmware finds on its board: a chassis and nothing else.
type hardware struct{ b *BMC }

func (h hardware) Chassis() hal.ChassisHAL { return chassis(h) }
func (hardware) Sensors() hal.SensorHAL    { return nil }
func (hardware) Storage() hal.StorageHAL   { return nil }
func (hardware) Network() hal.NetworkHAL   { return nil }
func (hardware) GPIO() hal.GPIOHAL         { return nil }
func (hardware) I2C() hal.I2CHAL           { return nil }
func (hardware) Console() hal.ConsoleHAL   { return nil }
func (hardware) Close() error              { return nil }

type chassis struct{ b *BMC }

var errRefused = errors.New("the BMC refuses to switch")

func (c chassis) PowerState(context.Context) (bool, error) {
	switch c.b.Faults().Lie {
	case SaysOff:
		return false, nil
	case SaysOn:
		return true, nil
	default:
		return c.b.cfg.Chassis.Powered(), nil
	}
}

func (c chassis) SetPower(_ context.Context, on bool) error {
	faults := c.b.Faults()
	switch {
	case faults.Refuse:
		return errRefused
	case on:
		return c.b.cfg.Chassis.PowerOn()
	case faults.OffIgnored:
		return nil
	case faults.OffLate > 0:
		time.AfterFunc(faults.OffLate, func() { _ = c.b.cfg.Chassis.PowerOff() }) //nolint:errcheck // accepted: its failure is never told
		return nil
	default:
		return c.b.cfg.Chassis.PowerOff()
	}
}

// PowerCycle is an error on a node that is off, as on many BMCs (ClusterLabs/fence-agents#596).
func (c chassis) PowerCycle(ctx context.Context) error {
	if !c.b.cfg.Chassis.Powered() {
		return errRefused
	}
	return errors.Join(c.SetPower(ctx, false), c.SetPower(ctx, true))
}

func (c chassis) ColdReset(ctx context.Context) error { return c.PowerCycle(ctx) }

func (chassis) WarmReset(context.Context) error              { return hal.ErrNotSupported }
func (chassis) Identify(context.Context, uint8) error        { return nil }
func (chassis) IntrusionState(context.Context) (bool, error) { return false, hal.ErrNotSupported }

func (chassis) SetBootFlags(context.Context, *types.BootOptionParam_BootFlags) error {
	return hal.ErrNotSupported
}

func (chassis) GetBootFlags(context.Context) (*types.BootOptionParam_BootFlags, error) {
	return nil, hal.ErrNotSupported
}

func (chassis) SetBootInfoAcknowledge(context.Context, *types.BootOptionParam_BootInfoAcknowledge) error {
	return hal.ErrNotSupported
}

func (chassis) GetBootInfoAcknowledge(context.Context) (*types.BootOptionParam_BootInfoAcknowledge, error) {
	return nil, hal.ErrNotSupported
}
