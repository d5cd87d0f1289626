package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
	"duet/ipmi/fence"
)

// fencer turns the peer off and on. While the live test of setup runs, the core's orders get no evidence: the test
// switches the same outlets, and two orders at once would shoot a node that is just being given its power back.
type fencer struct {
	doc  site.Document
	self membership.Node
	log  *slog.Logger
	told *faults
	held atomic.Bool

	mu     sync.Mutex
	target fence.Target
	runner *fence.Runner // nil: no way to fence
}

func newFencer(doc site.Document, self membership.Node, r site.Runtime, told *faults, log *slog.Logger) (*fencer, error) {
	f := &fencer{doc: doc, self: self, told: told, log: log.With("subsystem", "fence")}
	f.target = target(doc, self.Peer(), r)
	if f.target.BMC == nil && f.target.PDU == nil {
		return f, nil
	}
	runner, err := f.make(f.target)
	if err != nil {
		return nil, fmt.Errorf("ways to fence node %v: %w", self.Peer(), err)
	}
	f.runner = runner
	return f, nil
}

func (f *fencer) make(t fence.Target) (*fence.Runner, error) {
	own := ""
	if b := f.doc.Node(f.self.String()).BMC; b != nil {
		own = b.GUID
	}
	return fence.New(fence.Config{Target: t, OwnGUID: own, Log: f.log})
}

// target is what the document says of a node's power.
func target(doc site.Document, node membership.Node, r site.Runtime) fence.Target {
	d := doc.Node(node.String())
	t := fence.Target{Node: fence.Node(node), OutletsProven: r.OutletsProven[node.String()]}
	if d.BMC != nil {
		t.BMC = &fence.BMCConfig{
			Address: d.BMC.Address, User: d.BMC.User, Password: fence.Secret(string(d.BMC.Password)), GUID: d.BMC.GUID,
		}
	}
	if doc.PDU != nil && len(d.Outlets) > 0 {
		t.PDU = &fence.PDUConfig{Address: doc.PDU.Address, Product: doc.PDU.Product, UnitID: doc.PDU.UnitID}
		for _, o := range d.Outlets {
			t.Outlets = append(t.Outlets, o.Outlet)
		}
	}
	return t
}

func (f *fencer) exists() bool { return f.current() != nil }

func (f *fencer) current() *fence.Runner {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runner
}

// proven follows the runtime document: an outlet map counts as evidence only after its live test.
func (f *fencer) proven(r site.Runtime) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ok := r.OutletsProven[f.self.Peer().String()]
	if f.runner == nil || f.target.OutletsProven == ok {
		return
	}
	t := f.target
	t.OutletsProven = ok
	runner, err := f.make(t)
	if err != nil {
		f.log.Error("ways to fence", "error", err.Error())
		return
	}
	old := f.runner
	f.target, f.runner = t, runner
	go func() { _ = old.Close() }() // it may be in the middle of a run
}

// Fence carries out the core's order.
func (f *fencer) Fence(ctx context.Context, attempt uint64, epoch membership.Epoch) (membership.Verdict, string) {
	if f.held.Load() {
		return membership.Unknown, "the live fence test is using the paths"
	}
	r := f.current()
	if r == nil {
		return membership.Unknown, "no path"
	}
	ev := r.Run(ctx, fence.Request{Run: attempt, Epoch: uint64(epoch)})
	f.told.clearAbout(aboutFenceRun)
	if ev.Fault != nil {
		f.told.raiseAbout(aboutFenceRun, reported(ev.Fault))
	}
	detail := fmt.Sprintf("%v %s", ev.Kind, ev.Why)
	if ev.Run != attempt || ev.Epoch != uint64(epoch) || ev.Node != fence.Node(f.self.Peer()) {
		return membership.Unknown, "evidence of another order: " + detail
	}
	switch ev.Verdict {
	case fence.Confirmed:
		return membership.Confirmed, detail
	case fence.Refused:
		return membership.Refused, detail
	default: // the others as below
	}
	return membership.Unknown, detail
}

// PowerOn gives the peer its power back.
func (f *fencer) PowerOn(ctx context.Context) error {
	r := f.current()
	if r == nil || f.held.Load() {
		return errors.New("no path is free")
	}
	err := r.PowerOn(ctx)
	f.told.clearAbout(aboutPowerOn)
	if fault, ok := asReported(err); ok {
		f.told.raiseAbout(aboutPowerOn, fault)
	}
	return err
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
func (f *fencer) test(ctx context.Context, progress func(string)) (fence.TestResult, error) {
	r := f.current()
	if r == nil {
		return fence.TestResult{}, errors.New("no path to test")
	}
	return r.LiveTest(ctx, progress)
}

func (f *fencer) status(ctx context.Context) fence.Status {
	r := f.current()
	if r == nil {
		return fence.Status{Node: fence.Node(f.self.Peer())}
	}
	return r.Status(ctx)
}

func (f *fencer) close() error {
	if r := f.current(); r != nil {
		return r.Close()
	}
	return nil
}
