package node

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
	"duet/ipmi/fence"
	"duet/ipmi/sim"
)

// powerBox is a node's power as its BMC has it; the daemons of these tests live on when it is "off".
type powerBox struct {
	mu sync.Mutex
	on bool
}

func (b *powerBox) Powered() bool   { b.mu.Lock(); defer b.mu.Unlock(); return b.on }
func (b *powerBox) PowerOn() error  { b.set(true); return nil }
func (b *powerBox) PowerOff() error { b.set(false); return nil }
func (b *powerBox) set(on bool)     { b.mu.Lock(); defer b.mu.Unlock(); b.on = on }

// withBMCs gives both nodes a BMC and founds the site, live tests included.
func (p *plant) withBMCs() (boxes [2]*powerBox, bmcs [2]*sim.BMC) {
	t := p.t
	t.Helper()
	doc := p.answers()
	for i, n := range []*site.Node{&doc.Nodes.A, &doc.Nodes.B} {
		boxes[i] = &powerBox{on: true}
		bmc, err := sim.NewBMC(sim.BMCConfig{User: "fence", Password: "not-a-secret", GUID: [16]byte{0xa0, byte(i), 7}, Chassis: boxes[i]})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = bmc.Serve(ctx, conn) }()
		t.Cleanup(func() { cancel(); <-done })
		bmcs[i] = bmc
		n.BMC = &site.BMC{Address: conn.LocalAddr().String(), User: "fence", Password: "not-a-secret"}
	}
	p.enrol()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := p.nodes[0].Answer(ctx, doc, func(s api.Step) { t.Logf("%s: %s %s", s.Name, s.State, s.Detail) }); err != nil {
		t.Fatal(err)
	}
	p.until("setup is complete on both", 20*time.Second, func() bool {
		return p.paired() && p.site(0).Setup == "complete" && p.site(1).Setup == "complete"
	})
	return boxes, bmcs
}

