package node

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
	"duet/ipmi/fence/ledger"
)

// pairOf is a founded pair of two real nodes.
func pairOf(t *testing.T) *plant {
	t.Helper()
	p := newPlant(t)
	p.start(0, true)
	p.start(1, true)
	p.found()
	p.until("paired after founding", 5*time.Second, p.paired)
	return p
}

func (p *plant) ordered(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	p.t.Cleanup(cancel)
	return ctx
}

// another witness takes the present one's place in the plant; the answer ends that one.
func (p *plant) anotherWitness() (w site.Witness, endFormer func()) {
	end := p.witness.stop
	p.startWitness(filepath.Join(p.t.TempDir(), "another"))
	p.enrol()
	return site.Witness{Address: p.witness.addr, Key: p.witness.key}, end
}

// The witness is replaced while both nodes serve; the former one may end, and the vote of the new one counts (R19).
func TestWitnessIsReplaced(t *testing.T) {
	p := pairOf(t)
	before := p.site(0).Witness
	w, endFormer := p.anotherWitness()
	ctx := p.ordered(30 * time.Second)
	if err := p.nodes[1].ReplaceWitness(ctx, w, "root", "x", func(string) {}); event.CodeOf(err) != event.OrderRefused {
		t.Errorf("the node that does not own the pair: %v", err)
	}
	if err := p.nodes[0].AddWitness(ctx, w, "root", "x", func(string) {}); event.CodeOf(err) != event.OrderRefused {
		t.Errorf("one more witness: %v", err)
	}
	if s := p.site(0).Witness; s.Address != before.Address || s.Register != before.Register {
		t.Errorf("a refused order changed %+v to %+v", before, s)
	}
	var steps []string
	if err := p.nodes[0].ReplaceWitness(ctx, w, "root", "x", func(s string) { steps = append(steps, s) }); err != nil {
		t.Fatal(err)
	}
	if len(steps) != 4 {
		t.Errorf("steps %q", steps)
	}
	p.until("both name the new one, and nothing of the former", 5*time.Second, func() bool {
		a, b := p.site(0).Witness, p.site(1).Witness
		return a.Address == w.Address && b.Address == w.Address && a.Register == b.Register && a.Register != before.Register &&
			a.Former == "" && b.Former == "" && a.Confirmed && b.Confirmed && a.Known && b.Known
	})
	endFormer()
	// The present one loses its store, as far as the nodes can tell: a fresh register, by order.
	rid := p.site(0).Witness.Register
	if err := p.nodes[0].ReplaceWitness(ctx, site.Witness{}, "root", "x", func(string) {}); err != nil {
		t.Fatal(err)
	}
	if s := p.site(0).Witness; s.Address != w.Address || s.Register == rid {
		t.Errorf("no fresh register: %+v", s)
	}
	p.until("paired with it", 5*time.Second, p.paired)
	p.crash(0)
	p.until("the survivor goes on by the new witness's vote", 8*time.Second, p.mode(1, "solo"))
}

// A change of the document that is cut at any step of its way, on either side, is current on both or on none when they
// are together again; one that was acknowledged is never lost (R25, I12).
func TestDocumentChangeCutAnywhere(t *testing.T) {
	p := pairOf(t)
	acknowledged := 0
	for step, name := range []string{"begun", "held-there", "pending-here", "pending-there", "current-here", "acknowledged"} {
		for victim := range 2 {
			acknowledged += p.cutChange(step, victim, fmt.Sprint(name, "-", victim))
		}
	}
	if acknowledged < 2 {
		t.Errorf("%d changes were acknowledged; the last step is behind the answer", acknowledged)
	}
}

