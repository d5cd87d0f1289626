package pair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"duet/appliance/membership"
	"duet/appliance/pair/recordfile"
	"duet/replication/control"
	"duet/witness/register"
	"duet/witness/wire"
)

// sweep is a world around one driver that may die at any effect: real record, real snapshot, real control socket, the
// real register, and a peer that is the real core with a memory for a disk. What the driver sends the peer hears, and
// the other way round, unless a test loses it.
type sweep struct {
	*rig
	peer *peerNode
	vote *wholeWitness
	prey *victim

	recorder Recorder                                  // nil: none
	lose     func(index int, e membership.Effect) bool // of effects that may be lost: this one is

	silence atomic.Bool // the peer is dead for good
	refuse  atomic.Bool // the next Grant or Revoke is refused

	mu      sync.Mutex
	d       *Driver
	session membership.Session
	index   int                // effects since the driver began, but for beats
	kinds   []string           // of these effects
	disk    membership.Record  // what the record file must hold
	pending *membership.Record // a Persist that has begun
	granted bool               // anything, since the driver began
	allowed membership.Resources
}

// before is called with every effect, on the driver's goroutine; it returns the effect's number, or false for a beat.
func (s *sweep) before(e membership.Effect) (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending != nil { // the driver awaited it
		s.disk, s.pending = *s.pending, nil
	}
	if p, ok := e.(membership.Persist); ok {
		s.pending = &p.Record
	}
	if _, ok := e.(membership.Grant); ok && !s.granted {
		s.granted = true
		if running := s.guests.runs(); running&^s.allowed != 0 {
			s.t.Errorf("granted while %b runs and %b may: what is not allowed is stopped first", running, s.allowed)
		}
	}
	if m, ok := e.(membership.Send); ok {
		switch m.Message.(type) {
		case membership.BeatMsg, membership.BeatAck:
			return 0, false
		}
	}
	s.index++
	s.kinds = append(s.kinds, fmt.Sprintf("%T", e)[len("membership."):])
	return s.index - 1, true
}

// carry is what the world does with an effect that is not lost.
func (s *sweep) carry(e membership.Effect) {
	switch e := e.(type) {
	case membership.Send:
		s.peer.hear(s.d.state.Session, e.Message) // on the driver's goroutine
	case membership.Copy:
		s.copied(e.Session)
	case membership.CloseSession:
		s.breakSoon()
	}
}

// copied: both sides hear that the legs are equal.
func (s *sweep) copied(session membership.Session) {
	done := membership.CopyDone{Session: session, Digest: membership.Digest{1}}
	s.tell(done)
	s.peer.do(func() { s.peer.step(done) })
}

// tell gives the present driver an event, from any goroutine, in order.
func (s *sweep) tell(e membership.Event) {
	s.mu.Lock()
	d := s.d
	s.mu.Unlock()
	if d != nil {
		d.postEvent(e)
	}
}

// sweepMirror is duet-mirrord. It holds the driver to its word at every grant.
type sweepMirror struct {
	*memoryMirror
	s *sweep
}

func (m sweepMirror) Copy(uint64) error { return nil }

func (m sweepMirror) Revoke() error {
	if m.s.refuse.Swap(false) {
		return errors.New("refused")
	}
	return m.memoryMirror.Revoke()
}

func (m sweepMirror) Grant(g control.Grant) error {
	if m.s.refuse.Swap(false) {
		return errors.New("refused")
	}
	rec := m.s.recordNow()
	wrong := func(format string, args ...any) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.wrong = append(m.wrong, fmt.Sprintf(format, args...))
	}
	switch {
	case membership.Epoch(g.Epoch) > rec.High || membership.Epoch(g.Prepared) > rec.High:
		wrong("granted epoch %d, prepared %d, recorded %d", g.Epoch, g.Prepared, rec.High)
	case g.Mode == control.Paired && (membership.Epoch(g.Epoch) != rec.Ep || rec.Members != membership.Both):
		wrong("paired granted at epoch %d with a record of epoch %d, members %v", g.Epoch, rec.Ep, rec.Members)
	}
	return m.memoryMirror.Grant(g)
}

// peerNode is node b: the core, a disk that cannot fail, timers, the witness, a link that is up or not.
type peerNode struct {
	s      *sweep
	todo   chan func()
	ended  chan struct{}
	state  membership.State // owned by run
	disk   membership.Record
	timers [256]membership.Boottime
	fresh  membership.Nonce
	dead   bool

	mu   sync.Mutex
	seen membership.State
}

func (p *peerNode) view() membership.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

func (p *peerNode) do(f func()) {
	select {
	case p.todo <- f:
	case <-p.ended:
	}
}

func (p *peerNode) run(ctx context.Context) {
	defer close(p.ended)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	beat := time.NewTicker(80 * time.Millisecond)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-p.todo:
			f()
		case <-beat.C:
			if p.state.Committed() {
				p.step(membership.Beat{})
			}
		case <-tick.C:
			now := (&Driver{}).now()
			for i, at := range p.timers {
				if at != 0 && at <= now {
					p.timers[i] = 0
					p.step(membership.Timer{Timer: membership.TimerID(i)}) //nolint:gosec // an index
				}
			}
		}
	}
}