// The standing proof of both directions, the tests by order, the ledger and the latch, through the whole node.
func TestFencing(t *testing.T) {
	p := newPlant(t)
	p.start(0, true)
	p.start(1, true)
	boxes, bmcs := p.withBMCs()
	a, b := p.nodes[0], p.nodes[1]
	p.until("proven in both directions, seen from both", 10*time.Second, func() bool {
		return a.fencerNow().ProofFresh() && b.fencerNow().ProofFresh()
	})
	for _, path := range p.site(0).Fence.Paths {
		if path.State != "ready" || !path.Fresh || !path.Proven || path.Power != "on" || path.By == path.Node || path.ProofAgeMS < 0 {
			t.Errorf("%+v", path)
		}
	}
	if n := len(p.site(0).Fence.Paths); n != 2 {
		t.Errorf("%d paths", n)
	}

	// A test that switches nothing tells what is wrong now; the peer is told, and prudence no longer allows R21a.
	bmcs[1].SetFaults(sim.BMCFaults{RoleUser: true})
	paths, err := a.FenceTest(t.Context(), "b")
	if err != nil || len(paths) != 1 || paths[0].Fault == nil || paths[0].Fault.Code != string(event.BMCRole) || paths[0].Fresh {
		t.Errorf("%+v, %v", paths, err)
	}
	p.until("b knows that it cannot be fenced", 5*time.Second, func() bool {
		return !a.fencerNow().ProofFresh() && !b.fencerNow().ProofFresh()
	})
	bmcs[1].SetFaults(sim.BMCFaults{})
	if paths, err := a.FenceTest(t.Context(), "b"); err != nil || paths[0].Fault != nil {
		t.Errorf("mended: %+v, %v", paths, err)
	}
	var other *api.OtherNodeError
	if _, err := a.FenceTest(t.Context(), "a"); !errors.As(err, &other) || other.Node != "b" {
		t.Errorf("a node tests the ways to itself: %v", err)
	}

	// The live test by order.
	var steps []string
	p.until("the witness is reached by both", 10*time.Second, func() bool { return p.site(0).Word == "safe" })
	if err := a.FenceTestLive(t.Context(), "b", false, "root", "new cords", func(s string) { steps = append(steps, s) }); err != nil {
		t.Fatalf("%v after %q", err, steps)
	}
	if !boxes[1].Powered() || len(steps) < 5 {
		t.Errorf("powered %v; %q", boxes[1].Powered(), steps)
	}
	if learned := a.store.Runtime().Learned["b"]; learned.Firmware == "" {
		t.Error("the firmware was not recorded")
	}

	// A BMC that was exchanged: what its test has shown becomes part of the document of both.
	guid := "c0ffee00000000000000000000000000"
	f := &fencer{self: membership.A, runner: &fence.Runner{}, told: newFaults()}
	f.live = func(context.Context, *fence.NewBMC, func(string)) (fence.TestResult, error) {
		return fence.TestResult{BMCProven: true, GUID: guid, Firmware: "9"}, nil
	}
	before, _ := a.document()
	if err := a.liveTest(t.Context(), f, &fence.NewBMC{}, "root", "new board", func(string) {}); err != nil {
		t.Fatal(err)
	}
	p.until("both know the new one", 5*time.Second, func() bool {
		x, _ := a.document()
		y, _ := b.document()
		return x.Nodes.B.BMC.GUID == guid && y.Nodes.B.BMC.GUID == guid && a.fencerNow().wiring().BMC.GUID == guid
	})
	if err := a.changeDocument(t.Context(), func(d *site.Document) { newGUID(d, membership.B, before.Nodes.B.BMC.GUID) }); err != nil {
		t.Fatal(err)
	}

	// The latch holds against R10b, and is durable.
	if err := a.LatchNode(t.Context(), "b", "fan", "root"); err != nil {
		t.Fatal(err)
	}
	boxes[1].set(false)
	if err := a.fencerNow().PowerOn(t.Context()); event.CodeOf(err) != event.NodeLatched || boxes[1].Powered() {
		t.Errorf("latched: %v", err)
	}
	boxes[1].set(true)
	p.stops[0]()
	p.start(0, false)
	a = p.nodes[0]
	p.until("paired in the same session", 5*time.Second, p.paired)
	if latches := p.site(0).Fence.Latches; len(latches) != 1 || latches[0].Reason != "fan" {
		t.Errorf("after a restart: %+v", latches)
	}
	if err := a.UnlatchNode(t.Context(), "b", "new fan", "root"); err != nil || len(p.site(0).Fence.Latches) != 0 {
		t.Errorf("unlatch: %v", err)
	}
	p.until("the ledger knows all of it, also over the restart", 5*time.Second, func() bool {
		entries, err := a.FenceHistory(t.Context(), 99)
		entries = slices.DeleteFunc(entries, func(e api.FenceEntry) bool { return e.What == "fence" }) // a busy machine loses sessions
		var what []string
		for _, e := range entries {
			what = append(what, e.What+" by "+e.By)
		}
		last := len(entries) - 1
		return err == nil && slices.Equal(what, []string{"unlatch by root", "latch by root", "live-test by root", "live-test by root", "live-test by setup"}) &&
			entries[last].Verdict == "confirmed" && len(entries[last].Steps) > 2 && strings.Contains(entries[last-1].Why, "new cords")
	})
}

