package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
	"duet/ipmi/fence"
	"duet/ipmi/fence/ledger"
)

// fencer turns the peer off and on, and proves that it could. While a live test runs, the core's orders get no evidence:
// the test switches the same outlets, and two orders at once would shoot a node that is just being given its power back.
type fencer struct {
	self membership.Node
	log  *slog.Logger
	told *faults
	held atomic.Bool // a live test runs
	own  string      // system GUID of this node's BMC

	target  fence.Target
	runner  *fence.Runner // nil: no way to fence
	proof   proof
	live    func(context.Context, *fence.NewBMC, func(string)) (fence.TestResult, error) // the runner's live test
	latched func() (site.Latch, bool)                                                    // of the peer; nil: there are no latches
	record  func(ledger.Entry)                                                           // nil: nowhere

	mu    sync.Mutex
	gifts []*gift // under way
}

func newFencer(doc site.Document, self membership.Node, r site.Runtime, told *faults, log *slog.Logger) (*fencer, error) {
	f := &fencer{self: self, told: told, log: log.With("subsystem", "fence"), own: ownGUID(doc, self)}
	f.target = target(doc, self.Peer(), r)
	if f.target.BMC == nil && f.target.PDU == nil {
		return f, nil
	}
	runner, err := fence.New(fence.Config{Target: f.target, OwnGUID: f.own, Log: f.log})
	if err != nil {
		return nil, fmt.Errorf("ways to fence node %v: %w", self.Peer(), err)
	}
	f.runner, f.live = runner, runner.LiveTest
	return f, nil
}

func ownGUID(doc site.Document, self membership.Node) string {
	if b := doc.Node(self.String()).BMC; b != nil {
		return b.GUID
	}
	return ""
}

// fencerFor is the fencer of a document: the present one, if nothing about fencing changed. It knows of commands that may
// still be carried out, and of proofs, which a new one would have to find anew.
func (n *Node) fencerFor(doc site.Document) (f *fencer, fresh bool, err error) {
	old := n.fencerNow()
	if old != nil && old.own == ownGUID(doc, n.self) && reflect.DeepEqual(old.wiring(), target(doc, n.peer(), site.Runtime{})) {
		return old, false, nil
	}
	f, err = newFencer(doc, n.self, n.store.Runtime(), n.faults, n.log)
	return f, true, err
}

// wiring is the target without what live tests learned.
func (f *fencer) wiring() fence.Target {
	t := f.target
	t.OutletsProven, t.Load = false, fence.LearnedLoad{}
	if t.BMC != nil {
		b := *t.BMC
		b.Firmware = ""
		t.BMC = &b
	}
	if t.PDU != nil {
		p := *t.PDU
		p.Identity = ""
		t.PDU = &p
	}
	return t
}

// target is what the documents say of a node's power.
func target(doc site.Document, node membership.Node, r site.Runtime) fence.Target {
	d := doc.Node(node.String())
	learned := r.Learned[node.String()]
	t := fence.Target{
		Node: fence.Node(node), OutletsProven: r.OutletsProven[node.String()], Load: load(learned), PSUs: d.PSUs,
	}
	if doc.Fencing != nil {
		t.SharedPSUs, t.Strict = doc.Fencing.SharedPSUs, doc.Fencing.Strict
	}
	if d.BMC != nil {
		t.BMC = &fence.BMCConfig{
			Address: d.BMC.Address, User: d.BMC.User, Password: fence.Secret(string(d.BMC.Password)), GUID: d.BMC.GUID,
			Firmware: learned.Firmware,
		}
	}
	if doc.PDU != nil && len(d.Outlets) > 0 {
		t.PDU = &fence.PDUConfig{
			Address: doc.PDU.Address, Product: doc.PDU.Product, UnitID: doc.PDU.UnitID, Numbers: doc.PDU.Numbers, Identity: learned.PDU,
		}
		for _, f := range doc.PDU.Feeds {
			t.PDU.Reserved = append(t.PDU.Reserved, f.Outlet)
		}
		for _, o := range d.Outlets {
			t.Outlets = append(t.Outlets, o.Outlet)
		}
	}
	return t
}

func load(l site.Learned) fence.LearnedLoad {
	return fence.LearnedLoad{Known: l.Metered, OffWatts: l.OffWatts, StandbyWatts: l.StandbyWatts}
}

func (f *fencer) exists() bool { return f.runner != nil }

// proven follows the runtime document: an outlet map counts as evidence only after its live test.
func (f *fencer) proven(r site.Runtime) {
	if f.runner == nil {
		return
	}
	peer := f.self.Peer().String()
	l := r.Learned[peer]
	if f.runner.Learn(r.OutletsProven[peer], load(l), l.Firmware) && f.proof.watch != nil {
		f.proof.watch.Soon()
	}
}

