package peerlink

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"
)

// machine is the pure half of the link: sessions, sequences and liveness over any number of connections. It reads no
// clock and does no I/O: time comes with tick, frames come in with frame, and what is to be written or told is
// collected in out. One goroutine calls it; the tests drive two of them over a lossy table.
//
// Time is the loss clock: nanoseconds during which this process ran. A tick that comes late counts at most
// maxTickStep, so a node that was itself stopped for seconds hears what waits in its sockets before it calls its
// peer lost. Safety does not rest on it (a stopped node has lost its lease by CLOCK_BOOTTIME).
type machine struct {
	cfg   Timing
	acpt  bool // this side accepts: it makes the session ids
	fresh func() uint64
	now   time.Duration

	inc     uint64 // of this process: grows with every start within a boot
	session uint64 // 0: none
	na, nb  uint64 // nonces that made it
	lastAck time.Duration
	shown   bool          // the peer has shown that it holds the session too
	pauseTo time.Duration // no new session before
	heldTo  time.Duration // nor before this: the driver's wish
	offer   uint64        // dialer: nonce on offer

	peerInc   uint64 // incarnation of the peer's stream
	delivered uint64 // highest sequence given to the driver
	consumed  uint64 // highest sequence the driver has stepped and snapshot: what is acknowledged

	sent     uint64  // last sequence of my stream
	unacked  []frame // my stream beyond the peer's acknowledgement, oldest first
	bytes    int     // of their bodies
	resendAt time.Duration

	ended []uint64 // sessions that ended here, newest last

	conns []*lane
	out   []outgoing
	told  []Event

	dropped drops

	aliveUntil time.Duration // pings are answered until then (Alive)
	nextPing   time.Duration
}

// lane is the machine's view of one connection.
type lane struct {
	conn    *conn // nil in the machine's own tests
	path    int
	heard   time.Duration // last frame
	acked   time.Duration // last ack of a ping of this session; see everAck
	everAck bool
	closing bool
}

type outgoing struct {
	to    *lane
	frame frame
	close bool // close the connection instead
}

// Named limits of the machine.
const (
	maxUnacked      = 1024    // messages; a pair in trouble has a handful outstanding
	maxUnackedBytes = 4 << 20 // of bodies
	maxEnded        = 16      // remembered dead sessions: a late frame of one is answered with DROP
	maxTickStep     = 2       // ticks: how much of a late tick counts as time without the peer
)

func (m *machine) send(to *lane, f frame) {
	f.inc = m.inc
	f.ackInc, f.ack = m.peerInc, m.consumed
	m.out = append(m.out, outgoing{to: to, frame: f})
}

func (m *machine) sendAll(f frame) {
	for _, c := range m.conns {
		m.send(c, f)
	}
}

// connected adds an authenticated connection. The peer's greeting told its session and incarnation.
func (m *machine) connected(c *lane, g frame) {
	c.heard = m.now
	for _, old := range m.conns {
		if old.path == c.path { // the peer has given the old one up, or it would not have dialed
			m.closeLane(old)
		}
	}
	m.conns = append(slices.DeleteFunc(m.conns, func(o *lane) bool { return o.closing }), c)
	switch {
	case m.session == 0:
		m.offerTo(c)
	case g.session == m.session:
		m.shown = true
		m.peerRestarted(g.inc)
		if !m.meets(g) {
			return
		}
		m.ping(c)
		for _, f := range m.unacked {
			m.send(c, f)
		}
	case m.shown && g.inc != m.peerInc:
		m.end("the peer restarted without this session")
		m.offerTo(c)
	case m.acpt && !m.shown: // it may not have learned of the session yet: it learns first, then hears the messages
		m.accept(c)
		for _, f := range m.unacked {
			m.send(c, f)
		}
	default:
		m.ping(c)
	}
}

// meets applies the acknowledgement in f; false: the sequences contradict, the session is over.
func (m *machine) meets(f frame) bool {
	if f.ackInc != m.inc { // of an earlier process here: those messages count as lost
		return true
	}
	if f.ack > m.sent {
		m.end("sequence numbers do not meet")
		return false
	}
	n := 0
	for n < len(m.unacked) && m.unacked[n].seq <= f.ack {
		m.bytes -= len(m.unacked[n].body)
		n++
	}
	if n > 0 {
		m.unacked = slices.Delete(m.unacked, 0, n)
		m.resendAt = m.now + m.cfg.Resend
	}
	return true
}

// peerRestarted notes a newer incarnation of the peer inside the session: its stream begins again at 1, and what it
// had sent and was not delivered counts as lost (protocol.md section 4).
func (m *machine) peerRestarted(inc uint64) {
	if inc > m.peerInc {
		m.peerInc, m.delivered, m.consumed = inc, 0, 0
	}
}

