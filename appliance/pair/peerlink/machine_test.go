package peerlink

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// table is two machines and the connections between them: frames wait in order a connection and direction, and the
// test decides what is delivered, cut or opened.
type table struct {
	t     *testing.T
	rng   *rand.Rand
	m     [2]*machine
	lanes []*pairOfLanes
	next  uint64

	session   [2]uint64
	delivered [2][]string // in the present session, by receiver
	sent      [2][]string
	began     map[uint64]int
}

type pairOfLanes struct {
	ends  [2]*lane
	queue [2][]frame // to end i
}

var testTiming = Timing{
	Tick: 50 * time.Millisecond, Ping: 250 * time.Millisecond, PeerLost: 1500 * time.Millisecond, Resend: 500 * time.Millisecond,
	SessionPause: 250 * time.Millisecond, DriverAlive: time.Hour,
}

func newTable(t *testing.T, seed uint64) *table {
	tb := &table{t: t, rng: rand.New(rand.NewPCG(seed, 7)), began: map[uint64]int{}}
	for i := range tb.m {
		tb.m[i] = tb.machine(i, 1)
	}
	return tb
}

func (tb *table) machine(i int, inc uint64) *machine {
	return &machine{
		cfg: testTiming, acpt: i == 1, inc: inc, aliveUntil: time.Hour * 1000,
		fresh: func() uint64 { tb.next++; return tb.next },
	}
}

// open connects path p; greetings cross.
func (tb *table) open(p int) {
	pl := &pairOfLanes{ends: [2]*lane{{path: p}, {path: p}}}
	tb.lanes = append(tb.lanes, pl)
	greet := [2]frame{}
	for i, m := range tb.m {
		greet[i] = frame{kind: kindGreeting, session: m.session, inc: m.inc, ackInc: m.peerInc, ack: m.consumed}
	}
	for i, m := range tb.m {
		m.connected(pl.ends[i], greet[1-i])
		tb.drain(i)
	}
}

// cut breaks connection n; what was under way is lost.
func (tb *table) cut(n int) {
	pl := tb.lanes[n]
	tb.lanes = append(tb.lanes[:n:n], tb.lanes[n+1:]...)
	for i, m := range tb.m {
		m.disconnected(pl.ends[i])
		tb.drain(i)
	}
}

// drain carries out what machine i decided.
func (tb *table) drain(i int) {
	m := tb.m[i]
	for len(m.out) > 0 {
		o := m.out[0]
		m.out = m.out[1:]
		for n, pl := range tb.lanes {
			if pl.ends[i] != o.to {
				continue
			}
			if o.close {
				tb.cut(n)
			} else {
				pl.queue[1-i] = append(pl.queue[1-i], o.frame)
			}
			break
		}
	}
	told := m.told
	m.told = nil
	for _, e := range told {
		tb.tell(i, e)
	}
}

func (tb *table) tell(i int, e Event) {
	switch e.Kind {
	case Began:
		tb.session[i] = e.Session
		tb.delivered[i], tb.sent[i] = nil, nil
		if tb.began[e.Session]++; tb.began[e.Session] > 2 {
			tb.t.Fatalf("session %x began again", e.Session)
		}
	case Lost:
		tb.session[i] = 0
	case Message:
		if e.Session != tb.session[i] {
			tb.t.Fatalf("message of session %x in session %x", e.Session, tb.session[i])
		}
		tb.delivered[i] = append(tb.delivered[i], string(e.Body))
		tb.m[i].consume(e.Session, e.PeerIncarnation, e.Sequence)
		if tb.session[0] == tb.session[1] {
			tb.check(i)
		}
	}
}

// check: inside one session the receiver has a prefix of what the sender sent, once and in order.
func (tb *table) check(i int) {
	sent, got := tb.sent[1-i], tb.delivered[i]
	if len(got) > len(sent) {
		tb.t.Fatalf("node %d got %d of %d messages", i, len(got), len(sent))
	}
	for n := range got {
		if got[n] != sent[n] {
			tb.t.Fatalf("node %d: message %d is %q, sent was %q", i, n, got[n], sent[n])
		}
	}
}