// hear takes a message of the driver.
func (p *peerNode) hear(session membership.Session, m membership.Message) {
	p.do(func() { p.step(membership.Received{Session: session, Message: m}) })
}

func (p *peerNode) step(e membership.Event) {
	if p.dead {
		return
	}
	p.fresh++
	in := membership.Input{Now: (&Driver{}).now(), Fresh: p.fresh, Event: e}
	before := p.state
	after, effects := membership.Step(before, in)
	if err := errors.Join(membership.CheckStep(before, after, in, effects), membership.CheckState(after)); err != nil {
		p.s.t.Error(err)
	}
	p.state = after
	p.mu.Lock()
	p.seen = after
	p.mu.Unlock()
	for _, x := range effects {
		p.perform(x)
	}
}

func (p *peerNode) perform(e membership.Effect) {
	switch e := e.(type) {
	case membership.Persist:
		p.disk = e.Record
	case membership.Send:
		p.s.tell(membership.Received{Session: p.state.Session, Message: e.Message})
	case membership.Copy:
		done := membership.CopyDone{Session: e.Session, Digest: membership.Digest{1}}
		p.s.tell(done)
		p.step(done)
	case membership.CloseSession:
		p.s.breakSoon()
	case membership.Arm:
		p.timers[e.Timer] = e.At
	case membership.Fence:
		p.step(membership.FenceResult{Attempt: e.Attempt})
	case membership.AskWitness:
		p.asked(membership.OpCAS, wire.Request{
			Op: wire.CAS, Nonce: uint64(e.Nonce), RID: register.ID(e.RID),
			Expected: register.Content{Epoch: register.Epoch(e.Expected.Ep), Set: register.Set(e.Expected.Set)},
			New:      register.Content{Epoch: register.Epoch(e.New.Ep), Set: register.Set(e.New.Set)},
		})
	case membership.PushWitness:
		p.asked(membership.OpPush, wire.Request{
			Op: wire.Push, Nonce: uint64(e.Nonce), RID: register.ID(e.RID), New: register.Content{Epoch: register.Epoch(e.Ep)},
		})
	}
}

func (p *peerNode) asked(op membership.WitnessOp, q wire.Request) {
	r, err := p.s.vote.Do(context.Background(), q)
	if err != nil {
		return
	}
	reply := membership.WitnessReply{
		Op: op, Nonce: membership.Nonce(r.Nonce), RID: membership.ID(r.RID),
		Register: membership.RegisterContent{Ep: membership.Epoch(r.Content.Epoch), Set: membership.Set(r.Content.Set)},
	}
	if r.Result == wire.OK {
		reply.Result = membership.WitnessOK
	}
	p.step(reply)
}

// wholeWitness is the register with both of its operations.
type wholeWitness struct {
	mu   sync.Mutex
	regs map[register.ID]register.Register
	lose bool // the next answer
}

// create is CREATE: registers of before stay.
func (w *wholeWitness) create(id register.ID, content register.Content) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.regs[id] = register.Register{RID: id, Content: content}
}

func (w *wholeWitness) Do(_ context.Context, q wire.Request) (wire.Reply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	after, known := w.regs[q.RID]
	if !known {
		return wire.Reply{}, errors.New("unknown register")
	}
	var done bool
	if q.Op == wire.Push {
		after, done, _ = after.Push(q.New.Epoch)
	} else {
		after, done, _ = after.CAS(q.Expected, q.New)
	}
	w.regs[q.RID] = after
	if w.lose {
		w.lose = false
		return wire.Reply{}, errors.New("the answer is lost")
	}
	result := wire.Failed
	if done {
		result = wire.OK
	}
	return wire.Reply{Op: q.Op, Result: result, Nonce: q.Nonce, RID: q.RID, Content: after.Content}, nil
}

// victim is a process that is killed in place of this one: the control socket is served by the test itself, and a
// machine so loaded that a grant is not confirmed within a second costs duet-mirrord its life.
type victim struct {
	mu    sync.Mutex
	cmd   *exec.Cmd
	kills int // noticed
}

// died says whether one was killed, now or before.
func (v *victim) died() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cmd != nil {
		if pid, err := unix.Wait4(v.cmd.Process.Pid, nil, unix.WNOHANG, nil); err == nil && pid == v.cmd.Process.Pid {
			v.cmd, v.kills = nil, v.kills+1
		}
	}
	return v.kills > 0
}

func (v *victim) put(m *mirrord) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for range 2 {
		if v.cmd == nil {
			v.cmd = exec.Command("sleep", "1000")
			if err := v.cmd.Start(); err != nil {
				return err
			}
		}
		fd, err := unix.PidfdOpen(v.cmd.Process.Pid, 0)
		if err == nil {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.pidfd >= 0 {
				_ = unix.Close(m.pidfd)
			}
			m.pidfd = fd
			return nil
		}
		_ = v.cmd.Wait()
		v.cmd, v.kills = nil, v.kills+1
	}
	return errors.New("no victim")
}

