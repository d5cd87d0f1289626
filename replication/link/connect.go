package link

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"duet/replication/control"
	"duet/replication/internal/pinned"
)

// Times of connecting. All of it must fit into the 1.5 s after which the session ends without a lane.
const (
	dialTimeout    = 300 * time.Millisecond // per path, for TCP
	tlsTimeout     = 1 * time.Second        // a stranger's handshake
	helloTimeout   = 2 * time.Second        // the acceptor may wait that long for its own grant
	redialFirst    = 50 * time.Millisecond
	redialMax      = 1 * time.Second
	relistenEvery  = 200 * time.Millisecond // address or cable not there; also the check that it still is
	maxStrangers   = 8                      // connections that have not proved a key and a session
	helloMaxBytes  = 4096
	userTimeoutMS  = 750
	protocolOldest = 1
	protocolNewest = 1
)

var errMismatch = errors.New("site, node, session or epoch of the peer differ")

// hello opens an incarnation; both sides send one.
type hello struct {
	Site     string
	Node     control.Node
	Boot     string
	Process  string
	Session  uint64
	Epoch    uint64
	Prepared uint64
	Min, Max int // protocol versions
	Nonce    [16]byte
	Clear    bool // this side wants to go on without encryption
}

// end is one configuration of one side.
type end struct {
	link   *Link
	config Config
	tls    *tls.Config
}

// dial is node a: keep a lane whenever the grant has a session.
func (e *end) dial(ctx context.Context) {
	pause := redialFirst
	for ctx.Err() == nil {
		right, changed := e.link.watchRight()
		if right.Session == 0 {
			pause = redialFirst
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		if e.try(ctx, right) {
			pause = redialFirst
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			pause = min(2*pause, redialMax)
		case <-changed:
			pause = redialFirst
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// try goes through the paths and serves the first lane that comes up to its end.
func (e *end) try(ctx context.Context, right Right) bool {
	for _, p := range e.config.Paths {
		conn, err := e.dialPath(ctx, p)
		if err != nil {
			continue
		}
		lane, err := e.greetWhile(ctx, tls.Client(newSocket(conn), e.tls), p, right)
		if err != nil {
			conn.Close()
			e.note(err, conn.RemoteAddr())
			continue
		}
		e.link.serve(ctx, lane)
		return true
	}
	return false
}

func (e *end) dialPath(ctx context.Context, p control.Path) (net.Conn, error) {
	local, peer, err := addresses(p)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: dialTimeout, Control: tune, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))}
	return d.DialContext(ctx, "tcp", netip.AddrPortFrom(peer, uint16(e.config.Port)).String())
}

// addresses parses a path; a link-local peer without a zone is on the local address's link.
func addresses(p control.Path) (local, peer netip.Addr, err error) {
	if local, err = netip.ParseAddr(p.Local); err != nil {
		return local, peer, fmt.Errorf("path %s: %w", p.Name, err)
	}
	if peer, err = netip.ParseAddr(p.Peer); err != nil {
		return local, peer, fmt.Errorf("path %s: %w", p.Name, err)
	}
	if peer.IsLinkLocalUnicast() && peer.Zone() == "" {
		peer = peer.WithZone(local.Zone())
	}
	if local, err = numbered(local); err == nil {
		peer, err = numbered(peer)
	}
	return local, peer, err
}

// numbered names the zone by the interface's present index. Package net remembers the index of a name for a
// minute, and a cable that is plugged again has another one.
func numbered(a netip.Addr) (netip.Addr, error) {
	if a.Zone() == "" {
		return a, nil
	}
	i := zoneIndex(a)
	if i <= 0 {
		return a, fmt.Errorf("no interface %s", a.Zone())
	}
	return a.WithZone(strconv.Itoa(i)), nil
}

// listen is node b: one listener per path, for ever.
func (e *end) listen(ctx context.Context, p control.Path) {
	for ctx.Err() == nil {
		if local, _, err := addresses(p); err == nil {
			e.listenOnce(ctx, p, local) // until its interface is another one
		}
		select {
		case <-time.After(relistenEvery):
		case <-ctx.Done():
		}
	}
}

func (e *end) listenOnce(ctx context.Context, p control.Path, local netip.Addr) {
	lc := net.ListenConfig{Control: tune}
	l, err := lc.Listen(ctx, "tcp", netip.AddrPortFrom(local, uint16(e.config.Port)).String())
	if err != nil {
		return // EADDRNOTAVAIL while the cable is out
	}
	done := make(chan struct{})
	go func() {
		defer l.Close()
		tick := time.NewTicker(relistenEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
				// A socket is bound to an interface index; a replaced interface has another one.
				if now, _, err := addresses(p); err != nil || now != local {
					return
				}
			}
		}
	}()
	defer close(done)
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		e.admit(conn)
		e.link.spawn(func() { e.accept(ctx, conn, p) })
	}
}

func zoneIndex(a netip.Addr) int {
	i, err := net.InterfaceByName(a.Zone())
	if err != nil {
		return -1
	}
	return i.Index
}

// admit makes room for a stranger by dropping the oldest one.
func (e *end) admit(conn net.Conn) {
	l := e.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) >= maxStrangers {
		l.waiting[0].Close()
		l.waiting = l.waiting[1:]
		l.Counters.Dropped.Add(1)
	}
	l.waiting = append(l.waiting, conn)
}

func (e *end) leave(conn net.Conn) {
	l := e.link
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, c := range l.waiting {
		if c == conn {
			l.waiting = append(l.waiting[:i:i], l.waiting[i+1:]...)
			return
		}
	}
}

func (e *end) accept(ctx context.Context, conn net.Conn, path control.Path) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	lane, err := e.welcome(ctx, tls.Server(newSocket(conn), e.tls), path)
	stop()
	e.leave(conn)
	if err != nil {
		conn.Close()
		e.note(err, conn.RemoteAddr())
		return
	}
	e.link.serve(ctx, lane)
}

