package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

// The scenarios share sites, because making one takes as long as a scenario. Each leaves its site in sync.

// TestStandby kills the standby.
func TestStandby(t *testing.T) {
	s := newSite(t)
	a, b := s.n[0], s.n[1]
	w := s.withApp(membership.A)

	// Proves: 5.1 StandbyCrash. Every process of b's postgres is killed; its manager does not bring it back yet.
	before := a.m.View()
	b.enabled.Store(false)
	b.killAll()
	await(t, patience, "b out of copies, read on a", func() bool {
		v, q := a.m.View(), b.m.View()
		return v.Record.Copies == membership.OnlyA && q.Status == "STOP" && q.Data == "DISCONNECT" && !q.Promotable && q.Why == "stale" &&
			q.Record.Copies == membership.OnlyA && q.Fails == 1 && a.addr.Held(decide.Read) && !b.addr.Held(decide.Read)
	})
	w.awaitMore(20, patience)
	if v := a.m.View(); v.Status != "PRI" || v.Timeline != before.Timeline || v.Record.PromoteLSN != before.Record.PromoteLSN {
		t.Errorf("a changed: %+v", v)
	}
	s.durableFirst(w, membership.OnlyA)

	// Proves: StalledCheckpointer at G2. The server says `sync` and does not wait: b is never counted.
	thaw := a.freeze("checkpointer")
	b.enabled.Store(true)
	b.m.Wake()
	await(t, patience, "a marker that proves nothing", func() bool { return a.log.has("the server does not wait for the standby") })
	if v := a.m.View(); v.Record.Copies != membership.OnlyA {
		t.Errorf("copies=%v with a checkpointer that stands still", v.Record.Copies)
	}
	w.awaitMore(20, patience)
	thaw()

	// Proves: 5.1b StandbyReturns.
	s.inSync(membership.A)
	w.awaitMore(20, patience)

	// Proves: StalledCheckpointer at L3. The record comes, the release does not; nobody is cancelled; it ends with the stall.
	thaw = a.freeze("checkpointer")
	b.enabled.Store(false)
	b.killAll()
	await(t, patience, "PG-4011 while commits wait", func() bool {
		return a.faults.has("raise PG-4011") && a.m.View().Record.Copies == membership.OnlyA && a.m.Facts().Waiters > 0
	})
	thaw()
	w.awaitMore(20, patience)
	b.enabled.Store(true)
	b.m.Wake()
	s.inSync(membership.A)
	w.finish(a.gates[decide.Write].addr())
}

// TestPrimary kills the primary.
func TestPrimary(t *testing.T) {
	s := newSite(t)
	a, b := s.n[0], s.n[1]
	w := s.withApp(membership.A)

	// Proves: 5.2 PrimaryCrash. What a wrote and could not send is not acknowledged: b lacks it, and a has to be rewound.
	baseline := a.m.View().Record.PromoteLSN
	a.tail()
	a.killAll()
	await(t, patience, "b serves, a is down", func() bool {
		v := b.m.View()
		return v.Status == "PRI" && v.Data == "LATEST" && b.gates.Open(decide.Write) && b.addr.Held(decide.Write) && !a.gates.Open(decide.Write) &&
			v.Record.PromoteLSN > baseline && a.m.View().Fails == 1
	})
	w.awaitMore(20, patience)

	// Proves: 5.2b OldPrimaryRejoins. Nothing by hand; the tail is kept for the bundle.
	s.inSync(membership.B)
	a.rewound(t)
	w.awaitMore(20, patience)

	// Proves: 5.3 OldPrimaryReclone. b crashes, and its directory is destroyed: it is copied from a, never made by initdb.
	system := b.m.Facts().SystemID
	gone := b.m.dirs.active()
	b.killAll()
	if err := os.RemoveAll(gone); err != nil {
		t.Fatal(err)
	}
	await(t, patience, "a serves", func() bool { return a.m.View().Status == "PRI" && a.gates.Open(decide.Write) })
	w.awaitMore(20, patience)
	s.inSync(membership.A)
	if got := b.m.Facts().SystemID; got != system {
		t.Errorf("system id %d became %d", system, got)
	}

	// Proves: NodeLossFenced, FenceRefused. a is gone with its node: no answer of a fence attempt is evidence, a confirmed one is.
	a.halt()
	a.killAll()
	s.script.lose(membership.B, decide.EvidenceRefused)
	b.mustStay("HS:alone", "HS:connected")
	s.script.lose(membership.B, decide.EvidenceUnknown)
	b.mustStay("HS:alone", "HS:connected")
	s.script.lose(membership.B, decide.EvidenceConfirmed)
	await(t, patience, "b serves alone", func() bool { return b.m.View().Status == "PRI" && b.gates.Open(decide.Write) })
	w.awaitMore(20, patience)
	if c := b.m.View().Record.Copies; c != membership.OnlyB {
		t.Errorf("copies=%v alone", c)
	}
	w.finish(b.gates[decide.Write].addr())
}

