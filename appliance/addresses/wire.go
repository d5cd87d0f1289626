package addresses

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Times on the wire. RFC 5227 asks for seconds of probing; a database that waits is worse than the rare holder who is slower
// than this, and the probe is repeated by nobody who holds the address rightfully: what it serves has gates of its own.
const (
	probeEvery = 60 * time.Millisecond
	probeCount = 3
	probeWait  = 200 * time.Millisecond // from the first probe to "nobody answers"
	listenTick = 20 * time.Millisecond  // how often a listener looks whether anybody still waits
)

// announceAfter: at once, and twice again for a switch or a machine that was busy with the failure itself.
var announceAfter = [...]time.Duration{0, 100 * time.Millisecond, time.Second}

// line is a raw socket on an interface.
type line struct {
	fd  int
	mac net.HardwareAddr
}

// openLine hears frames of one kind (0: none) on the interface.
func openLine(name string, kind uint16) (*line, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	if len(i.HardwareAddr) != len(broadcast) {
		return nil, fmt.Errorf("interface %s is no Ethernet", name)
	}
	wire := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, kind)) // packet(7): in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(wire))
	if err != nil {
		return nil, fmt.Errorf("raw socket: %w", err)
	}
	tick := unix.NsecToTimeval(listenTick.Nanoseconds())
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: wire, Ifindex: i.Index}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("raw socket on %s: %w", name, err), unix.Close(fd))
	}
	return &line{fd, i.HardwareAddr}, nil
}

func (l *line) close() { _ = unix.Close(l.fd) } //nolint:errcheck // nothing is in it

func (l *line) send(frame []byte) error {
	if _, err := unix.Write(l.fd, frame); err != nil {
		return fmt.Errorf("raw socket: %w", err)
	}
	return nil
}

// whoHas asks for an address: the machine that answers, or nil after probeWait.
func whoHas(ctx context.Context, a Address) (net.HardwareAddr, error) {
	kind := uint16(etherARP)
	if a.IP.Is6() {
		kind = etherIPv6
	}
	l, err := openLine(a.Interface, kind)
	if err != nil {
		return nil, err
	}
	defer l.close()
	began := time.Now()
	buf := make([]byte, 2048)
	for asked := 0; ; {
		since := time.Since(began)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case since >= probeWait:
			return nil, nil
		case asked < probeCount && since >= time.Duration(asked)*probeEvery:
			asked++
			if err := l.send(probe(l.mac, a.IP)); err != nil {
				return nil, err
			}
		}
		n, err := unix.Read(l.fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("raw socket on %s: %w", a.Interface, err)
		}
		if holder := claims(buf[:n], l.mac, a.IP); holder != nil {
			return holder, nil
		}
	}
}

// announce once.
func announce(a Address) error {
	l, err := openLine(a.Interface, 0)
	if err != nil {
		return err
	}
	defer l.close()
	for _, frame := range announcements(l.mac, a.IP) {
		if err := l.send(frame); err != nil {
			return err
		}
	}
	return nil
}

// valid: a unicast address that can move between machines.
func valid(ip netip.Addr) bool {
	return ip.IsValid() && !ip.Is4In6() && ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLoopback() && !ip.IsLinkLocalUnicast()
}
