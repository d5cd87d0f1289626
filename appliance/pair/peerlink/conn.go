package peerlink

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"duet/witness/pinned"
)

// Limits of one connection.
const (
	writeQueue = 512 // frames; a full one means a path that carries nothing: it is closed and dialed again
	maxPending = 8   // connections on one path that have not greeted yet
)

// conn is one authenticated connection: a reader and a writer.
type conn struct {
	lane   *lane
	tls    *tls.Conn
	key    ed25519.PublicKey
	greet  greeting
	writes chan frame
	once   sync.Once
	gone   chan struct{}
}

// enqueue never waits; false: the path does not carry what it should.
func (c *conn) enqueue(f frame) bool {
	select {
	case c.writes <- f:
		return true
	default:
		return false
	}
}

func (c *conn) close() {
	c.once.Do(func() {
		close(c.gone)
		_ = c.tls.NetConn().Close() // not a TLS close: its alert could wait for a dead path
	})
}

func (c *conn) writeLoop(timeout time.Duration) {
	var buf []byte
	for {
		select {
		case <-c.gone:
			return
		case f := <-c.writes:
			buf = f.append(buf[:0])
			for more := true; more; { // what waits goes out together
				select {
				case f := <-c.writes:
					buf = f.append(buf)
				default:
					more = false
				}
			}
			_ = c.tls.SetWriteDeadline(time.Now().Add(timeout))
			if _, err := c.tls.Write(buf); err != nil {
				c.close()
				return
			}
		}
	}
}

// serve runs an open connection to its end.
func (l *Link) serve(ctx context.Context, c *conn, g frame) error {
	defer c.close()
	stop := context.AfterFunc(ctx, c.close)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.close()
	wg.Go(func() { c.writeLoop(l.cfg.Timing.PeerLost) })
	if !l.arrival(ctx, arrival{conn: c, kind: opened, f: g}) {
		return ctx.Err()
	}
	defer l.arrival(ctx, arrival{conn: c, kind: closed})
	for {
		f, err := readFrame(c.tls, MaxBody)
		if err != nil {
			if errors.Is(err, errFrame) {
				l.refused(c.lane.path, c.tls.RemoteAddr(), err)
			}
			return err
		}
		if !l.arrival(ctx, arrival{conn: c, kind: arrived, f: f}) {
			return ctx.Err()
		}
	}
}

func (l *Link) arrival(ctx context.Context, a arrival) bool {
	select {
	case l.arrivals <- a:
		return true
	case <-ctx.Done():
		return false
	}
}

// greetOver does the TLS handshake and exchanges greetings; every step has a deadline.
func (l *Link) greetOver(ctx context.Context, path int, raw net.Conn) (*conn, frame, error) {
	limit := l.cfg.Timing.DialTimeout
	if err := raw.SetDeadline(time.Now().Add(2 * limit)); err != nil {
		return nil, frame{}, err
	}
	cfg, err := pinned.Server(l.cfg.Key, func(key ed25519.PublicKey) error { return l.trust(path, key) })
	if err != nil {
		return nil, frame{}, err
	}
	var tc *tls.Conn
	if l.cfg.Node == 0 {
		cfg.InsecureSkipVerify = true // the raw key is what counts: VerifyConnection has checked it
		tc = tls.Client(raw, cfg)
	} else {
		tc = tls.Server(raw, cfg)
	}
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, frame{}, fmt.Errorf("handshake: %w", err)
	}
	key, err := pinned.PeerKey(tc.ConnectionState())
	if err != nil {
		return nil, frame{}, err
	}
	l.mu.Lock()
	mine := l.self
	pin := l.pin
	l.mu.Unlock()
	mine.body = greeting{version: protocolVersion, node: l.cfg.Node, site: pin.Site, serial: l.cfg.Serial}.append(nil)
	if _, err := tc.Write(mine.append(nil)); err != nil {
		return nil, frame{}, fmt.Errorf("greeting: %w", err)
	}
	f, err := readFrame(tc, maxGreeting)
	if err != nil {
		return nil, frame{}, fmt.Errorf("greeting: %w", err)
	}
	if f.kind != kindGreeting {
		return nil, frame{}, fmt.Errorf("%w: kind %d instead of a greeting", errFrame, f.kind)
	}
	g, err := parseGreeting(f.body)
	if err != nil {
		return nil, frame{}, err
	}
	c := &conn{tls: tc, key: key, greet: g, writes: make(chan frame, writeQueue), gone: make(chan struct{})}
	c.lane = &lane{conn: c, path: path}
	if err := l.admit(c); err != nil {
		return nil, frame{}, err
	}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		l.leave(c)
		return nil, frame{}, err
	}
	return c, f, nil
}

