// Package link keeps the data lane between the two nodes: one TCP connection with TLS 1.3 and pinned keys, on
// the first path that works, for as long as both nodes' grants name the same session.
//
// It promises that a lane carries frames in order and unchanged, each once, of one session and one incarnation;
// that everything sent with a result gets exactly one result, ErrLost if the lane ended first; and that a lane
// is up only between two daemons that proved the pinned keys and named the same site, session and epoch. A
// lane that was silent for 750 ms is lost.
//
// It refuses to repair anything: a gap, a bad sum, a foreign session or epoch, an oversized frame close the
// connection and are counted. Starting again is cheap, a wrong guess is not. There is no resending here: what
// was in flight when a lane ended is the engine's to decide (replication.md 10.1).
//
// Node a dials along the paths, node b listens on all of them. Addresses and cables come and go, so listening
// is tried again until it works, and a listener whose interface was replaced is replaced too. Strangers on the
// port cost one of a few slots for a second; when the slots are full the oldest stranger is dropped, so neither
// a flood nor a slow handshake keeps the peer out or touches a living lane.
package link

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"duet/replication/control"
	"duet/replication/internal/pinned"
)

// Config is who we are, who the peer is and how to reach it.
type Config struct {
	Site    string
	Node    control.Node
	Boot    string
	Process string // random per start of the daemon
	Key     ed25519.PrivateKey
	PeerKey ed25519.PublicKey
	Paths   []control.Path
	Port    int
}

// Right is the part of the grant that lanes and frames are checked against. Session 0: no lane.
type Right struct{ Session, Epoch, Prepared uint64 }

// stamp is the epoch that this node's frames carry: a prepared node speaks the epoch it prepared.
func (r Right) stamp() uint64 {
	if r.Prepared != 0 {
		return r.Prepared
	}
	return r.Epoch
}

// meets says that two nodes may share a lane.
func (r Right) meets(o Right) bool {
	if r.Session == 0 || r.Session != o.Session {
		return false
	}
	return r.Epoch == o.Epoch || r.Epoch == o.Prepared && r.Epoch != 0 || o.Epoch == r.Prepared && o.Epoch != 0 ||
		r.Prepared != 0 && r.Prepared == o.Prepared
}

// Handler takes what happens on lanes. All calls come from one goroutine per lane; the next lane begins after
// LaneDown of the one before returned.
type Handler interface {
	LaneUp(*Lane)
	LaneFrame(*Lane, *Frame) error // must not wait for a device or a socket; owns the payload (block.Put); an error ends the lane
	LaneDown(*Lane, error)
	LinkFault(control.Fault)
}

// Counters of refused things, since the start.
type Counters struct {
	Lanes, Lost, WrongKey, Strangers, Dropped, Mismatched atomic.Uint64
}

// Link owns listeners, dialer and at most one lane.
type Link struct {
	handler  Handler
	log      *slog.Logger
	Counters Counters

	right   atomic.Pointer[Right]
	serving sync.Mutex // one lane at a time calls the handler

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when the right changes
	lane    *Lane
	waiting []net.Conn // strangers, oldest first
	stop    context.CancelFunc
	wg      sync.WaitGroup
	faulted time.Time
}

// New makes a link that does nothing until Configure and SetRight.
func New(h Handler, log *slog.Logger) *Link {
	l := &Link{handler: h, log: log, changed: make(chan struct{})}
	l.right.Store(&Right{})
	return l
}

// Configure replaces the configuration; a lane of the old one ends.
func (l *Link) Configure(c Config) error {
	tlsConfig, err := pinned.Config(c.Key, c.PeerKey)
	if err != nil {
		return err
	}
	l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	l.mu.Lock()
	l.stop = cancel
	l.mu.Unlock()
	e := &end{link: l, config: c, tls: tlsConfig}
	if c.Node == 0 {
		l.spawn(func() { e.dial(ctx) })
		return nil
	}
	for _, p := range c.Paths {
		l.spawn(func() { e.listen(ctx, p) })
	}
	return nil
}

func (l *Link) spawn(f func()) {
	l.wg.Go(f)
}

// Close ends everything and waits for it.
func (l *Link) Close() {
	l.mu.Lock()
	stop, lane := l.stop, l.lane
	l.stop = nil
	for _, c := range l.waiting {
		closeRaw(c)
	}
	l.mu.Unlock()
	if stop == nil {
		return
	}
	stop()
	if lane != nil {
		lane.Close(net.ErrClosed)
	}
	l.wg.Wait()
}

// SetRight obeys a grant. It never waits: a lane of another session is cut at once and ends by itself.
func (l *Link) SetRight(r Right) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if *l.right.Load() == r {
		return
	}
	l.right.Store(&r)
	close(l.changed)
	l.changed = make(chan struct{})
	if l.lane != nil && l.lane.Session != r.Session {
		lane := l.lane
		go lane.Close(errors.New("the session ended"))
	}
}

// Lane is the living lane, or nil.
func (l *Link) Lane() *Lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lane
}

func (l *Link) stamp() uint32 { return uint32(l.right.Load().stamp()) }

// accepts is the check of a replicated write (protocol.md section 8): epoch and session are those of the grant,
// or its prepared epoch.
func (l *Link) accepts(session uint64, epoch uint32) bool {
	r := l.right.Load()
	return r.Session == session && (epoch == uint32(r.Epoch) || r.Prepared != 0 && epoch == uint32(r.Prepared))
}

// watchRight gives the right and a channel that is closed when it changes.
func (l *Link) watchRight() (Right, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return *l.right.Load(), l.changed
}

// serve runs a lane to its end. A lane that still lives is cut first: the peer would not have dialed again if it
// still had that one.
func (l *Link) serve(ctx context.Context, lane *Lane) {
	l.mu.Lock()
	if old := l.lane; old != nil {
		l.mu.Unlock()
		old.Close(errors.New("replaced by a new connection of the same session"))
		l.mu.Lock()
	}
	l.mu.Unlock()
	l.serving.Lock()
	defer l.serving.Unlock()
	l.mu.Lock()
	if ctx.Err() != nil || l.right.Load().Session != lane.Session {
		l.mu.Unlock()
		closeRaw(lane.conn)
		return
	}
	l.lane = lane
	l.mu.Unlock()
	l.Counters.Lanes.Add(1)
	l.log.Info("data lane up", "path", lane.Path, "session", lane.Session, "incarnation", lane.Incarnation)
	l.handler.LaneUp(lane)
	err := lane.run(l.handler)
	l.mu.Lock()
	l.lane = nil
	l.mu.Unlock()
	l.Counters.Lost.Add(1)
	l.log.Info("data lane lost", "path", lane.Path, "session", lane.Session, "error", err)
	l.handler.LaneDown(lane, err)
}

// faultEvery limits how often a stranger can raise a fault.
const faultEvery = 10 * time.Second

func (l *Link) wrongKey(remote net.Addr) {
	l.Counters.WrongKey.Add(1)
	l.mu.Lock()
	quiet := !l.faulted.IsZero() && time.Since(l.faulted) < faultEvery
	if !quiet {
		l.faulted = time.Now()
	}
	l.mu.Unlock()
	if quiet {
		return
	}
	l.handler.LinkFault(control.Fault{
		Code: "REPL-2030",
		What: "A machine with a foreign key is on the mirror link (" + remote.String() + ")",
		Why:  "It answered with another key than the one pinned when this pair was founded.",
		Next: "Check the cabling of the mirror ports; if a node was replaced, pair it anew.",
	})
}

// closeRaw closes without TLS's farewell, which may wait for a full socket.
func closeRaw(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	c.Close()
}