func (v *victim) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cmd != nil {
		_ = v.cmd.Process.Kill()
		_ = v.cmd.Wait()
	}
}

// newSweep is a world with these records on both nodes; zero: fresh.
func newSweep(t *testing.T, mine, peers membership.Record, reg register.Content) *sweep {
	r := &rig{t: t, dir: t.TempDir(), guests: &memoryGuests{}, boot: "boot-1"}
	s := &sweep{rig: r, disk: mine, prey: &victim{}}
	t.Cleanup(s.prey.end)
	r.mirror = &memoryMirror{rig: r}
	s.vote = &wholeWitness{regs: map[register.ID]register.Register{}}
	s.vote.create(register.ID(testRID), reg)
	f, err := recordfile.Open(r.path("record"))
	if err != nil {
		t.Fatal(err)
	}
	if mine.Seq != 0 {
		err = f.Write(mine.Seq, membership.AppendRecord(nil, mine))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	srv, err := control.Listen(r.path("mirrord.sock"), "mirror", sweepMirror{r.mirror, s}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ctx) }()
	s.peer = &peerNode{s: s, todo: make(chan func(), 4096), ended: make(chan struct{}), disk: peers, fresh: 1 << 40}
	s.peer.state.Cfg, s.peer.state.Rec = sweepTiming(membership.B), peers
	go s.peer.run(ctx)
	s.peer.do(func() { s.peer.step(membership.Boot{Record: peers}) })
	t.Cleanup(func() { cancel(); <-done; <-s.peer.ended })
	return s
}

// sweepTiming is the table with every wait made short; nothing here measures them.
func sweepTiming(self membership.Node) membership.Config {
	c := Durations(self)
	c.Lease, c.PeerWait, c.Bias, c.BootWait = 600e6, 800e6, 50e6, 30e6
	c.AskAgain, c.FenceAgain, c.PowerOnWait, c.CommitAgain = 150e6, 300e6, 5e9, 60e6
	return c
}

// start begins a driver over the files; act is told of every effect that is not a beat, and says whether the process
// dies before it.
func (s *sweep) start(act func(index int, e membership.Effect) (die bool)) (d *Driver, stop func(), ended <-chan error) {
	s.t.Helper()
	cfg := s.config(s.path("mirrord.sock"))
	cfg.Timing = sweepTiming(membership.A)
	if s.recorder != nil {
		cfg.Recorder = s.recorder
	}
	site := s.site()
	site.Witness = s.vote
	cfg.Hooks.Belongs = func(membership.Record) (Site, error) { return site, nil }
	d, err := New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.d, s.index, s.kinds, s.granted = d, 0, nil, false
	s.allowed = s.mayRun(d)
	s.mu.Unlock()
	d.cut = func(e membership.Effect) bool {
		if err := s.prey.put(d.mirror); err != nil {
			s.t.Error(err)
		}
		i, counts := s.before(e)
		if counts && act(i, e) {
			return true
		}
		if !counts || s.lose == nil || !s.lose(i, e) {
			s.carry(e)
		}
		return false
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		over <- d.Run(ctx, site)
	}()
	stop = func() { cancel(); <-done }
	s.t.Cleanup(stop)
	return d, stop, over
}

// mayRun is what a driver that goes on from here may leave running: after a boot nothing, else what the record gives to
// this node.
func (s *sweep) mayRun(d *Driver) (rs membership.Resources) {
	if !d.resumed {
		return 0
	}
	for i, o := range s.recordNow().Owners {
		if i != 0 && o.Version != 0 && o.Node == membership.A {
			rs |= 1 << i
		}
	}
	return rs
}

// connect begins a session on both sides; what was one before ends. It is done on the peer's goroutine, so that neither
// side hears a message of the session before it knows of it.
func (s *sweep) connect() {
	s.peer.do(func() {
		s.mu.Lock()
		old := s.session
		s.session++
		session, d := s.session, s.d
		s.mu.Unlock()
		if old != 0 {
			d.postEvent(membership.PeerLost{Session: old})
			s.peer.step(membership.PeerLost{Session: old})
		}
		d.post(input{do: func() { d.laneIs(control.LinkEvent{Session: uint64(session), Up: true}) }})
		d.postEvent(membership.Connected{Session: session})
		s.peer.step(membership.Connected{Session: session})
	})
}

// recordNow is the record on disk, and whether there is one.
func (s *sweep) recordNow() membership.Record {
	f, err := recordfile.Open(s.path("record"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	seq, payload := f.Record()
	if seq == 0 {
		return membership.Record{}
	}
	rec, err := membership.ParseRecord(payload)
	if err != nil || rec.Seq != seq {
		s.t.Fatalf("record %d: %v", seq, err)
	}
	return rec
}

// snapshotOnDisk reads the file as it is, without judging it.
func (s *sweep) snapshotOnDisk() (snapshot, bool) {
	if _, err := os.Stat(filepath.Join(s.dir, snapshotName)); err != nil {
		return snapshot{}, false
	}
	snap, _, err := readSnapshot(s.dir, "", 0)
	return snap, err == nil && snap.BootID != ""
}
