package peerlink

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"sync"
	"time"

	"duet/appliance/internal/boottime"
)

// Timing holds the durations of the link. Default is the table; tests are faster.
type Timing struct {
	Tick         time.Duration // how often time is looked at
	Ping         time.Duration // on every path
	PeerLost     time.Duration // without an answer on any path; also: of one connection
	Resend       time.Duration // unacknowledged messages
	SessionPause time.Duration // between two sessions
	DriverAlive  time.Duration // pings are answered this long after the driver's last sign of life
	DialTimeout  time.Duration // TCP, TLS and greeting, each
	BackoffMin   time.Duration // between two attempts to dial or to listen
	BackoffMax   time.Duration
}

// Default is architecture.md section 8 and protocol.md section 5.3.
func Default() Timing {
	return Timing{
		Tick:         50 * time.Millisecond,
		Ping:         250 * time.Millisecond,  // heartbeat on every path
		PeerLost:     1500 * time.Millisecond, // 6 heartbeats
		Resend:       500 * time.Millisecond,  // above any round trip inside a chassis, two heartbeats
		SessionPause: 250 * time.Millisecond,  // one heartbeat
		DriverAlive:  time.Second,             // four of the driver's ticks
		DialTimeout:  time.Second,             // a path that needs longer cannot carry an ack in time either
		BackoffMin:   100 * time.Millisecond,
		BackoffMax:   400 * time.Millisecond, // with PeerLost: a duetd that restarts is back within the session
	}
}

// Path is one network way to the peer.
type Path struct {
	Name    string
	Local   string // address, with zone for link-local
	Peer    string
	Chassis bool // a cable inside the chassis
}

// Config is everything a link needs.
type Config struct {
	Node   uint8 // 0 is a and dials, 1 is b and listens
	Serial string
	Key    ed25519.PrivateKey
	Port   int
	Paths  []Path
	Timing Timing
	Pin    Pin    // what is known of the peer at start
	Resume Resume // session of the snapshot; zero: none
	Log    *slog.Logger
}

// Pin is what is known of the peer. The zero Pin is a fresh node's: any key inside the chassis.
type Pin struct {
	Site [16]byte
	Key  ed25519.PublicKey
}

// Resume is the part of a session that outlives a restart of duetd.
type Resume struct {
	Session         uint64
	PeerIncarnation uint64
	Consumed        uint64
}

// EventKind says what happened.
type EventKind uint8

// The kinds.
const (
	Began   EventKind = iota // a session began on this side
	Lost                     // it ended; not told for Drop
	Message                  // reliable, in order; the driver answers with Consume when it is stepped
	Loose                    // a beat
)

// Event is what the driver hears.
type Event struct {
	Kind            EventKind
	Session         uint64
	PeerIncarnation uint64
	Sequence        uint64
	Body            []byte
	Why             string
	PeerKey         ed25519.PublicKey // Began: the key that the peer proved
	PeerFresh       bool              // Began: the peer's greeting named no site
}

// Refusal tells that somebody was turned away.
type Refusal struct {
	From   string // address
	Path   string
	Reason Reason
	Why    string
}

// Limits of the queues.
const (
	eventQueue   = 1024 // to the driver; full means that the driver hangs: the session ends
	commandQueue = 256  // from the driver
	frameQueue   = 256  // from all connections; full holds the readers back
	refusalQueue = 8    // a flood of strangers is counted, not told one by one
)

// Link is the running link. Its methods may be called from any goroutine.
type Link struct {
	cfg      Config
	events   chan Event
	commands chan func(*machine)
	arrivals chan arrival
	refusals chan Refusal
	done     chan struct{} // closed when Run ends

	mu    sync.Mutex // guards what status and the handshakes read
	pin   Pin
	seen  map[*conn]struct{}
	paths []PathStatus
	self  frame // what a greeting says now

	reasons map[Reason]uint64
	dropped drops
}

// PathStatus is one path for people.
type PathStatus struct {
	Name      string
	Connected bool
	Chassis   bool
	AckAge    time.Duration // age of the last acknowledged ping; negative: none in this session
	Refused   uint64        // connections turned away
	Error     string        // of the last attempt, empty while connected
	PeerKey   ed25519.PublicKey
	Serial    string // of the peer's chassis
	Fresh     bool   // the peer said that it belongs to no site
}

type arrival struct {
	conn *conn
	kind arrivalKind
	f    frame
}

type arrivalKind uint8

const (
	arrived arrivalKind = iota
	opened
	closed
)

// New makes a link; Run starts it.
func New(cfg Config) *Link {
	l := &Link{
		cfg:      cfg,
		events:   make(chan Event, eventQueue),
		commands: make(chan func(*machine), commandQueue),
		arrivals: make(chan arrival, frameQueue),
		refusals: make(chan Refusal, refusalQueue),
		done:     make(chan struct{}),
		pin:      cfg.Pin,
		seen:     map[*conn]struct{}{},
		reasons:  map[Reason]uint64{},
	}
	for _, p := range cfg.Paths {
		l.paths = append(l.paths, PathStatus{Name: p.Name, Chassis: p.Chassis, AckAge: -1})
	}
	return l
}