// A live test that disproves a map takes the proof back on both nodes and for good; when two documents are united, the
// side that took it back is right.
func TestDisprovedOutlets(t *testing.T) {
	p := pairOf(t)
	a, b := p.nodes[0], p.nodes[1]
	if err := a.changeRuntime(func(r *site.Runtime) { r.OutletsProven["a"], r.OutletsProven["b"] = true, true }); err != nil {
		t.Fatal(err)
	}
	p.until("b knows of the proof", 5*time.Second, func() bool { return b.store.Runtime().OutletsProven["b"] })
	test := func(result fence.TestResult, code string) {
		t.Helper()
		f := &fencer{self: membership.A, runner: &fence.Runner{}, told: newFaults()}
		f.live = func(context.Context, *fence.NewBMC, func(string)) (fence.TestResult, error) {
			return result, &fence.Fault{Code: code}
		}
		if err := a.liveTest(t.Context(), f, nil, "root", "new cords", func(string) {}); event.CodeOf(err) != event.Code(code) {
			t.Errorf("the test says %v", err)
		}
	}
	test(fence.TestResult{}, fence.CodeBMCSilent)
	if !a.store.Runtime().OutletsProven["b"] {
		t.Error("a test that shows nothing took the proof")
	}
	test(fence.TestResult{OutletsWrong: true}, fence.CodeCrossed)
	p.until("b knows of the disproof", 5*time.Second, func() bool {
		r := b.store.Runtime()
		return !r.OutletsProven["b"] && r.OutletsProven["a"]
	})
	if doc, _ := a.document(); target(doc, membership.B, a.store.Runtime()).OutletsProven {
		t.Error("a new fencer would believe them")
	}
	for _, proofs := range [][2]map[string]bool{
		{{"a": true, "b": true}, {"a": true, "b": false}}, {{"a": true, "b": false}, {"a": true, "b": true}},
		{{"b": false}, {"a": true}}, {{"a": true}, {"b": false}},
	} {
		into := site.Runtime{OutletsProven: proofs[0]}.Next(1)
		uniteRuntime(&into, site.Runtime{OutletsProven: proofs[1]}, func(string) bool { return false })
		if !into.OutletsProven["a"] || into.OutletsProven["b"] {
			t.Errorf("%v and %v are united to %v", proofs[0], proofs[1], into.OutletsProven)
		}
	}
}

// What may not be tested is refused with its reason; a join lifts the latch.
func TestFencingRefusals(t *testing.T) {
	p := newPlant(t)
	n := p.booted()
	if _, err := n.FenceTest(t.Context(), "b"); event.CodeOf(err) != event.NotFounded {
		t.Errorf("%v", err)
	}
	if err := n.LatchNode(t.Context(), "b", "x", "root"); event.CodeOf(err) != event.NotFounded {
		t.Errorf("%v", err)
	}
	if reason := n.mayTest(t.Context()); reason == "" {
		t.Error("a fresh node may test")
	}
	if verdict, why := (&fencer{self: membership.A}).Fence(t.Context(), membership.Fence{}); verdict != membership.Unknown || why == "" {
		t.Errorf("no path: %v", verdict)
	}
}

// The live test is refused when this node would not go on while the other one is off: that the nodes are paired does not
// give it a vote.
func TestLiveTestNeedsASurvivor(t *testing.T) {
	p := pairOf(t)
	n := p.nodes[0]
	p.until("safe", 10*time.Second, func() bool { return n.mayTest(t.Context()) == "" })
	p.until("refused while the other node does not reach the witness", 5*time.Second, func() bool {
		n.mu.Lock()
		n.arbiter.told.Reached = false // it says so anew every 5 s
		n.mu.Unlock()
		return strings.Contains(n.mayTest(t.Context()), "the site has to be safe, and is not: press-7: at risk")
	})
	if err := n.changeRuntime(func(r *site.Runtime) { r.Latched["b"] = site.Latch{By: "root", Reason: "fan"} }); err != nil {
		t.Fatal(err)
	}
	if why := n.mayTest(t.Context()); !strings.Contains(why, "latched off: fan") {
		t.Errorf("a latched node: %q", why)
	}
}

