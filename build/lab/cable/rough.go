package cable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Rough is a bad stretch between a port and its switch: every frame arrives later, and some never do. It does what
// netem would on a kernel that has it: the port leaves the switch, and frames are carried by hand between it and a veth
// that takes its place (lab.md section 7).
//
// ARP passes at once and unharmed: behind a real bad line is a router, which answers a node's ARP on the node's own
// LAN. With 5 s of delay the kernel would otherwise give up the address before it ever sent the packet.
type Rough struct {
	outer, sw string
	ways      [2]*way
	wg        sync.WaitGroup
	carried   atomic.Uint64
	lost      atomic.Uint64
}

// The veth that takes the port's place, and how many frames may be on the way in one direction.
const (
	roughSwitch   = "rough-switch"
	roughFar      = "rough-far"
	roughQueueMax = 4096
)

// virtio_net_hdr, which PACKET_VNET_HDR puts before every frame: without it the checksum and the segmentation that veth
// leaves undone would be lost on the way.
const (
	vnetHeader = 10
	frameMax   = vnetHeader + 14 + 4 + 65536
)

// way is one direction.
type way struct {
	from, to *os.File
	delay    time.Duration
	loss     float64
	random   *rand.Rand
	frames   chan late
	end      chan struct{}
}

type late struct {
	due   time.Time
	frame []byte
}

// Roughen makes the way of a port rough: each frame is late by delay and lost with probability loss (0 to 1), in both
// directions, each by itself. One port of the lab may be rough at a time.
func Roughen(outer, sw string, delay time.Duration, loss float64, random func() *rand.Rand) (_ *Rough, err error) {
	r := &Rough{outer: outer, sw: sw}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("rough way to %s: %w", outer, err), r.Smooth())
		}
	}()
	br, err := netlink.LinkByName(sw)
	if err != nil {
		return nil, err
	}
	port, err := netlink.LinkByName(outer)
	if err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = roughSwitch, br.Attrs().Index
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: roughFar}); err != nil {
		return nil, err
	}
	for _, name := range []string{roughSwitch, roughFar} {
		if err := SetCarrier(name, true); err != nil {
			return nil, err
		}
	}
	if err := netlink.LinkSetNoMaster(port); err != nil {
		return nil, err
	}
	far, err := netlink.LinkByName(roughFar)
	if err != nil {
		return nil, err
	}
	return r, r.carry(port.Attrs().Index, far.Attrs().Index, delay, loss, random)
}

// carry opens both ends and starts both directions.
func (r *Rough) carry(near, far int, delay time.Duration, loss float64, random func() *rand.Rand) error {
	a, err := tap(near)
	if err != nil {
		return err
	}
	b, err := tap(far)
	if err != nil {
		return errors.Join(err, a.Close())
	}
	for i, ends := range [2][2]*os.File{{a, b}, {b, a}} {
		w := &way{
			from: ends[0], to: ends[1], delay: delay, loss: loss, random: random(),
			frames: make(chan late, roughQueueMax), end: make(chan struct{}),
		}
		r.ways[i] = w
		r.wg.Go(func() { r.take(w) })
		r.wg.Go(w.give)
	}
	return nil
}

// tap is a raw socket on an interface that sees what arrives there, and only that.
func tap(index int) (*os.File, error) {
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)) // htons
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}))
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "packet"), nil
}

// take receives until the socket is closed.
func (r *Rough) take(w *way) {
	buf := make([]byte, frameMax)
	for {
		n, err := w.from.Read(buf)
		if errors.Is(err, unix.ENETDOWN) { // said once when a carrier goes; the socket lives on
			continue
		}
		if err != nil {
			return
		}
		frame := append([]byte(nil), buf[:n]...)
		if n >= vnetHeader+14 && binary.BigEndian.Uint16(frame[vnetHeader+12:]) == unix.ETH_P_ARP {
			_, _ = w.to.Write(frame) // a frame that the switch does not take is lost, as on any line
			continue
		}
		if w.random.Float64() < w.loss {
			r.lost.Add(1)
			continue
		}
		select {
		case w.frames <- late{time.Now().Add(w.delay), frame}:
			r.carried.Add(1)
		default: // the line is full
			r.lost.Add(1)
		}
	}
}

// give sends each frame when its time has come. The delay is constant, so frames stay in order.
func (w *way) give() {
	for {
		select {
		case f := <-w.frames:
			select {
			case <-time.After(time.Until(f.due)):
				_, _ = w.to.Write(f.frame) // see take
			case <-w.end:
				return
			}
		case <-w.end:
			return
		}
	}
}

// Counts says how many frames were carried and lost.
func (r *Rough) Counts() (carried, lost uint64) { return r.carried.Load(), r.lost.Load() }

// Smooth takes the bad stretch away and puts the port back into its switch; frames that are still on the way are lost.
func (r *Rough) Smooth() error {
	for _, w := range r.ways {
		if w != nil {
			close(w.end)
			w.from.Close() // wakes take; each socket is the "from" of one way
		}
	}
	r.wg.Wait()
	r.ways = [2]*way{}
	var failed error
	if link, err := netlink.LinkByName(roughSwitch); err == nil {
		failed = netlink.LinkDel(link)
	}
	br, err := netlink.LinkByName(r.sw)
	if err != nil {
		return errors.Join(failed, err)
	}
	port, err := netlink.LinkByName(r.outer)
	if err != nil {
		return errors.Join(failed, err)
	}
	return errors.Join(failed, netlink.LinkSetMaster(port, br))
}
