package pair

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"duet/appliance/membership"
	"duet/replication/control"
	"duet/witness/register"
)

// scripted is a life of a node, up to an end that it must reach whatever happens on the way.
type scripted struct {
	name  string
	world func(*testing.T) *sweep
	live  func(*sweep)      // what happens to a driver that has begun: again after each of its deaths
	ended func(*sweep) bool // the life has reached its end
	least int               // effects, so that a life that became dull is noticed
}

func theRecord(n membership.Node, ep membership.Epoch, members membership.Set) membership.Record {
	rec := membership.Record{
		Seq: 3, Site: membership.ID{1}, Ep: ep, Members: members, High: ep, Consistent: members.Has(n),
		Arb: membership.Arb{Kind: membership.ArbWitness, RID: testRID},
	}
	rec.Owners[0] = membership.Owner{Version: 1}
	rec.Owners[1] = membership.Owner{Version: 1}
	rec.Owners[2] = membership.Owner{Node: membership.B, Version: 1}
	if members == membership.OnlyB {
		rec.Owners[0] = membership.Owner{Node: membership.B, Version: 2}
	}
	return rec
}

func at(ep uint64, set register.Set) register.Content {
	return register.Content{Epoch: register.Epoch(ep), Set: set}
}

// bothPaired: both are committed at one epoch, and the witness knows it.
func bothPaired(s *sweep) bool {
	a, b := s.d.View().State, s.peer.view()
	return a.Committed() && b.Committed() && a.Rec.Ep == b.Rec.Ep && a.Push.Nonce == 0 && b.Push.Nonce == 0
}

func soloWithEverything(s *sweep) bool {
	return s.d.View().State.Mode == membership.Solo && s.guests.runs() == 0b110
}

var lives = []scripted{
	{
		name: "founding",
		world: func(t *testing.T) *sweep {
			return newSweep(t, membership.Record{}, membership.Record{}, register.Content{})
		},
		live: func(s *sweep) {
			s.connect()
			s.foundUntilFounded()
		},
		ended: bothPaired, least: 12,
	},
	{
		name: "takeover", // both were members; the peer is gone for good
		world: func(t *testing.T) *sweep {
			s := newSweep(t, theRecord(membership.A, 1, membership.Both), theRecord(membership.B, 1, membership.Both), at(1, register.Both))
			s.peer.do(func() { s.peer.dead = true })
			s.guests.wanted = []membership.ResourceID{1, 2}
			return s
		},
		live: func(*sweep) {}, ended: soloWithEverything, least: 12,
	},
	{
		name: "join of the peer", // this node is solo and brings the other one back
		world: func(t *testing.T) *sweep {
			s := newSweep(t, theRecord(membership.A, 2, membership.OnlyA), theRecord(membership.B, 1, membership.Both), at(2, register.OnlyA))
			s.guests.wanted = []membership.ResourceID{1}
			return s
		},
		live: (*sweep).connect, ended: func(s *sweep) bool { return bothPaired(s) && s.guests.runs() == 0b010 }, least: 15,
	},
	{
		name: "join of this node",
		world: func(t *testing.T) *sweep {
			return newSweep(t, theRecord(membership.A, 1, membership.Both), theRecord(membership.B, 2, membership.OnlyB), at(2, register.OnlyB))
		},
		live: (*sweep).connect, ended: bothPaired, least: 12,
	},
	{
		name: "lease end", // paired, the peer falls silent inside the session, then is lost
		world: func(t *testing.T) *sweep {
			s := newSweep(t, theRecord(membership.A, 1, membership.Both), theRecord(membership.B, 1, membership.Both), at(1, register.Both))
			s.guests.wanted = []membership.ResourceID{1, 2}
			return s
		},
		live: (*sweep).loseTheLease, ended: soloWithEverything, least: 35,
	},
}