func (m *machine) offerTo(c *lane) {
	if m.acpt || m.session != 0 || !m.mayBegin() {
		return
	}
	if m.offer == 0 {
		m.offer = m.fresh()
	}
	m.send(c, frame{kind: kindOffer, seq: m.offer})
}

// mayBegin: not right after a session ended, so that a disagreement cannot turn into a storm; and not while the driver
// does not answer: a node that cannot decide must not cancel its peer's question to the witness by connecting (R2).
func (m *machine) mayBegin() bool {
	return m.now >= m.pauseTo && m.now >= m.heldTo && m.now <= m.aliveUntil
}

func (m *machine) accept(c *lane) {
	m.send(c, frame{kind: kindAccept, session: m.session, seq: m.na, stamp: m.nb})
}

// sessionID is the hash of both contributions: neither side can choose it, and it never repeats.
func sessionID(na, nb uint64) uint64 {
	b := append([]byte("duet session"), make([]byte, 16)...)
	binary.LittleEndian.PutUint64(b[12:], na)
	binary.LittleEndian.PutUint64(b[20:], nb)
	sum := sha256.Sum256(b)
	return max(1, binary.LittleEndian.Uint64(sum[:]))
}

func (m *machine) begin(session, na, nb, peerInc uint64) {
	m.session, m.na, m.nb, m.peerInc = session, na, nb, peerInc
	m.offer, m.shown = 0, false
	m.delivered, m.consumed, m.sent, m.bytes = 0, 0, 0, 0
	m.unacked = nil
	m.lastAck = m.now
	for _, c := range m.conns {
		c.everAck = false
	}
	m.told = append(m.told, Event{Kind: Began, Session: session, PeerIncarnation: peerInc})
}

// end drops the session for good and tells the driver.
func (m *machine) end(why string) {
	if m.session == 0 {
		return
	}
	m.told = append(m.told, Event{Kind: Lost, Session: m.session, Why: why})
	m.forget()
}

func (m *machine) forget() {
	m.ended = append(m.ended, m.session)
	if len(m.ended) > maxEnded {
		m.ended = slices.Delete(m.ended, 0, 1)
	}
	m.sendAll(frame{kind: kindDrop, session: m.session})
	m.session, m.na, m.nb, m.peerInc = 0, 0, 0, 0
	m.unacked, m.bytes = nil, 0
	m.pauseTo = m.now + m.cfg.SessionPause
}

// frame takes one frame of a connection.
func (m *machine) frame(c *lane, f frame) {
	if c.closing {
		return
	}
	c.heard = m.now
	switch f.kind {
	case kindOffer:
		m.offered(c, f)
	case kindAccept:
		m.accepted(c, f)
	case kindDrop:
		if f.session == m.session {
			m.end("the peer dropped the session")
		}
	case kindPing:
		m.pinged(c, f)
	case kindPong, kindData, kindLoose:
		m.inSession(c, f)
	default: // a second greeting
		m.closeLane(c)
	}
}

func (m *machine) offered(c *lane, f frame) {
	switch {
	case !m.acpt || f.seq == 0:
		m.closeLane(c) // only the dialer offers
	case m.session != 0 && m.na == f.seq:
		m.accept(c) // it has not heard yet
	case m.session == 0 && m.mayBegin():
		na, nb := f.seq, m.fresh()
		m.begin(sessionID(na, nb), na, nb, f.inc)
		for _, o := range m.conns { // on every connection, so that it comes before any message
			m.accept(o)
		}
	}
}

func (m *machine) accepted(c *lane, f frame) {
	switch {
	case m.acpt || f.session == 0 || f.session != sessionID(f.seq, f.stamp):
		m.closeLane(c)
	case m.session == f.session:
	case m.session == 0 && m.offer != 0 && f.seq == m.offer:
		m.begin(f.session, f.seq, f.stamp, f.inc)
		m.shown = true
		for _, o := range m.conns {
			m.ping(o)
		}
	default:
		m.send(c, frame{kind: kindDrop, session: f.session})
	}
}

func (m *machine) pinged(c *lane, f frame) {
	if m.now <= m.aliveUntil {
		m.send(c, frame{kind: kindPong, session: m.session, stamp: f.stamp})
	}
	switch {
	case f.session == 0 || f.session == m.session:
		m.inSession(c, f)
	case m.acpt || slices.Contains(m.ended, f.session):
		// The acceptor makes every session, so one it does not hold is over; the dialer may only not have heard yet.
		m.send(c, frame{kind: kindDrop, session: f.session})
	}
}