// trust decides on a key during the handshake.
func (l *Link) trust(path int, key ed25519.PublicKey) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case bytes.Equal(key, l.cfg.Key.Public().(ed25519.PublicKey)):
		return refuse(OwnKey, "the other side has this node's own key")
	case l.pin.Key != nil && !l.pin.Key.Equal(key):
		return refuse(WrongKey, "not the peer's key: %s", pinned.FormatKey(key))
	case l.pin.Key == nil && !l.cfg.Paths[path].Chassis:
		return refuse(UnknownKey, "this node knows no peer yet, and this path does not stay inside the chassis")
	}
	return nil
}

// admit decides on a greeting and counts the connection in.
func (l *Link) admit(c *conn) error {
	g := c.greet
	l.mu.Lock()
	defer l.mu.Unlock()
	var zero [16]byte
	switch {
	case g.version != protocolVersion:
		return refuse(OtherVersion, "protocol version %d, this node speaks %d", g.version, protocolVersion)
	case g.node == l.cfg.Node:
		return refuse(OwnSlot, "the other side is node %c too", 'a'+rune(g.node))
	case l.pin.Key != nil && !l.pin.Key.Equal(c.key): // pinned since the handshake
		return refuse(WrongKey, "not the peer's key")
	case l.pin.Key == nil && g.serial != l.cfg.Serial:
		return refuse(OtherChassis, "chassis %q, this one is %q", g.serial, l.cfg.Serial)
	case g.site != zero && l.pin.Site != zero && g.site != l.pin.Site:
		return refuse(OtherSite, "it belongs to site %x", g.site)
	}
	for o := range l.seen {
		if !o.key.Equal(c.key) {
			return refuse(SecondPeer, "another peer is connected")
		}
	}
	l.seen[c] = struct{}{}
	p := &l.paths[c.lane.path]
	p.PeerKey, p.Serial, p.Fresh = c.key, g.serial, g.site == zero
	return nil
}

func (l *Link) leave(c *conn) {
	c.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.seen, c)
}

// refused counts and tells that somebody was turned away.
func (l *Link) refused(path int, who net.Addr, err error) {
	reason := reasonOf(err)
	l.mu.Lock()
	l.paths[path].Refused++
	l.reasons[reason]++
	l.mu.Unlock()
	r := Refusal{From: who.String(), Path: l.cfg.Paths[path].Name, Reason: reason, Why: err.Error()}
	select {
	case l.refusals <- r:
	default:
	}
}

// run takes a fresh TCP connection to its end; greeted is called when it has proved itself or was turned away.
func (l *Link) run(ctx context.Context, path int, raw net.Conn, greeted func()) (admitted bool, err error) {
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	c, g, err := l.greetOver(ctx, path, raw)
	stop()
	greeted()
	if err != nil {
		if isRefusal(err) {
			l.refused(path, raw.RemoteAddr(), err)
		}
		return false, err
	}
	defer l.leave(c)
	return true, l.serve(ctx, c, g)
}

// isRefusal tells a stranger from a cable that was pulled: an end of file or a timeout accuses nobody.
func isRefusal(err error) bool {
	var noTLS tls.RecordHeaderError
	var op *net.OpError
	return errors.Is(err, errRefused) || errors.Is(err, errFrame) || errors.As(err, &noTLS) ||
		errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error") // TLS alerts
}