// Without a witness nothing may run anywhere: what decides there is what is being tested.
func TestLiveTestWithoutAWitness(t *testing.T) {
	p := newPlant(t)
	p.start(0, true)
	p.start(1, true)
	doc := p.answers()
	doc.Witness, doc.VMs = nil, []site.VM{{Name: "press", MemoryMiB: 64, VCPUs: 1, Disks: []string{"data"}}}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := p.nodes[0].Answer(ctx, doc, func(s api.Step) { t.Logf("%s: %s %s", s.Name, s.State, s.Detail) }); err != nil {
		t.Fatal(err)
	}
	n := p.nodes[0]
	p.until("paired", 5*time.Second, func() bool { return n.driver.View().State.Committed() })
	if why := n.mayTest(t.Context()); !strings.Contains(why, "VM press has to be stopped") {
		t.Errorf("with a VM here: %q", why)
	}
	if err := n.changeRuntime(func(r *site.Runtime) { r.StoppedVMs[p.site(0).VMs[0].ID] = true }); err != nil {
		t.Fatal(err)
	}
	if why := n.mayTest(t.Context()); why != "" {
		t.Errorf("with nothing running: %q", why)
	}
	busy := &fencer{self: membership.A}
	busy.held.Store(true)
	n.mu.Lock()
	n.fencer = busy
	n.mu.Unlock()
	if err := n.MoveVM(ctx, "press", "root", "x"); event.CodeOf(err) != event.OrderRefused || !strings.Contains(event.As(err).Why(), "live fence test") {
		t.Errorf("a move during a live test: %v", err)
	}
	n.mu.Lock()
	n.fencer = nil
	n.mu.Unlock()
}

func TestPeerLatchEndsWithAJoin(t *testing.T) {
	p := newPlant(t)
	p.start(0, true)
	p.start(1, true)
	p.found()
	p.until("paired after founding", 5*time.Second, p.paired)
	p.crash(1)
	p.until("the survivor is solo", 6*time.Second, p.mode(0, "solo"))
	if err := p.nodes[0].LatchNode(t.Context(), "b", "look at it", "root"); err != nil {
		t.Fatal(err)
	}
	p.start(1, true)
	p.until("paired again, and no longer latched", 10*time.Second, func() bool {
		return p.paired() && len(p.site(0).Fence.Latches) == 0 && len(p.nodes[1].store.Runtime().Latched) == 0
	})
}

// What was acknowledged on one node outlives what the other one writes meanwhile, without having heard of it.
func TestRuntimeChangesSideBySide(t *testing.T) {
	p := pairOf(t)
	owner := 0
	if p.site(0).PairOwner == "b" {
		owner = 1
	}
	for _, i := range []int{owner, 1 - owner} {
		me, peer := p.nodes[i], p.nodes[1-i]
		name := peer.self.String()
		p.until("the documents agree", 5*time.Second, func() bool { return sameRuntime(me.store.Runtime(), peer.store.Runtime()) })
		base := me.store.Runtime()
		other := base.Next(base.Epoch).Next(base.Epoch) // two changes, without a look at what is written here
		other.Writes[name] += 2
		other.Learned[name] = site.Learned{Firmware: "9"}
		body, err := json.Marshal(other)
		if err != nil {
			t.Fatal(err)
		}
		peer.runtimeMu.Lock() // as if they were written there
		err = peer.store.SaveRuntime(other)
		peer.runtimeMu.Unlock()
		if err := errors.Join(err, me.LatchNode(t.Context(), name, "fan", "root"), me.toldRuntime(body)); err != nil {
			t.Fatal(err)
		}
		p.until("both changes are on both", 5*time.Second, func() bool {
			x, y := me.store.Runtime(), peer.store.Runtime()
			return sameRuntime(x, y) && x.Latched[name].Reason == "fan" && x.Learned[name].Firmware == "9"
		})
	}
}

// An order about a VM is of the node that owns it, also when two documents are united.
func TestUnitedOrders(t *testing.T) {
	vms := func(ids ...string) map[string]bool {
		m := map[string]bool{}
		for _, id := range ids {
			m[id] = true
		}
		return m
	}
	into := site.Runtime{Epoch: 5, Version: 3, StoppedVMs: vms("mine", "started there")}.Next(5)
	into.Writes["a"] = 4
	other := site.Runtime{Epoch: 6, Version: 9, StoppedVMs: vms("started here", "stopped there"), Writes: map[string]uint64{"a": 2, "b": 7}}
	uniteRuntime(&into, other, func(id string) bool { return strings.HasSuffix(id, "there") })
	if !maps.Equal(into.StoppedVMs, vms("mine", "stopped there")) || !into.Newer(other) || into.Lacks(other) || into.Writes["a"] != 4 {
		t.Errorf("%+v", into)
	}
}