// cutChange changes the document and crashes the victim when the change has come to that step, or is over.
func (p *plant) cutChange(step, victim int, name string) (acknowledged int) {
	t := p.t
	t.Helper()
	before, _ := p.nodes[0].document()
	writer := 0
	if p.site(0).PairOwner == "b" {
		writer = 1
	}
	here, there := p.nodes[writer], p.nodes[1-writer]
	next := before
	next.Name, next.Version = name, before.Version+1
	hash, err := next.Hash()
	if err != nil {
		t.Fatal(err)
	}
	pending := func(n *Node) bool {
		return n.driver.View().State.Rec.Pending[membership.DocSite].Hash == membership.Digest(hash)
	}
	reached := [...]func() bool{
		func() bool { return true },
		func() bool { return there.holdsDocument(membership.Digest(hash)) },
		func() bool { return pending(here) },
		func() bool { return pending(there) },
		func() bool {
			return here.driver.View().State.Rec.Docs[membership.DocSite].Hash == membership.Digest(hash)
		},
		func() bool { return false },
	}[step]
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	changed := make(chan error, 1)
	go func() { changed <- here.changeDocument(ctx, func(d *site.Document) { d.Name = name }) }()
	for over := false; !over && !reached(); runtime.Gosched() {
		select {
		case err := <-changed:
			changed <- err
			over = true
		default:
		}
	}
	p.crash(victim)
	cancel()
	err = <-changed
	p.start(victim, true)
	p.until("paired again, with one document", 20*time.Second, func() bool {
		x, _ := p.nodes[0].document()
		y, _ := p.nodes[1].document()
		st := p.nodes[0].driver.View().State
		return p.paired() && x.Name == y.Name && x.Version == y.Version && st.Rec.Pending == membership.Docs{}
	})
	after, _ := p.nodes[0].document()
	t.Logf("%s: %v; version %d of %d", name, err, after.Version, before.Version)
	if after.Name != before.Name && after.Name != name || err == nil && after.Name != name || after.Version < before.Version {
		t.Fatalf("acknowledged: %v, yet the document is %q, version %d", err == nil, after.Name, after.Version)
	}
	if err == nil {
		return 1
	}
	return 0
}

// A node leaves and stays away until it is told to return; the other one goes on and says why.
func TestLeaveAndReturn(t *testing.T) {
	p := pairOf(t)
	ctx := p.ordered(20 * time.Second)
	if err := p.nodes[1].Leave(ctx, false, "root", "x"); event.CodeOf(err) != event.OrderRefused {
		t.Errorf("the node that does not own the pair: %v", err)
	}
	if len(p.nodes[1].store.Runtime().Latched) != 0 {
		t.Error("a refused leave left a latch")
	}
	if err := p.nodes[0].Return(ctx, "root"); event.CodeOf(err) != event.OrderRefused {
		t.Errorf("return of a node that is here: %v", err)
	}
	if err := p.nodes[0].Leave(ctx, false, "root", "new fan"); err != nil {
		t.Fatal(err)
	}
	p.until("the other goes on alone", 3*time.Second, p.mode(1, "solo"))
	soon := time.Now().Add(2 * time.Second) // longer than a session takes to begin
	p.until("it stays away", 5*time.Second, func() bool { return time.Now().After(soon) })
	a, b := p.site(0), p.site(1)
	if a.Word != "stopped" || a.Session != "" || !strings.Contains(a.Next, "node return a") {
		t.Errorf("node a says %s %q, next %q", a.Word, a.Sentence, a.Next)
	}
	if b.Word != "at risk" || !strings.Contains(b.Sentence, "a has left by order") {
		t.Errorf("node b says %s %q", b.Word, b.Sentence)
	}
	for _, s := range []api.Site{a, b} {
		if !hasFault(s, event.HasLeft) || hasFault(s, event.FrozenWaits) || hasFault(s, event.PeerOff) || hasFault(s, event.NodeLatched) {
			t.Errorf("node %s shows %+v", s.Node, s.Faults)
		}
	}
	if err := p.nodes[0].Return(ctx, "root"); err != nil {
		t.Fatal(err)
	}
	p.until("paired again", 10*time.Second, p.paired)
	p.until("the latch is lifted", 5*time.Second, func() bool {
		return len(p.nodes[0].store.Runtime().Latched)+len(p.nodes[1].store.Runtime().Latched) == 0
	})
}

func hasFault(s api.Site, code event.Code) bool {
	for _, f := range s.Faults {
		if f.Code == string(code) {
			return true
		}
	}
	return false
}