// TestSwitchover moves the primary by order, and restarts the managers in between.
func TestSwitchover(t *testing.T) {
	s := newSite(t)
	w := s.withApp(membership.A)

	// Proves: SwitchoverUnderLoad x 3. Copies never shrink, and no directory is rewound.
	s.script.mu.Lock()
	wrote := len(s.script.wrote)
	s.script.mu.Unlock()
	p := membership.A
	for range 3 {
		// The checkpoint after the last promotion may still be under way.
		await(t, patience, "a switchover may begin", func() bool { return s.n[p].m.Switchover(t.Context()) == decide.Granted })
		p = p.Peer()
		s.inSync(p)
		w.awaitMore(20, patience)
	}
	s.script.mu.Lock()
	for _, r := range s.script.wrote[wrote:] {
		if r.Copies != membership.Both {
			t.Errorf("copies=%v in a switchover", r.Copies)
		}
	}
	s.script.mu.Unlock()
	for _, n := range s.n {
		if most, err := n.m.dirs.highest(); err != nil || most != 1 {
			t.Errorf("node %v has %d directories, %v", n.id, most, err)
		}
	}

	// Proves: DaemonRestart. The server goes on, and its gate stays open.
	for _, n := range s.n {
		life := n.m.Facts().Life
		n.halt()
		n.run(s)
		await(t, patience, "adopted", func() bool { return n.m.Facts().Life == life })
	}
	s.inSync(p)
	w.awaitMore(20, patience)

	// Root's file of settings: not even a superuser turns fsync off.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := s.n[p].m.connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if _, err := c.ask(ctx, "ALTER SYSTEM SET fsync = off"); err == nil {
		t.Error("ALTER SYSTEM went through")
	}
	w.finish(s.n[p].gates[decide.Write].addr())

	// What is read of stopped directories is what PostgreSQL's own programs read: after a kill, and after a clean stop.
	for _, n := range s.n {
		n.halt()
	}
	// What membership ends without a manager is a primary, and no standby.
	for _, n := range s.n {
		if runs := PrimaryRuns(n.cfg.Root); runs != (n.id == p) {
			t.Errorf("a primary runs on node %v: %v", n.id, runs)
		}
		if err := EndPrimary(n.cfg.Root, patience); err != nil {
			t.Fatal(err)
		}
		if all, err := scanServer(n.m.dirs.active()); err != nil || len(all) > 0 != (n.id != p) {
			t.Errorf("node %v has %d processes left, %v", n.id, len(all), err)
		}
		if PrimaryRuns(n.cfg.Root) {
			t.Errorf("a primary still runs on node %v", n.id)
		}
	}
	if err := s.n[p.Peer()].m.stop(false); err != nil {
		t.Fatal(err)
	}
	for _, n := range s.n {
		againstTools(t, n.m.dirs.active())
	}
}

// durableFirst: no row was acknowledged by a server that had been told to go on alone before both nodes had the record.
// The script notes the moment of each record; a row that was acknowledged after the standby was gone and before it lost.
func (s *siteOf) durableFirst(w *writers, copies membership.Set) {
	s.t.Helper()
	s.script.mu.Lock()
	defer s.script.mu.Unlock()
	last := len(s.script.wrote) - 1
	if s.script.wrote[last].Copies != copies {
		s.t.Fatalf("the last record says copies=%v", s.script.wrote[last].Copies)
	}
	at := s.script.at[last]
	w.mu.Lock()
	defer w.mu.Unlock()
	var before time.Time
	for _, o := range w.ops {
		if o.acked && o.end.Before(at) && o.end.After(before) {
			before = o.end
		}
	}
	if gap := at.Sub(before); gap <= 0 {
		s.t.Errorf("a commit was acknowledged %v after the record", gap)
	}
}

// freeze stops one of the server's own processes, and gives what lets it go on.
func (n *node) freeze(kind string) (thaw func()) {
	n.t.Helper()
	pid := number(n.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = '" + kind + "'")[0][0], 10)
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		n.t.Fatal(err)
	}
	done := false
	thaw = func() {
		if !done {
			done = true
			_ = unix.Kill(pid, unix.SIGCONT)
		}
	}
	n.t.Cleanup(thaw)
	return thaw
}

// tail makes the primary write what its standby does not get: its walsender stands still.
func (n *node) tail() {
	n.t.Helper()
	if err := unix.Kill(int(n.m.Facts().Sender.PID), unix.SIGSTOP); err != nil {
		n.t.Fatal(err)
	}
	n.sql("SET synchronous_commit = local; CREATE TABLE tail AS SELECT generate_series(1, 1000) n")
}

// rewound: the directory was made by a rewind of a clone, the old one is kept, and the tail was exported.
func (n *node) rewound(t *testing.T) {
	t.Helper()
	if !n.log.has("rewind the clone") || filepath.Base(n.m.dirs.active()) != "main.2" {
		t.Errorf("not rewound: %s", n.m.dirs.active())
	}
	if _, err := readControl(n.m.dirs.numbered(1)); err != nil {
		t.Errorf("the old directory: %v", err)
	}
	if kept, err := filepath.Glob(filepath.Join(n.cfg.Export, "*", "*")); err != nil || len(kept) == 0 {
		t.Errorf("no tail exported: %v", err)
	}
}

// mustStay: for some looks, the node is one of these.
func (n *node) mustStay(words ...string) {
	n.t.Helper()
	from := n.m.View().At
	await(n.t, patience, "ten looks", func() bool { return n.m.View().At > from+membership.Boottime(500*time.Millisecond) })
	if v := n.m.View(); !strings.Contains(fmt.Sprint(words), v.Status) || n.gates.Open(decide.Write) {
		n.t.Errorf("node %v is %s", n.id, v.Status)
	}
}