func (m *machine) inSession(c *lane, f frame) {
	if f.session == 0 || f.session != m.session {
		if f.session != 0 {
			m.dropped.otherSession++
		}
		return
	}
	m.shown = true
	m.peerRestarted(f.inc)
	if f.inc != m.peerInc {
		m.dropped.earlierProcess++
		return
	}
	if !m.meets(f) {
		return
	}
	switch f.kind {
	case kindPong:
		sent := time.Duration(f.stamp) //nolint:gosec // our own stamp, checked below
		if sent <= m.now && sent >= 0 {
			m.lastAck = max(m.lastAck, sent)
			c.acked, c.everAck = max(c.acked, sent), true
		}
	case kindLoose:
		m.told = append(m.told, Event{Kind: Loose, Session: m.session, Body: f.body})
	case kindData:
		m.data(f)
	default: // nothing for the others
	}
}

// data takes the next message of the stream. An older one is known already; a newer one leaves a gap, and the peer sends
// it again in order.
func (m *machine) data(f frame) {
	switch {
	case f.seq == m.delivered+1:
		m.delivered++
		m.told = append(m.told, Event{Kind: Message, Session: m.session, PeerIncarnation: m.peerInc, Sequence: f.seq, Body: f.body})
	case f.seq <= m.delivered:
		m.dropped.repeated++
	default:
		m.dropped.outOfOrder++
	}
}

func (m *machine) disconnected(c *lane) {
	c.closing = true
	m.conns = slices.DeleteFunc(m.conns, func(o *lane) bool { return o == c })
}

func (m *machine) closeLane(c *lane) {
	if !c.closing {
		c.closing = true
		m.out = append(m.out, outgoing{to: c, close: true})
	}
}

// message queues a reliable message of a session; of another session it is dropped, as the protocol wants.
func (m *machine) message(session uint64, body []byte) {
	if session == 0 || session != m.session {
		return
	}
	if len(m.unacked) >= maxUnacked || m.bytes+len(body) > maxUnackedBytes {
		m.end("too much was sent that the peer did not acknowledge")
		return
	}
	if len(m.unacked) == 0 {
		m.resendAt = m.now + m.cfg.Resend
	}
	m.sent++
	f := frame{kind: kindData, session: session, seq: m.sent, body: body}
	m.unacked = append(m.unacked, f)
	m.bytes += len(body)
	m.sendAll(f)
}

func (m *machine) loose(session uint64, body []byte) {
	if session != 0 && session == m.session {
		m.sendAll(frame{kind: kindLoose, session: session, body: body})
	}
}

// consume notes that the driver has stepped a message and its snapshot says so.
func (m *machine) consume(session, inc, seq uint64) {
	if session == m.session && inc == m.peerInc && seq <= m.delivered {
		m.consumed = max(m.consumed, seq)
	}
}

// drop ends a session on the driver's word; no Lost is told.
func (m *machine) drop(session uint64) {
	if session != 0 && session == m.session {
		m.forget()
	}
}

// resume continues the session of the snapshot: the streams begin anew here, and the peer's goes on behind what was
// consumed.
func (m *machine) resume(s Resume) {
	m.session, m.peerInc = s.Session, s.PeerIncarnation
	m.delivered, m.consumed = s.Consumed, s.Consumed
	m.lastAck = m.now
	m.shown = true
}

func (m *machine) ping(c *lane) {
	m.send(c, frame{kind: kindPing, session: m.session, stamp: uint64(m.now)}) //nolint:gosec // never negative
}

// tick moves time on by what passed since the last tick.
func (m *machine) tick(passed time.Duration) {
	m.now += min(passed, maxTickStep*m.cfg.Tick)
	for _, c := range m.conns {
		if m.now-c.heard > m.cfg.PeerLost {
			m.closeLane(c) // a cut cable: dial again, not wait for TCP's retransmissions
		}
	}
	m.conns = slices.DeleteFunc(m.conns, func(o *lane) bool { return o.closing })
	if m.session != 0 && m.now-m.lastAck > m.cfg.PeerLost {
		m.end("no answer on any path")
	}
	if m.now >= m.nextPing {
		m.nextPing = m.now + m.cfg.Ping
		for _, c := range m.conns {
			m.ping(c)
			m.offerTo(c)
		}
	}
	if len(m.unacked) > 0 && m.now >= m.resendAt {
		m.resendAt = m.now + m.cfg.Resend
		for _, c := range m.conns {
			for _, f := range m.unacked {
				m.send(c, f)
			}
		}
	}
}