// Fence carries out the core's order. With a time of the loss in it, fencing is the arbiter: it is done in turns.
func (f *fencer) Fence(ctx context.Context, order membership.Fence) (membership.Verdict, string) {
	if f.held.Load() {
		return membership.Unknown, "the live fence test is using the paths"
	}
	if f.runner == nil {
		return membership.Unknown, "no path"
	}
	began := startOf()
	req := fence.Request{Run: uint64(order.Attempt), Epoch: uint64(order.Epoch)}
	var ev fence.Evidence
	if order.Lost != 0 {
		ev = f.runner.InTurn(ctx, req, fence.Boottime(order.Lost), order.First)
	} else {
		ev = f.runner.Run(ctx, req)
	}
	f.told.clearAbout(aboutFenceRun)
	if ev.Fault != nil {
		f.told.raiseAbout(aboutFenceRun, reported(ev.Fault))
	}
	if f.record != nil {
		f.record(attemptEntry(ev, order, began))
	}
	detail := fmt.Sprintf("%v %s", ev.Kind, ev.Why)
	if ev.Run != req.Run || ev.Epoch != req.Epoch || ev.Node != fence.Node(f.self.Peer()) {
		return membership.Unknown, "evidence of another order: " + detail
	}
	allows := ev.Policy(f.target.Strict)
	switch {
	case order.Lost != 0 && allows.WitnessLess, order.Lost == 0 && allows.StartResources:
		return membership.Confirmed, detail
	case ev.Verdict == fence.Refused:
		return membership.Refused, detail
	default: // whatever the verdict is called, the policy does not allow it
	}
	return membership.Unknown, detail
}

// gift is one attempt to give the peer power, under way.
type gift struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// PowerOn gives the peer its power back, unless a person latched it off (hardware.md section 4.4).
func (f *fencer) PowerOn(ctx context.Context) error {
	if f.runner == nil || f.held.Load() {
		return errors.New("no path is free")
	}
	f.told.clearAbout(aboutPowerOn)
	err := f.give(ctx, f.runner.PowerOn)
	if fault, ok := errors.AsType[*event.Fault](err); ok && fault.Args["by"] != byLeave { // latched; of a leave, SITE-1034 tells
		f.told.raiseAbout(aboutPowerOn, fault)
	} else if fault, ok := asReported(err); ok {
		f.told.raiseAbout(aboutPowerOn, fault)
	}
	return err
}

// giveBack switches outlets on that a run left off, when the peer is there again. Those of a latched node stay off.
func (f *fencer) giveBack(ctx context.Context) {
	if f.runner == nil || f.held.Load() {
		return
	}
	if err := f.give(ctx, f.runner.GiveBack); err != nil && event.CodeOf(err) != event.NodeLatched {
		f.log.Warn("outlets of the peer stay off", "error", err.Error())
	}
}

// give carries out do unless the peer is latched; a latch that comes meanwhile ends it (keepOff). It is known before the
// latch is asked for: one that is set later finds it.
func (f *fencer) give(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	g := &gift{cancel, make(chan struct{})}
	f.mu.Lock()
	f.gifts = append(f.gifts, g)
	f.mu.Unlock()
	defer func() {
		cancel()
		f.mu.Lock()
		f.gifts = slices.DeleteFunc(f.gifts, func(o *gift) bool { return o == g })
		f.mu.Unlock()
		close(g.done)
	}()
	if fault := f.latchFault(); fault != nil {
		return fault
	}
	err := do(ctx)
	if fault := f.latchFault(); err != nil && fault != nil {
		return fault
	}
	return err
}

func (f *fencer) latchFault() error {
	if f.latched == nil {
		return nil
	}
	l, is := f.latched()
	if !is {
		return nil
	}
	return event.New(event.NodeLatched, "node", f.self.Peer().String(), "by", l.By, "reason", l.Reason)
}

// keepOff ends what would give a latched peer its power; ended waits until nothing of it is sent any longer: seconds,
// because each request to a device has its limit.
func (f *fencer) keepOff() (ended func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gifts := slices.Clone(f.gifts)
	for _, g := range gifts {
		g.cancel()
	}
	return func() {
		for _, g := range gifts {
			<-g.done
		}
	}
}

// reported carries what ipmi/fence found to people, as it was worded there.
func reported(f *fence.Fault) *event.Fault {
	return event.Reported(event.Code(f.Code), event.Words{What: f.What, Why: f.Why, Next: f.Next})
}

func asReported(err error) (*event.Fault, bool) {
	var fault *fence.Fault
	if !errors.As(err, &fault) {
		return nil, false
	}
	return reported(fault), true
}

// reportedError is asReported for an error that may be another one; that stays as it is.
func reportedError(err error) error {
	if fault, ok := asReported(err); ok {
		return fault
	}
	return err
}

// test runs the live test of the peer.
func (f *fencer) test(ctx context.Context, exchanged *fence.NewBMC, progress func(string)) (fence.TestResult, error) {
	if f.runner == nil {
		return fence.TestResult{}, errors.New("no path to test")
	}
	return f.live(ctx, exchanged, progress)
}

// paths are how the ways to the peer stand: what was last seen of each, and its standing proof.
func (f *fencer) paths() []pathSeen {
	if f.runner == nil {
		return nil
	}
	proofs := f.proof.now()
	var all []pathSeen
	for _, p := range f.runner.Last().Paths {
		seen := pathSeen{path: p}
		if i := slices.IndexFunc(proofs, func(o fence.Proof) bool { return o.Kind == p.Kind }); i >= 0 {
			seen.proof, seen.watched = proofs[i], true
		}
		all = append(all, seen)
	}
	return all
}

func (f *fencer) close() error {
	f.proof.stop()
	if f.runner == nil {
		return nil
	}
	return f.runner.Close()
}
