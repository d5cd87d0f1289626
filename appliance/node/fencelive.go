package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/outlook"
	"duet/appliance/site"
	"duet/ipmi/fence"
	"duet/ipmi/fence/ledger"
)

// liveTest turns the peer off and on by every way it has, waits until it is back and in sync, and records what was
// learned. Setup and `duet fence test --power-cycle` both end in it.
func (n *Node) liveTest(ctx context.Context, f *fencer, exchanged *fence.NewBMC, by, reason string, say func(string)) error {
	peer := n.peer().String()
	f.held.Store(true)
	defer f.held.Store(false)
	n.driver.Note("fence-test", peer)
	began := startOf()
	result, err := f.test(ctx, exchanged, say)
	n.history.add(n.testEntry(result, err, by, reason, began))
	defer func() {
		if w := f.proof.watch; w != nil {
			w.Soon() // what was just proven, or disproved, is shown so
		}
	}()
	if err != nil {
		n.log.Error("live fence test", "node", peer, "error", err.Error())
		if kept := n.keepDisproof(peer, result); kept != nil {
			return errors.Join(err, kept)
		}
		if fault, ok := asReported(err); ok {
			return fault
		}
		return event.New(event.FenceTestFailed, "node", peer, "step", err.Error())
	}
	say("node " + peer + " boots and joins")
	if err := n.setup.awaitLegs(ctx, func(string) {}); err != nil {
		return fmt.Errorf("node %s did not come back after its test: %w", peer, err)
	}
	if doc, _ := n.document(); exchanged != nil && doc.Node(peer).BMC != nil && doc.Node(peer).BMC.GUID != result.GUID {
		say("the GUID of the new BMC is recorded")
		if err := n.changeDocument(ctx, func(d *site.Document) { newGUID(d, n.peer(), result.GUID) }); err != nil {
			return err
		}
	}
	return n.changeRuntime(func(r *site.Runtime) {
		r.BMCProven[peer] = r.BMCProven[peer] || result.BMCProven
		r.OutletsProven[peer] = r.OutletsProven[peer] || result.OutletsProven
		r.Learned[peer] = site.Learned{
			Firmware: result.Firmware, PDU: result.PDU,
			Metered: result.Load.Known, OffWatts: result.Load.OffWatts, StandbyWatts: result.Load.StandbyWatts,
		}
	})
}

// newGUID records another BMC of a node, in a copy: other versions of the document keep theirs.
func newGUID(d *site.Document, node membership.Node, guid string) {
	at := &d.Nodes.A
	if node == membership.B {
		at = &d.Nodes.B
	}
	bmc := *at.BMC
	bmc.GUID = guid
	at.BMC = &bmc
}

// keepDisproof takes a proof back that a live test has disproved, on both nodes and over restarts: outlets that feed
// something else would be evidence of a node that runs.
func (n *Node) keepDisproof(peer string, result fence.TestResult) error {
	if !result.OutletsWrong {
		return nil
	}
	n.driver.Note("outlets-wrong", peer)
	return n.changeRuntime(func(r *site.Runtime) { r.OutletsProven[peer] = false })
}

func (n *Node) testEntry(result fence.TestResult, err error, by, reason string, began moment) ledger.Entry {
	e := ledger.Entry{
		What: "live-test", Node: n.peer().String(), By: by, At: began.wall, BootMS: began.boot / int64(time.Millisecond), TookMS: began.took(),
		Epoch: uint64(n.driver.View().State.Rec.Ep), Verdict: fence.Confirmed.String(), Why: "every path switched it off and on",
	}
	if err != nil {
		e.Verdict, e.Why = fence.Unknown.String(), err.Error()
		if fault, ok := asReported(err); ok {
			e.Code, e.Why = string(fault.Code), fault.What()+": "+fault.Why()
		}
	}
	if reason != "" {
		e.Why += " (ordered: " + reason + ")"
	}
	for _, s := range result.Steps {
		e.Steps = append(e.Steps, ledger.Step{Name: s.Name, TookMS: s.Took.Milliseconds()})
	}
	return e
}