// Both lost their power and the witness is away: one alone refuses. A person forces it, by the word of what was shown; the
// other joins later, and nothing of the mark's alarm is left.
func TestForceSolo(t *testing.T) {
	p := pairOf(t)
	p.witness.stop()
	p.crash(0)
	p.crash(1)
	p.start(1, true)
	n := p.nodes[1]
	p.until("it waits", 5*time.Second, func() bool { return p.site(1).Word == "frozen" && len(n.driver.Moments()) > 0 })
	ctx := p.ordered(20 * time.Second)
	o, err := n.Overrides(ctx)
	if err != nil || o.PeerOff.Possible || !o.ForceSolo.Possible || len(o.ForceSolo.MayLose) == 0 || len(o.ForceSolo.Word) != 9 {
		t.Fatalf("%+v %v", o, err)
	}
	if err := n.Override(ctx, api.PeerOffOverride, o.ForceSolo.Word, "root", "x"); event.CodeOf(err) != event.OrderRefused {
		t.Errorf("a word is no evidence for a restarted node: %v", err)
	}
	for _, wrong := range []string{"", "AAAA-AAAA", o.ForceSolo.Word[1:]} {
		if err := n.Override(ctx, api.ForceSoloOverride, wrong, "root", "x"); event.CodeOf(err) != event.OverrideUnconfirmed {
			t.Errorf("word %q: %v", wrong, err)
		}
	}
	if s := p.site(1); s.Word != "frozen" || len(n.store.Runtime().Latched) != 0 {
		t.Fatalf("an unconfirmed override did something: %s, latched %v", s.Sentence, n.store.Runtime().Latched)
	}
	if err := n.Override(ctx, api.ForceSoloOverride, strings.ToLower(o.ForceSolo.Word), "root", "a burnt"); err != nil {
		t.Fatal(err)
	}
	p.until("it serves", 3*time.Second, p.mode(1, "solo"))
	s := p.site(1)
	if !hasFault(s, event.Forced) || !strings.Contains(s.Sentence, "by force, against its record: root: a burnt") || len(s.Fence.Latches) != 1 {
		t.Errorf("%q %+v %+v", s.Sentence, s.Faults, s.Fence.Latches)
	}
	if err := n.UnlatchNode(ctx, "a", "try it", "root"); err != nil || !hasFault(p.site(1), event.Forced) {
		t.Errorf("the latch was lifted and with it the alarm: %v", err)
	}
	p.start(0, true)
	p.until("paired again", 15*time.Second, func() bool { return p.site(0).Mode == "paired" && p.site(1).Mode == "paired" })
	p.until("the fault is gone, the latch too", 5*time.Second, func() bool {
		return !hasFault(p.site(1), event.Forced) && len(n.store.Runtime().Latched) == 0
	})
}

// The word of an override dies with everything that was shown beside it, and with nothing else.
func TestOverrideWord(t *testing.T) {
	n := newPlant(t).booted()
	st := membership.State{Mode: membership.Frozen}
	st.Rec.Ep, st.Rec.Members = 7, membership.Both
	seen := func(verdict string) {
		n.history.add(ledger.Entry{What: "fence", Node: "b", By: "core", Epoch: 7, Verdict: verdict, Decided: "bmc"})
	}
	within := func(what string, is func() bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := await(ctx, func() (bool, error) { return is(), nil }); err != nil {
			t.Fatal(what)
		}
	}
	seen("unknown")
	within("no evidence is kept", func() bool { return n.history.lastFence() != nil })
	word := n.word(forceSoloOverride, st)
	if again := n.word(forceSoloOverride, st); again != word || n.word(peerOffOverride, st) == word {
		t.Errorf("%s, and again %s", word, again)
	}
	for what, change := range map[string]func(*membership.State){
		"epoch":    func(st *membership.State) { st.Rec.Ep++ },
		"PREPARE":  func(st *membership.State) { st.Rec.Prep.Ep = 8 },
		"recorded": func(st *membership.State) { st.Rec.High = 9 },
		"members":  func(st *membership.State) { st.Rec.Members = membership.OnlyB },
		"arbiter":  func(st *membership.State) { st.Rec.Arb.Kind = membership.ArbFence },
		"register": func(st *membership.State) { st.Rec.Arb.RID[3] = 1 },
		"copy":     func(st *membership.State) { st.Rec.Consistent = true },
		"mode":     func(st *membership.State) { st.Mode = membership.Solo },
	} {
		other := st
		change(&other)
		if n.word(forceSoloOverride, other) == word {
			t.Errorf("the word outlives a change of the %s", what)
		}
	}
	seen("unknown")
	seen("refused")
	within("the word outlives other evidence", func() bool { return n.word(forceSoloOverride, st) != word })
}