// deliver takes the first frame of a random queue.
func (tb *table) deliver() bool {
	for _, k := range tb.rng.Perm(2 * len(tb.lanes)) {
		pl, i := tb.lanes[k/2], k%2
		if len(pl.queue[i]) == 0 {
			continue
		}
		f := pl.queue[i][0]
		pl.queue[i] = pl.queue[i][1:]
		tb.m[i].frame(pl.ends[i], f)
		tb.drain(i)
		return true
	}
	return false
}

func (tb *table) tick(d time.Duration) {
	for i, m := range tb.m {
		m.tick(d)
		tb.drain(i)
	}
}

func (tb *table) send(i int) {
	if tb.session[i] == 0 {
		return
	}
	tb.next++
	body := fmt.Sprint(tb.next)
	tb.sent[i] = append(tb.sent[i], body)
	tb.m[i].message(tb.session[i], []byte(body))
	tb.drain(i)
}

// settle delivers everything and lets time pass until both agree on a session with nothing outstanding.
func (tb *table) settle() bool {
	for range 400 {
		for tb.deliver() {
		}
		if tb.session[0] != 0 && tb.session[0] == tb.session[1] && len(tb.m[0].unacked)+len(tb.m[1].unacked) == 0 {
			return true
		}
		tb.tick(testTiming.Tick)
	}
	return false
}

// Random cuts, reconnects, drops and messages on two paths: a session's messages arrive once and in order whatever
// happens, no session begins twice, and when the cables are left alone the nodes agree again.
func TestMachinesUnderRandomCables(t *testing.T) {
	for seed := range uint64(300) {
		tb := newTable(t, seed)
		for range 400 {
			switch n := tb.rng.IntN(100); {
			case n < 50:
				tb.deliver()
			case n < 70:
				tb.send(tb.rng.IntN(2))
			case n < 85:
				tb.tick(testTiming.Tick)
			case n < 92 && len(tb.lanes) < 3:
				tb.open(tb.rng.IntN(2))
			case n < 97 && len(tb.lanes) > 0:
				tb.cut(tb.rng.IntN(len(tb.lanes)))
			case n == 99 && tb.session[0] != 0:
				tb.m[0].drop(tb.session[0])
				tb.session[0] = 0
				tb.drain(0)
			}
		}
		tb.open(0)
		if !tb.settle() {
			t.Fatalf("seed %d: sessions %x and %x, unacknowledged %d and %d", seed, tb.session[0], tb.session[1],
				len(tb.m[0].unacked), len(tb.m[1].unacked))
		}
		for i := range tb.m {
			if len(tb.delivered[i]) != len(tb.sent[1-i]) {
				t.Fatalf("seed %d: node %d has %d of %d messages", seed, i, len(tb.delivered[i]), len(tb.sent[1-i]))
			}
		}
	}
}

// One side learns of a session first; what it sends waits until the other has it.
func TestAsymmetricLearning(t *testing.T) {
	tb := newTable(t, 1) // a seed whose schedule tells the acceptor alone
	tb.open(0)
	for tb.session[1] == 0 {
		tb.deliver()
	}
	if tb.session[0] != 0 {
		t.Fatal("this seed's schedule tells both at once: the test proves nothing")
	}
	tb.send(1)
	if !tb.settle() || len(tb.delivered[0]) != 1 {
		t.Fatalf("delivered %q", tb.delivered[0])
	}
}