// Events is what happens, in order. The driver must keep reading.
func (l *Link) Events() <-chan Event { return l.events }

// Refusals tells who was turned away and why. What is not read is only counted (PathStatus).
func (l *Link) Refusals() <-chan Refusal { return l.refusals }

// Send queues a reliable message; one of a session that is over is dropped.
func (l *Link) Send(session uint64, body []byte) {
	l.command(func(m *machine) { m.message(session, body) })
}

// SendLoose sends a message once on every path, now or never.
func (l *Link) SendLoose(session uint64, body []byte) {
	l.command(func(m *machine) { m.loose(session, body) })
}

// Consume acknowledges a message: it is stepped, and the snapshot says so.
func (l *Link) Consume(session, peerIncarnation, sequence uint64) {
	l.command(func(m *machine) { m.consume(session, peerIncarnation, sequence) })
}

// Drop ends a session. No Lost is told for it.
func (l *Link) Drop(session uint64) { l.command(func(m *machine) { m.drop(session) }) }

// Pause keeps a new session from beginning for a while; 0 ends an earlier pause.
func (l *Link) Pause(d time.Duration) {
	l.command(func(m *machine) { m.heldTo = m.now + d })
}

// Alive is the driver's sign of life. Without it pings are not answered and no session begins.
func (l *Link) Alive() {
	l.command(func(m *machine) { m.aliveUntil = m.now + m.cfg.DriverAlive })
}

// SetPin says whom to accept from now on. Connections of another key are closed.
func (l *Link) SetPin(pin Pin) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pin = pin
	for c := range l.seen {
		if pin.Key != nil && !pin.Key.Equal(c.key) {
			c.close()
		}
	}
}

// Paths is the state of every path.
func (l *Link) Paths() []PathStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]PathStatus(nil), l.paths...)
}

func (l *Link) command(f func(*machine)) {
	select {
	case l.commands <- f:
	case <-l.done:
	}
}

// Run keeps the link until ctx ends; then every connection is closed and every goroutine has ended.
func (l *Link) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer close(l.done)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i := range l.cfg.Paths {
		wg.Go(func() {
			if l.cfg.Node == 0 {
				l.dialPath(ctx, i)
			} else {
				l.listenPath(ctx, i)
			}
		})
	}
	l.loop(ctx)
	return ctx.Err()
}

func (l *Link) loop(ctx context.Context) {
	m := &machine{
		cfg: l.cfg.Timing, acpt: l.cfg.Node == 1, fresh: randomNonce,
		inc: uint64(boottime.Now()), //nolint:gosec // positive; a later process of this boot has a higher one
	}
	if l.cfg.Resume.Session != 0 {
		m.resume(l.cfg.Resume)
	}
	l.setSelf(m)
	tick := time.NewTicker(l.cfg.Timing.Tick)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-l.commands:
			f(m)
		case a := <-l.arrivals:
			l.arrive(m, a)
		case now := <-tick.C:
			m.tick(now.Sub(last))
			last = now
			l.publish(m)
		}
		l.flush(m)
	}
}

func (l *Link) arrive(m *machine, a arrival) {
	switch a.kind {
	case opened:
		m.connected(a.conn.lane, a.f)
		l.publish(m)
	case closed:
		m.disconnected(a.conn.lane)
		l.publish(m)
	case arrived:
		m.frame(a.conn.lane, a.f)
	}
}

// flush carries out what the machine decided.
func (l *Link) flush(m *machine) {
	for len(m.out) > 0 {
		out := m.out
		m.out = nil
		for _, o := range out {
			if c := o.to.conn; o.close || !c.enqueue(o.frame) {
				c.close()
			}
		}
	}
	for _, e := range m.told {
		if e.Kind == Began {
			e.PeerKey, e.PeerFresh = l.peerOf(m)
		}
		select {
		case l.events <- e:
		default:
			// The driver does not read: it hangs, and Alive will stop the session for the peer as well.
			l.cfg.Log.Error("the pair driver does not keep up with the link", "queue", eventQueue)
			m.drop(m.session)
		}
	}
	m.told = nil
	l.setSelf(m)
}

// setSelf keeps what the next greeting says.
func (l *Link) setSelf(m *machine) {
	self := frame{kind: kindGreeting, session: m.session, inc: m.inc, ackInc: m.peerInc, ack: m.consumed}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.self = self
}

func (l *Link) peerOf(m *machine) (ed25519.PublicKey, bool) {
	if len(m.conns) == 0 {
		return nil, false
	}
	c := m.conns[0].conn // every connection has the same key: admit sees to that
	return c.key, c.greet.site == [16]byte{}
}

// publish updates what Paths shows.
func (l *Link) publish(m *machine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped = m.dropped
	for i := range l.paths {
		l.paths[i].Connected, l.paths[i].AckAge = false, -1
	}
	for _, ln := range m.conns {
		p := &l.paths[ln.path]
		p.Connected, p.Error = true, ""
		if ln.everAck {
			p.AckAge = m.now - ln.acked
		}
	}
}

func randomNonce() uint64 {
	var b [8]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			panic(err) // crypto/rand never fails since Go 1.24
		}
		if n := binary.LittleEndian.Uint64(b[:]); n != 0 {
			return n
		}
	}
}