// A survivor without evidence takes a person's word, once and for its epoch; the other node is latched off.
func TestPeerOffByPerson(t *testing.T) {
	p := pairOf(t)
	ctx := p.ordered(20 * time.Second)
	n := p.nodes[0] // it owns everything: no end of the other node's lease (R8) makes the word needless meanwhile
	if o, err := n.Overrides(ctx); err != nil || o.PeerOff.Possible || o.ForceSolo.Possible || o.PeerOff.Word+o.ForceSolo.Word != "" {
		t.Errorf("a healthy pair may be overridden: %+v %v", o, err)
	}
	p.crash(1)
	p.until("the survivor is solo", 8*time.Second, p.mode(0, "solo"))
	o, err := n.Overrides(ctx)
	if err != nil || !o.PeerOff.Possible || o.ForceSolo.Possible {
		t.Fatalf("%+v %v", o, err)
	}
	if err := n.Override(ctx, api.PeerOffOverride, o.PeerOff.Word, "root", "I pulled its cords"); err != nil {
		t.Fatal(err)
	}
	st := n.driver.View().State
	if l, is := n.latchOf(membership.B.String()); st.Rec.Fenced != st.Rec.Ep || !is || l.Reason != "I pulled its cords" {
		t.Errorf("fenced for epoch %d of %d, latch %+v", st.Rec.Fenced, st.Rec.Ep, l)
	}
	if err := n.Override(ctx, api.PeerOffOverride, o.PeerOff.Word, "root", "again"); event.CodeOf(err) != event.OrderRefused {
		t.Errorf("a second time: %v", err)
	}
	if hasFault(p.site(0), event.Forced) {
		t.Error("a word about the peer is shown as a forced record")
	}
}

// blocked lets the mirrors answer nothing from the moment on that node i takes an order. Nothing of the plant may be
// looked at until release is called.
func (p *plant) blocked(i int, order func()) (release func()) {
	p.t.Helper()
	orders := func() (count int) {
		for _, m := range p.nodes[i].driver.Moments() {
			if m.What == "order" {
				count++
			}
		}
		return count
	}
	before := orders()
	p.cable.mu.Lock()
	order()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := await(ctx, func() (bool, error) { return orders() > before, nil }); err != nil {
		p.cable.mu.Unlock()
		p.t.Fatalf("the order is not taken: %v", err)
	}
	return p.cable.mu.Unlock
}

// A client that goes away while its order is carried out does not undo it: the node has left, says so, and may return.
func TestLeaveOutlivesItsClient(t *testing.T) {
	p := pairOf(t)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	release := p.blocked(0, func() {
		go func() { left <- p.nodes[0].Leave(ctx, false, "root", "new fan") }()
	})
	cancel()
	err := <-left
	release()
	if event.CodeOf(err) != event.DeadlinePassed {
		t.Errorf("the order says %v", err)
	}
	p.until("the other goes on alone, and both know why", 8*time.Second, func() bool {
		return p.mode(1, "solo")() && hasFault(p.site(0), event.HasLeft) && hasFault(p.site(1), event.HasLeft)
	})
	if err := p.nodes[0].Return(t.Context(), "root"); err != nil {
		t.Fatal(err)
	}
	p.until("paired again", 10*time.Second, p.paired)
}

// The same for an override: what was forced is marked, and the other node stays latched.
func TestOverrideOutlivesItsClient(t *testing.T) {
	p := pairOf(t)
	p.witness.stop()
	p.crash(0)
	p.crash(1)
	p.start(1, true)
	n := p.nodes[1]
	p.until("it waits", 5*time.Second, func() bool { return p.site(1).Word == "frozen" && len(n.driver.Moments()) > 0 })
	o, err := n.Overrides(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	forced := make(chan error, 1)
	release := p.blocked(1, func() {
		go func() { forced <- n.Override(ctx, api.ForceSoloOverride, o.ForceSolo.Word, "root", "a burnt") }()
	})
	cancel()
	err = <-forced
	release()
	if event.CodeOf(err) != event.DeadlinePassed {
		t.Errorf("the order says %v", err)
	}
	p.until("it serves by force", 5*time.Second, func() bool { return p.mode(1, "solo")() && hasFault(p.site(1), event.Forced) })
	if _, latched := n.latchOf("a"); !latched {
		t.Error("the other node is not latched")
	}
}