// The peer is lost 1.5 s after the last acknowledged ping, not before, and silence on one path alone loses nothing.
func TestPeerLost(t *testing.T) {
	tb := newTable(t, 2)
	tb.open(0)
	tb.open(1)
	if !tb.settle() {
		t.Fatal("no session")
	}
	session := tb.session[0]
	tb.cut(0)
	for range 60 {
		tb.tick(testTiming.Tick)
		for tb.deliver() {
		}
	}
	if tb.session[0] != session || tb.session[1] != session {
		t.Fatal("the loss of one of two paths ended the session")
	}
	last := tb.m[0].lastAck
	for tb.session[0] != 0 {
		tb.tick(testTiming.Tick) // frames are sent and never arrive
		if tb.m[0].now-last > testTiming.PeerLost+2*testTiming.Tick {
			t.Fatal("not lost in time")
		}
	}
	if tb.m[0].now-last <= testTiming.PeerLost {
		t.Fatalf("lost after %v", tb.m[0].now-last)
	}
}

// A process that was itself stopped hears what waits for it before it calls its peer lost.
func TestAStallOfThisProcessIsNotALostPeer(t *testing.T) {
	tb := newTable(t, 3)
	tb.open(0)
	if !tb.settle() {
		t.Fatal("no session")
	}
	tb.m[0].tick(time.Minute)
	tb.drain(0)
	if tb.session[0] == 0 {
		t.Fatal("one late tick lost the peer")
	}
}

// A restart with the snapshot goes on in the session: nothing acknowledged is repeated, what was not is sent again.
func TestResume(t *testing.T) {
	tb := newTable(t, 4)
	tb.open(0)
	if !tb.settle() {
		t.Fatal("no session")
	}
	session := tb.session[1]
	tb.send(0)
	tb.settle()
	old := tb.m[1]
	snap := Resume{Session: old.session, PeerIncarnation: old.peerInc, Consumed: old.consumed}
	tb.cut(0)
	tb.send(0) // while the peer is away
	tb.m[1] = tb.machine(1, 2)
	tb.m[1].resume(snap)
	tb.sent[1] = nil // what the old process had sent and was not acknowledged counts as lost
	tb.delivered[0] = nil
	tb.open(0)
	tb.send(1)
	if !tb.settle() || tb.session[1] != session || tb.session[0] != session {
		t.Fatalf("session %x and %x, was %x", tb.session[0], tb.session[1], session)
	}
	if len(tb.delivered[1]) != 2 || len(tb.delivered[0]) != 1 {
		t.Fatalf("delivered %q and %q", tb.delivered[0], tb.delivered[1])
	}
}

// A restart without the snapshot ends the session at once on the other side.
func TestRestartWithoutTheSession(t *testing.T) {
	tb := newTable(t, 5)
	tb.open(0)
	if !tb.settle() {
		t.Fatal("no session")
	}
	old := tb.session[0]
	tb.cut(0)
	tb.m[0] = tb.machine(0, 2)
	tb.session[0] = 0
	tb.open(0)
	if !tb.settle() || tb.session[0] == old {
		t.Fatal("the old session went on")
	}
}

// The other side of a dropped session learns of it at once, not by its timer.
func TestDropIsTold(t *testing.T) {
	tb := newTable(t, 8)
	tb.open(0)
	if !tb.settle() {
		t.Fatal("no session")
	}
	tb.m[0].drop(tb.session[0])
	tb.drain(0)
	for tb.deliver() {
	}
	if tb.session[1] != 0 {
		t.Fatal("the peer still holds the session")
	}
}

// Too much without an acknowledgement ends the session instead of eating memory.
func TestUnackedIsBounded(t *testing.T) {
	tb := newTable(t, 6)
	tb.open(0)
	if !tb.settle() {
		t.Fatal("no session")
	}
	for range maxUnacked + 1 {
		tb.send(0)
	}
	if tb.session[0] != 0 {
		t.Fatal("the queue grew without a limit")
	}
}

// While the driver does not answer, no session begins and no ping is answered: connecting would cancel the peer's
// question to the witness.
func TestAHangingDriverLooksDead(t *testing.T) {
	tb := newTable(t, 7)
	tb.m[1].aliveUntil = -1
	tb.open(0)
	for range 100 {
		tb.tick(testTiming.Tick)
		for tb.deliver() {
		}
	}
	if tb.session[0] != 0 || tb.session[1] != 0 {
		t.Fatal("a session began with a driver that hangs")
	}
}