// FenceTest proves every path to the other node now. Nothing is switched.
func (n *Node) FenceTest(ctx context.Context, node string) ([]api.FencePath, error) {
	if err := n.aboutPeer(node); err != nil {
		return nil, err
	}
	f := n.fencerNow()
	if f == nil || !f.exists() {
		return nil, event.New(event.NoFenceMeans)
	}
	f.proof.watch.Check(ctx)
	n.publishProof()
	facts := n.observe(ctx)
	all := n.fenceFacts(facts).Paths
	out := []api.FencePath{}
	for _, p := range all {
		if p.Node == node {
			out = append(out, p)
		}
	}
	return out, nil
}

// FenceTestLive switches the other node off and on. It demands that nothing needs that node, and that this one goes on
// while it is off.
func (n *Node) FenceTestLive(ctx context.Context, node string, newBMC bool, by, reason string, progress func(string)) error {
	if err := n.aboutPeer(node); err != nil {
		return err
	}
	f := n.fencerNow()
	if f == nil || !f.exists() {
		return event.New(event.NoFenceMeans)
	}
	if !n.setup.take() {
		return event.New(event.TaskRunning, "task", "setup")
	}
	defer n.setup.release()
	f.held.Store(true) // from here on no VM is given to that node, and it is not latched
	defer f.held.Store(false)
	if why := n.mayTest(ctx); why != "" {
		return event.New(event.FenceTestRefused, "node", node, "reason", why)
	}
	var exchanged *fence.NewBMC
	if newBMC {
		if !n.isPairOwner() {
			return event.New(event.FenceTestRefused, "node", node, "reason", "a new BMC is recorded by the node that owns the pair, and that is node "+node)
		}
		exchanged = &fence.NewBMC{Gone: func() bool { return !n.peerHere() }}
	}
	n.driver.Note("fence-test-ordered", by+": "+reason)
	return n.liveTest(ctx, f, exchanged, by, reason, progress)
}

// mayTest is why the live test may not run now; empty: it may.
func (n *Node) mayTest(ctx context.Context) string {
	doc, _ := n.document()
	st := n.driver.View().State
	peer := n.peer()
	switch {
	case !n.store.Runtime().SetupComplete:
		return "setup is not complete; it runs live tests of its own"
	case !st.Committed() || st.Session == 0:
		return "the nodes are not paired"
	}
	if l, is := n.latchOf(peer.String()); is {
		return "node " + peer.String() + " is latched off: " + l.Reason
	}
	for _, v := range doc.Volumes {
		if st.Rec.Legs[v.Slot].Set != membership.Both {
			return "volume " + v.Name + " is not in sync on both nodes"
		}
	}
	var there []string
	stopped := n.store.Runtime().StoppedVMs
	for _, vm := range doc.VMs {
		if st.Rec.Owners[vm.Slot].Node == peer && !stopped[vm.ID] {
			there = append(there, vm.Name)
		}
	}
	if len(there) > 0 {
		return fmt.Sprintf("VM %s runs on node %v", strings.Join(there, ", "), peer)
	}
	return n.standsTest(ctx, st, doc, stopped)
}

// standsTest is why this node would not go on while the other one is off. With a witness as the arbiter it goes on by its
// vote, and only then; without one it holds I/O until the test is over, because fencing, which decides there, is what is
// being tested: then nothing may run at all.
func (n *Node) standsTest(ctx context.Context, st membership.State, doc site.Document, stopped map[string]bool) string {
	if doc.Witness == nil {
		for _, vm := range doc.VMs {
			if !stopped[vm.ID] {
				return fmt.Sprintf("there is no witness, so node %v would hold I/O until node %v is back: VM %s has to be stopped", n.self, n.peer(), vm.Name)
			}
		}
		return ""
	}
	now, err := n.Site(ctx)
	switch {
	case err != nil:
		return err.Error()
	case st.Rec.Arb.Kind != membership.ArbWitness:
		return fmt.Sprintf("the witness does not decide who goes on alone, so node %v would hold I/O until node %v is back", n.self, n.peer())
	case now.Word != outlook.Safe || !now.Witness.Reached || !now.Witness.Confirmed:
		return "the site has to be safe, and is not: " + now.Sentence
	}
	return ""
}