// What is lifted by a join was set before it: the order to keep a node off that has just joined stays.
func TestLatchBehindAJoinStays(t *testing.T) {
	n := newPlant(t).booted()
	err := n.changeRuntime(func(r *site.Runtime) {
		r.Latched["a"], r.Latched["b"], r.Forced = site.Latch{By: byLeave, Epoch: 6}, site.Latch{By: "root", Epoch: 7}, true
	})
	if err != nil {
		t.Fatal(err)
	}
	n.liftJoined(7)
	if r := n.store.Runtime(); len(r.Latched) != 1 || r.Latched["b"].Epoch != 7 || r.Forced {
		t.Errorf("after the join at epoch 7: %+v", r)
	}
	n.liftJoined(8)
	if r := n.store.Runtime(); len(r.Latched) != 0 {
		t.Errorf("after the next join: %+v", r)
	}
}

// Whatever a peer tells of the paths, it is taken whole or refused.
func FuzzPublished(f *testing.F) {
	f.Add([]byte(`[{"kind":"bmc","state":"on","age_ms":7,"fresh":true}]`))
	f.Add([]byte(`[{"kind":"bmc","age_ms":-1,"code":"FENCE-5012"}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		told, err := parsePublished(body)
		if err != nil {
			return
		}
		var p proof
		p.take(told)
		if back, ok := p.fromPeer(); !ok || len(back) > publishedMax {
			t.Fatalf("%d paths", len(back))
		}
	})
}

// A new version of the document makes a new fencer only if it changes something about fencing: what is known of devices
// and of commands under way goes on.
func TestFencerOutlivesDocuments(t *testing.T) {
	n := newPlant(t).booted()
	doc := site.Document{PDU: &site.PDU{Address: "127.0.0.1:9", Product: "netio"}}
	doc.Nodes.A.BMC = &site.BMC{Address: "127.0.0.1:8", User: "u", Password: "p", GUID: "00"}
	doc.Nodes.B.BMC = &site.BMC{Address: "127.0.0.1:9", User: "u", Password: "p"}
	doc.Nodes.B.Outlets = []site.Outlet{{Outlet: 3}, {Outlet: 4}}
	place := func() (*fencer, bool) {
		t.Helper()
		f, fresh, err := n.fencerFor(doc)
		if err != nil {
			t.Fatal(err)
		}
		if fresh {
			t.Cleanup(func() { f.close() })
		}
		n.mu.Lock()
		n.fencer = f
		n.mu.Unlock()
		return f, fresh
	}
	t.Cleanup(func() { n.mu.Lock(); defer n.mu.Unlock(); n.fencer = nil })
	first, fresh := place()
	if !fresh {
		t.Fatal("there was none")
	}
	doc.Version, doc.Name, doc.Volumes = 2, "other", []site.Volume{{Name: "data"}}
	if f, fresh := place(); fresh || f != first {
		t.Error("a new fencer for an unchanged part")
	}
	for name, change := range map[string]func(){
		"password":   func() { doc.Nodes.B.BMC = &site.BMC{Address: "127.0.0.1:9", User: "u", Password: "q"} },
		"outlets":    func() { doc.Nodes.B.Outlets = []site.Outlet{{Outlet: 5}} },
		"own system": func() { doc.Nodes.A.BMC = &site.BMC{Address: "127.0.0.1:8", User: "u", Password: "p", GUID: "01"} },
		"strict":     func() { doc.Fencing = &site.Fencing{Strict: true} },
	} {
		change()
		if _, fresh := place(); !fresh {
			t.Errorf("%s: the old fencer goes on", name)
		}
	}
}
