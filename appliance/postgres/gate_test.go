package postgres

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
	"duet/appliance/postgres/gatetest"
)

// forwarder is a gate in this process: it passes TCP connections to the server while its deadline lives, and cuts them at it
// without being asked, as a set element with a timeout in the kernel does.
type forwarder struct {
	listener net.Listener
	target   string
	mu       sync.Mutex
	open     bool
	until    membership.Boottime
	timer    *time.Timer
	conns    map[net.Conn]bool
}

func newForwarder(t *testing.T, target string) *forwarder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{listener: l, target: target, conns: map[net.Conn]bool{}}
	go f.serve()
	t.Cleanup(func() { l.Close(); f.set(false, 0) })
	return f
}

func (f *forwarder) addr() string { return f.listener.Addr().String() }

func (f *forwarder) set(open bool, until membership.Boottime) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	if open && until != 0 && until <= membership.Boottime(boottime.Now()) {
		open = false
	}
	f.open, f.until = open, until
	if !open {
		f.cut()
		return
	}
	if until == 0 {
		return
	}
	f.timer = time.AfterFunc(time.Duration(until)-time.Duration(boottime.Now()), func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.until == until && f.open {
			f.open = false
			f.cut()
		}
	})
}

// cut resets every connection; the caller holds mu.
func (f *forwarder) cut() {
	for c := range f.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		c.Close()
		delete(f.conns, c)
	}
}

func (f *forwarder) isOpen() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open
}

func (f *forwarder) serve() {
	for {
		c, err := f.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		go f.pass(c)
	}
}

func (f *forwarder) pass(c net.Conn) {
	if !f.isOpen() {
		f.drop(c)
		return
	}
	s, err := net.Dial("tcp", f.target)
	if err != nil {
		f.drop(c)
		return
	}
	f.mu.Lock()
	f.conns[c], f.conns[s] = true, true
	if !f.open {
		f.cut()
	}
	f.mu.Unlock()
	go func() { _, _ = io.Copy(s, c); f.end(c, s) }()
	_, _ = io.Copy(c, s)
	f.end(c, s)
}

func (f *forwarder) drop(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}

func (f *forwarder) end(pair ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range pair {
		c.Close()
		delete(f.conns, c)
	}
}

// gates are both gates of a node.
type gates [2]*forwarder

func (g gates) Set(which decide.Gate, open bool, until membership.Boottime) error {
	g[which].set(open, until)
	return nil
}

func (g gates) Open(which decide.Gate) bool { return g[which].isOpen() }

// addresses are two switches: this machine has no service addresses.
type addresses struct {
	mu   sync.Mutex
	held [2]bool
}

func (a *addresses) Set(which decide.Gate, add bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held[which] = add
	return nil
}

func (a *addresses) Held(which decide.Gate) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held[which]
}

// Proves: the gates of these tests do what the kernel's do (postgres/gate).
func TestForwarderConforms(t *testing.T) {
	gatetest.Conform(t, func(t *testing.T) gatetest.Site {
		echo, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { echo.Close() })
		go gatetest.Echo(echo)
		g := gates{newForwarder(t, echo.Addr().String()), newForwarder(t, echo.Addr().String())}
		return gatetest.Site{Gates: g, Dial: func(which decide.Gate) (net.Conn, error) {
			return net.DialTimeout("tcp", g[which].addr(), gatetest.Patience)
		}}
	})
}