// note counts why a connection did not become a lane.
func (e *end) note(err error, remote net.Addr) {
	switch {
	case errors.Is(err, pinned.ErrWrongKey):
		e.link.wrongKey(remote)
	case errors.Is(err, errMismatch):
		e.link.Counters.Mismatched.Add(1)
	default:
		e.link.Counters.Strangers.Add(1)
	}
}

// greetWhile gives up as soon as the right changes: the peer may hold our hello back for a session that is over.
func (e *end) greetWhile(ctx context.Context, conn *tls.Conn, path control.Path, right Right) (*Lane, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	now, changed := e.link.watchRight()
	if now != right {
		return nil, errMismatch
	}
	go func() {
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	}()
	return e.greet(ctx, conn, path, right)
}

// greet is the dialing side of the handshake.
func (e *end) greet(ctx context.Context, conn *tls.Conn, path control.Path, right Right) (*Lane, error) {
	stop := context.AfterFunc(ctx, func() { closeRaw(conn) })
	defer stop()
	conn.SetDeadline(time.Now().Add(tlsTimeout))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(helloTimeout + tlsTimeout))
	mine, err := e.sendHello(conn, path, right)
	if err != nil {
		return nil, err
	}
	theirs, err := readHello(conn)
	if err != nil {
		return nil, err
	}
	return e.lane(conn, path, mine, theirs, right)
}

// welcome is the accepting side. The dialer may know of the session first, so its hello waits until this node's
// grant has it too (protocol.md 5.2).
func (e *end) welcome(ctx context.Context, conn *tls.Conn, path control.Path) (*Lane, error) {
	conn.SetDeadline(time.Now().Add(tlsTimeout))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	theirs, err := readHello(conn)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(helloTimeout + tlsTimeout))
	right, err := e.awaitRight(ctx, theirs.right())
	if err != nil {
		return nil, err
	}
	mine, err := e.sendHello(conn, path, right)
	if err != nil {
		return nil, err
	}
	return e.lane(conn, path, mine, theirs, right)
}

func (h hello) right() Right { return Right{h.Session, h.Epoch, h.Prepared} }

func (e *end) awaitRight(ctx context.Context, theirs Right) (Right, error) {
	deadline := time.NewTimer(helloTimeout)
	defer deadline.Stop()
	for {
		right, changed := e.link.watchRight()
		if right.meets(theirs) {
			return right, nil
		}
		select {
		case <-changed:
		case <-deadline.C:
			return right, fmt.Errorf("%w: session %d here, %d there", errMismatch, right.Session, theirs.Session)
		case <-ctx.Done():
			return right, ctx.Err()
		}
	}
}

func (e *end) sendHello(conn net.Conn, path control.Path, right Right) (hello, error) {
	h := hello{
		Site: e.config.Site, Node: e.config.Node, Boot: e.config.Boot, Process: e.config.Process,
		Session: right.Session, Epoch: right.Epoch, Prepared: right.Prepared,
		Min: protocolOldest, Max: protocolNewest, Clear: path.Clear,
	}
	rand.Read(h.Nonce[:])
	b, err := json.Marshal(h)
	if err != nil {
		return h, err
	}
	f := &Frame{Type: Hello, Payload: b}
	_, err = conn.Write(append(f.appendHeader(nil), b...))
	return h, err
}

func readHello(conn net.Conn) (hello, error) {
	var h hello
	r := &reader{r: conn, get: func(n int) []byte { return make([]byte, n) }, put: func([]byte) {}}
	f, err := r.next(helloMaxBytes)
	if err != nil {
		return h, err
	}
	if f.Type != Hello || f.Sequence != 0 || f.Incarnation != 0 {
		return h, fmt.Errorf("%w: not a hello", ErrFrame)
	}
	if err := json.Unmarshal(f.Payload, &h); err != nil {
		return h, fmt.Errorf("%w: hello: %w", ErrFrame, err)
	}
	return h, nil
}

// lane checks both hellos; both nonces make the incarnation.
func (e *end) lane(conn *tls.Conn, path control.Path, mine, theirs hello, right Right) (*Lane, error) {
	switch {
	case theirs.Site != mine.Site, theirs.Node != mine.Node^1, !right.meets(theirs.right()):
		return nil, errMismatch
	case theirs.Min > mine.Max || theirs.Max < mine.Min:
		return nil, fmt.Errorf("%w: protocol %d-%d", errMismatch, theirs.Min, theirs.Max)
	case theirs.Nonce == mine.Nonce:
		return nil, fmt.Errorf("%w: own nonce reflected", errMismatch)
	}
	a, b := mine, theirs
	if mine.Node != 0 {
		a, b = theirs, mine
	}
	sum := sha256.Sum256(append(a.Nonce[:], b.Nonce[:]...))
	conn.SetDeadline(time.Time{})
	// The peer sends nothing on the lane before both hellos are out, and each is the last record of its side.
	l := newLane(conn, e.link, mine.Clear && theirs.Clear)
	l.Session, l.Path, l.Clear = right.Session, path.Name, mine.Clear && theirs.Clear
	l.Incarnation = binary.LittleEndian.Uint64(sum[:])
	l.PeerBoot, l.PeerProcess = theirs.Boot, theirs.Process
	return l, nil
}

// tune sets what a lane's socket needs; TCP_NODELAY is Go's default.
func tune(_, _ string, c syscall.RawConn) error {
	var sockErr error
	err := c.Control(func(fd uintptr) {
		sockErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, userTimeoutMS)
		if e := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); sockErr == nil {
			sockErr = e
		}
	})
	return errors.Join(err, sockErr)
}