// foundUntilFounded gives the order again while this node is fresh, each time with a register of its own.
func (s *sweep) foundUntilFounded() {
	d := s.d
	go func() {
		tick := time.NewTicker(40 * time.Millisecond)
		defer tick.Stop()
		for n := byte(1); ; n++ {
			st := d.View().State
			if st.Fresh() && st.Peer.Hello && st.Copy == membership.CopyIdle {
				f := membership.Found{Site: membership.ID{1, n}, Arb: membership.Arb{Kind: membership.ArbWitness, RID: membership.ID{9, n}}}
				f.Owners[0], f.Owners[1] = membership.Owner{Version: 1}, membership.Owner{Version: 1}
				f.Legs[0].Set, f.Legs[0].Version = membership.Both, 1
				s.vote.create(register.ID(f.Arb.RID), register.Content{})
				d.postEvent(f)
			}
			select {
			case <-d.done:
				return
			case <-tick.C:
			}
		}
	}()
}

// loseTheLease pairs, lets resource 1 run, and then the peer is silent. A driver that begins later finds it silent.
func (s *sweep) loseTheLease() {
	if s.peer.view().Cfg.Self == membership.B && !s.peerGone() {
		s.connect()
	}
	d := s.d
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		lost := membership.Boottime(0)
		for {
			st := d.View().State
			if !s.peerGone() && bothPaired(s) && s.guests.runs() == 0b010 {
				s.silence.Store(true)
				s.peer.do(func() { s.peer.dead = true })
			}
			switch {
			case !s.peerGone() || st.Session == 0:
				lost = 0
			case lost == 0:
				lost = d.now() + sweepTiming(membership.A).Lease + 300e6 // after the lease, for this life
			case d.now() >= lost:
				d.postEvent(membership.PeerLost{Session: st.Session})
				lost = 0
			}
			select {
			case <-d.done:
				return
			case <-tick.C:
			}
		}
	}()
}

func (s *sweep) peerGone() bool { return s.silence.Load() }