func (l *Link) dialPath(ctx context.Context, path int) {
	p := l.cfg.Paths[path]
	wait := l.cfg.Timing.BackoffMin
	for ctx.Err() == nil {
		if !l.mayUse(path) {
			pause(ctx, l.cfg.Timing.BackoffMin)
			continue
		}
		raw, err := dial(ctx, p, l.cfg.Port, l.cfg.Timing.DialTimeout)
		admitted := false
		if err == nil {
			admitted, err = l.run(ctx, path, raw, func() {})
		}
		l.failed(path, err)
		wait = min(2*wait, l.cfg.Timing.BackoffMax)
		if admitted {
			wait = l.cfg.Timing.BackoffMin
		}
		pause(ctx, wait)
	}
}

// mayUse: before a peer is pinned only a path inside the chassis can lead to one.
func (l *Link) mayUse(path int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pin.Key != nil || l.cfg.Paths[path].Chassis
}

func dial(ctx context.Context, p Path, port int, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	if local := net.ParseIP(p.Local); local != nil { // a zone goes with the peer's address
		d.LocalAddr = &net.TCPAddr{IP: local}
	}
	to, err := endpoint(p.Peer, port)
	if err != nil {
		return nil, err
	}
	return d.DialContext(ctx, "tcp", to)
}

// endpoint names the zone of a link-local address by the interface's present index: package net remembers the index of
// a name for a minute, and a cable that is plugged again has another one.
func endpoint(addr string, port int) (string, error) {
	index, err := interfaceIndex(addr)
	if err != nil {
		return "", fmt.Errorf("interface of %s: %w", addr, err)
	}
	if ip, _, ok := strings.Cut(addr, "%"); ok {
		addr = ip + "%" + strconv.Itoa(index)
	}
	return net.JoinHostPort(addr, strconv.Itoa(port)), nil
}

func (l *Link) failed(path int, err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("closed by the other side")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paths[path].Error = err.Error()
}

func (l *Link) listenPath(ctx context.Context, path int) {
	wait := l.cfg.Timing.BackoffMin
	for ctx.Err() == nil {
		began := time.Now()
		l.failed(path, l.listenOnce(ctx, path))
		wait = min(2*wait, l.cfg.Timing.BackoffMax)
		if time.Since(began) > l.cfg.Timing.BackoffMax {
			wait = l.cfg.Timing.BackoffMin
		}
		pause(ctx, wait)
	}
}

// listenOnce listens until the listener breaks or the interface under it was replaced.
func (l *Link) listenOnce(ctx context.Context, path int) error {
	p := l.cfg.Paths[path]
	index, err := interfaceIndex(p.Local)
	if err != nil {
		return err
	}
	at, err := endpoint(p.Local, l.cfg.Port)
	if err != nil {
		return err
	}
	lc := net.ListenConfig{}
	ln, err := lc.Listen(ctx, "tcp", at)
	if err != nil {
		return err
	}
	tcp := ln.(*net.TCPListener)
	defer tcp.Close()
	stop := context.AfterFunc(ctx, func() { _ = tcp.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	pending := make(chan struct{}, maxPending)
	for {
		if err := tcp.SetDeadline(time.Now().Add(l.cfg.Timing.BackoffMax)); err != nil {
			return err
		}
		raw, err := tcp.Accept()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// A pulled cable may take its interface along; the listener then waits on an interface that no longer
			// exists, without an error.
			if now, err := interfaceIndex(p.Local); err != nil || now != index {
				return fmt.Errorf("interface of %s changed", p.Local)
			}
			continue
		}
		if err != nil {
			return err
		}
		l.acceptOne(inner, &wg, pending, path, raw)
	}
}

func (l *Link) acceptOne(ctx context.Context, wg *sync.WaitGroup, pending chan struct{}, path int, raw net.Conn) {
	select {
	case pending <- struct{}{}:
	default:
		l.refused(path, raw.RemoteAddr(), refuse(TooMany, "%d connections have not greeted yet", maxPending))
		_ = raw.Close()
		return
	}
	wg.Go(func() {
		_, err := l.run(ctx, path, raw, func() { <-pending })
		l.failed(path, err)
	})
}

// interfaceIndex is the index of the zone of an address; 0 without a zone.
func interfaceIndex(addr string) (int, error) {
	_, zone, ok := strings.Cut(addr, "%")
	if !ok {
		return 0, nil
	}
	ifc, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return ifc.Index, nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