// settled waits for the first effect of a driver, or its end, and lets life go on.
func (s *sweep) settled(over <-chan error, live func(*sweep)) error {
	s.t.Helper()
	var err error
	dead := false
	until(s.t, "the first effect", func() bool {
		select {
		case err = <-over:
			dead = true
		default:
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return dead || s.index > 0
	})
	if !dead {
		live(s)
	}
	return err
}

// play runs a driver until it ends or the life does.
func (s *sweep) play(l scripted, act func(int, membership.Effect) bool) (err error, died bool) { //nolint:revive // the error of the driver is a result here
	s.t.Helper()
	_, stop, over := s.start(act)
	defer stop()
	if err := s.settled(over, l.live); err != nil {
		return err, true
	}
	deadline := time.Now().Add(15 * time.Second)
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for !l.ended(s) {
		select {
		case err := <-over:
			return err, true
		case <-tick.C:
			if time.Now().After(deadline) {
				st := s.d.View().State
				s.t.Fatalf("%s: never: its end: %v, epoch %d, members %v, session %d, peer %v at %d, runs %b, effects %v", l.name, st.Mode,
					st.Rec.Ep, st.Rec.Members, st.Session, s.peer.view().Mode, s.peer.view().Rec.Ep, s.guests.runs(), s.kinds[:min(len(s.kinds), 40)])
			}
		}
	}
	return nil, false
}

// course are the kinds of the effects of a life that nothing disturbs, played once for all sweeps.
type course struct {
	once  sync.Once
	kinds []string
}

var courses sync.Map // by the life's name

func untouched(t *testing.T, l scripted) []string {
	loaded, _ := courses.LoadOrStore(l.name, &course{})
	c := loaded.(*course)
	c.once.Do(func() {
		s := l.world(t)
		if err, died := s.play(l, func(int, membership.Effect) bool { return false }); died {
			t.Fatal(err)
		}
		s.sane()
		c.kinds = s.kinds
	})
	if len(c.kinds) < l.least {
		t.Fatalf("%s: only %d effects: %v", l.name, len(c.kinds), c.kinds)
	}
	return c.kinds
}

// each plays one kind of disturbance at every effect of every life that match allows; with -short at every sixth.
func each(t *testing.T, variants []string, match func(kind string) bool, play func(t *testing.T, l scripted, k int, variant string) bool) {
	var points atomic.Int64
	t.Run("lives", func(t *testing.T) {
		for _, l := range lives {
			for k, kind := range untouched(t, l) {
				if !match(kind) || testing.Short() && k%6 != 0 {
					continue
				}
				for _, variant := range variants {
					t.Run(fmt.Sprintf("%s/%d %s%s", l.name, k, kind, variant), func(t *testing.T) {
						t.Parallel()
						if play(t, l, k, variant) {
							points.Add(1)
						}
					})
				}
			}
		}
	})
	t.Logf("%d points", points.Load())
	if points.Load() == 0 {
		t.Error("nothing was disturbed")
	}
}

// The process dies before effect k, for every k of every life, and a new one begins over the same files: in the same boot,
// with what ran still running; or after a power cut, with nothing. The record is the last one whose Persist was done. The
// snapshot counts when boot id and Seq are right, and only then. What may not run is stopped before anything is granted.
// And the life reaches its end.
//
// Proves: protocol.md 4, 5.1, 12.7; issue 3, daemon killed at every effect boundary.
func TestSweepDeathAtEveryEffect(t *testing.T) {
	every := func(string) bool { return true }
	each(t, []string{", killed", ", power cut"}, every, func(t *testing.T, l scripted, k int, variant string) bool {
		return dieAt(t, l, k, variant == ", power cut")
	})
}

// dieAt returns false when the life had fewer effects this time: repeats come by the clock.
func dieAt(t *testing.T, l scripted, k int, powerCut bool) bool {
	s := l.world(t)
	err, died := s.play(l, func(i int, _ membership.Effect) bool { return i == k })
	if !died {
		return false
	}
	if !errors.Is(err, errCut) {
		t.Fatalf("effect %d: %v", k, err)
	}
	if rec := s.recordNow(); rec != s.disk {
		t.Fatalf("record %d of epoch %d on disk, %d of epoch %d was written", rec.Seq, rec.Ep, s.disk.Seq, s.disk.Ep)
	}
	s.pending = nil // of the effect that was cut off
	if powerCut {
		s.boot = "boot-2"
		s.guests.mu.Lock()
		s.guests.running = 0
		s.guests.mu.Unlock()
		_ = s.mirror.Revoke()
	}
	snap, there := s.snapshotOnDisk()
	resumes := there && snap.BootID == s.boot && snap.Seq == s.disk.Seq && snap.State.Rec.Seq == s.disk.Seq
	if err, died := s.play(l, func(i int, e membership.Effect) bool {
		if i == 0 && s.d.resumed != resumes {
			t.Errorf("resumed %v; boot %q and %q, record %d and %d", s.d.resumed, snap.BootID, s.boot, snap.Seq, s.disk.Seq)
		}
		if resumes && s.d.state.Rec != s.disk {
			if _, first := e.(membership.Persist); first && i == 0 {
				t.Error("resumed with another record")
			}
		}
		return false
	}); died {
		t.Fatalf("after a death before effect %d: %v", k, err)
	}
	s.sane()
	if len(s.resets) != 0 {
		t.Errorf("resets: %q", s.resets)
	}
	return true
}

// Barrier k fails, for every k: a Persist halts the node; a Stop, Grant or Revoke that cannot be confirmed, by a
// duet-mirrord that cannot be killed either, resets it. In every case nothing that runs is left, nothing more is granted,
// and the record is the old one or the new one.
func TestSweepFailureOfEveryBarrier(t *testing.T) {
	each(t, []string{""}, oneOf("Persist", "Stop", "Grant", "Revoke"), failAt)
}

func oneOf(kinds ...string) func(string) bool {
	return func(kind string) bool { return slices.Contains(kinds, kind) }
}

func failAt(t *testing.T, l scripted, k int, _ string) bool {
	s := l.world(t)
	var failed membership.Effect
	var hit atomic.Bool
	whole := l
	whole.ended = func(s *sweep) bool { return !hit.Load() && l.ended(s) }
	err, died := s.play(whole, func(i int, eff membership.Effect) bool {
		if i != k {
			return false
		}
		switch e := eff.(type) {
		case membership.Persist:
			_ = s.d.cfg.Records.Close()
		case membership.Stop:
			if !e.All {
				return false // memoryGuests is stubborn as a whole only
			}
			s.guests.mu.Lock()
			s.guests.running |= 0b010
			s.guests.stubborn = true
			s.guests.mu.Unlock()
		case membership.Grant, membership.Revoke:
			deafen(t, s.d)
		default:
			return false // another effect than last time: repeats come by the clock
		}
		failed = eff
		hit.Store(true)
		return false
	})
	if failed == nil || !died { // it came after the end of the life
		return false
	}
	halted, reset := errors.Is(err, ErrHalted), errors.Is(err, errReset)
	if _, persist := failed.(membership.Persist); persist != halted || persist == reset || reset != (len(s.resets) > 0) { // the guard of the lease may ask for it, too
		t.Errorf("effect %d, %T: %v, resets %q", k, failed, err, s.resets)
	}
	if reset && !s.d.pets.hold.Load() {
		t.Error("the watchdog is petted on")
	}
	if halted && (s.guests.runs() != 0 || s.mirror.mode() != control.Revoked) {
		t.Errorf("halted, and %b runs, granted %v", s.guests.runs(), s.mirror.mode())
	}
	if rec := s.recordNow(); rec != s.disk && (s.pending == nil || rec != *s.pending) {
		t.Errorf("record %d of epoch %d on disk: neither the old one nor the new one", rec.Seq, rec.Ep)
	}
	if st := s.d.View().State; st.Mode != membership.Init {
		t.Errorf("a node that has stopped is shown as %v", st.Mode)
	}
	s.sane()
	return true
}

// A Grant or Revoke that is refused costs duet-mirrord its life, which takes the right away as well: no reset, and the life
// reaches its end with the next duet-mirrord.
func TestSweepRefusalOfEveryGrant(t *testing.T) {
	each(t, []string{""}, oneOf("Grant", "Revoke"), refuseAt)
}

func refuseAt(t *testing.T, l scripted, k int, _ string) bool {
	s := l.world(t)
	refused, killed := false, false
	err, died := s.play(l, func(i int, e membership.Effect) bool {
		switch e.(type) {
		case membership.Grant, membership.Revoke:
			if i == k && s.d.mirror.current() != nil {
				refused = true
				s.refuse.Store(true)
			}
		}
		if refused && i > k {
			killed = killed || s.prey.died()
		}
		return false
	})
	if died {
		t.Fatal(err)
	}
	s.sane()
	if refused && !s.refuse.Load() && !killed && !s.prey.died() {
		t.Error("duet-mirrord lives, and does not obey")
	}
	if len(s.resets) != 0 {
		t.Errorf("resets: %q", s.resets)
	}
	return refused
}

// deafen makes duet-mirrord one that neither confirms nor dies: no connection, and a descriptor that is no process.
func deafen(t *testing.T, d *Driver) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Error(err)
		return
	}
	d.mirror.mu.Lock()
	defer d.mirror.mu.Unlock()
	if d.mirror.client != nil {
		_ = d.mirror.client.Close()
		d.mirror.client = nil
	}
	if d.mirror.pidfd >= 0 {
		_ = unix.Close(d.mirror.pidfd)
	}
	d.mirror.pidfd = fd
}

// Effect k is lost, for every k that may be: a message, a question, a copy that nobody reports. Timers repeat it, or the
// session ends and another begins; the life reaches its end.
func TestSweepLossOfEveryMessage(t *testing.T) {
	each(t, []string{""}, oneOf("Send", "AskWitness", "PushWitness"), loseAt)
}

func loseAt(t *testing.T, l scripted, k int, _ string) bool {
	s := l.world(t)
	lost := false
	s.lose = func(i int, e membership.Effect) bool {
		if i != k {
			return false
		}
		switch e.(type) {
		case membership.Send:
			lost = true
			s.breakSoon()
			return true
		case membership.AskWitness, membership.PushWitness:
			lost = true
			s.vote.mu.Lock()
			s.vote.lose = true
			s.vote.mu.Unlock()
		}
		return false
	}
	if err, died := s.play(l, func(int, membership.Effect) bool { return false }); died {
		t.Fatal(err)
	}
	s.sane()
	return lost
}

// breakSoon ends the session for both, and begins the next: a session loses messages only by ending (membership duty 6).
func (s *sweep) breakSoon() {
	go func() {
		if !s.peerGone() {
			s.connect()
		}
	}()
}
