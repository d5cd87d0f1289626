package node

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/outlook"
	"duet/ipmi/fence"
)

// fenceWays is what would give evidence now: about the peer by the standing proof here, about this node by what the peer
// says of its own; before it said anything, by its live test.
func (n *Node) fenceWays(f facts) (peer, self outlook.Fence) {
	now := fence.Boottime(f.now)
	for _, p := range f.fence {
		ok := p.watched && p.proof.Fresh(now, fence.DefaultRhythm())
		switch p.path.Kind {
		case fence.PathBMC:
			peer.BMC = ok
		case fence.PathOutlets:
			peer.Outlets = ok
		}
	}
	me := n.self.String()
	if !f.selfTold || f.view.State.Session == 0 {
		return peer, outlook.Fence{BMC: f.runtime.BMCProven[me], Outlets: f.runtime.OutletsProven[me]}
	}
	for _, p := range f.toSelf {
		switch fence.PathKind(p.Kind) {
		case fence.PathBMC:
			self.BMC = p.Fresh
		case fence.PathOutlets:
			self.Outlets = p.Fresh
		}
	}
	return peer, self
}

func (n *Node) fenceFacts(f facts) api.Fence {
	out := api.Fence{Paths: []api.FencePath{}}
	peer := n.peer().String()
	for _, p := range f.fence {
		out.Paths = append(out.Paths, n.pathToPeer(f, p))
	}
	if f.selfTold && f.view.State.Session != 0 {
		for _, p := range f.toSelf {
			out.Paths = append(out.Paths, n.pathToSelf(f, p))
		}
	}
	if l, is := f.runtime.Latched[peer]; is {
		out.Latches = append(out.Latches, api.Latch{Node: peer, By: l.By, Reason: l.Reason, Epoch: l.Epoch, At: l.At})
	}
	out.Says, out.Last = fenceSays(out.Paths), n.history.lastFence()
	return out
}

// pathToPeer is one way as this node proves it.
func (n *Node) pathToPeer(f facts, p pathSeen) api.FencePath {
	peer := n.peer().String()
	a := api.FencePath{
		Node: peer, By: n.self.String(), Kind: string(p.path.Kind), Target: p.path.Address, State: "ready", AgeMS: -1, ProofAgeMS: -1, NextMS: -1,
		Power: string(p.path.State), Numbers: p.path.Numbers, Supported: p.path.Supported, Watts: -1,
	}
	if p.path.Kind == fence.PathOutlets {
		a.Target = outletsAt(p.path.Outlets, p.path.Address)
		a.Proven = f.runtime.OutletsProven[peer]
	} else {
		a.Proven = f.runtime.BMCProven[peer]
	}
	if p.path.Metered {
		a.Watts = p.path.Watts
	}
	if !p.path.Checked.IsZero() {
		a.AgeMS = time.Since(p.path.Checked).Milliseconds()
	}
	fault := p.path.Fault
	if p.watched {
		fault = p.proof.Fault
		a.Fresh = p.proof.Fresh(fence.Boottime(f.now), fence.DefaultRhythm())
		if p.proof.ProvenAt != 0 {
			a.ProofAgeMS = (int64(f.now) - int64(p.proof.ProvenAt)) / int64(time.Millisecond)
		}
		a.NextMS = max(int64(p.proof.Next)-int64(f.now), 0) / int64(time.Millisecond)
	}
	switch {
	case fault != nil:
		shown := apiFault(reported(fault), time.Time{})
		a.State, a.Problem, a.Fault = faultedState(shown.Code), fault.What, &shown
	case p.path.State == fence.PathUnknown:
		a.State = "unknown"
	case !a.Proven:
		a.State = "unproven"
	}
	return a
}

// outletsAt is "3+4 at 192.0.2.21:502".
func outletsAt(outlets []int, address string) string {
	words := make([]string, len(outlets))
	for i, o := range outlets {
		words[i] = strconv.Itoa(o)
	}
	return strings.Join(words, "+") + " at " + address
}

// pathToSelf is one way to this node as the peer says.
func (n *Node) pathToSelf(f facts, p published) api.FencePath {
	me := n.self.String()
	a := api.FencePath{
		Node: me, By: n.peer().String(), Kind: p.Kind, State: "ready", AgeMS: -1, ProofAgeMS: p.AgeMS, NextMS: -1, Fresh: p.Fresh,
		Power: p.State, Watts: -1,
	}
	d := f.doc.Node(me)
	switch {
	case p.Kind == string(fence.PathBMC) && d.BMC != nil:
		a.Target, a.Proven = d.BMC.Address, f.runtime.BMCProven[me]
	case p.Kind == string(fence.PathOutlets) && f.doc.PDU != nil:
		var outlets []int
		for _, o := range d.Outlets {
			outlets = append(outlets, o.Outlet)
		}
		a.Target, a.Proven = outletsAt(outlets, f.doc.PDU.Address), f.runtime.OutletsProven[me]
	}
	switch {
	case p.Code != "":
		shown := apiFault(event.New(event.Code(p.Code)), time.Time{})
		a.State, a.Problem, a.Fault = faultedState(p.Code), shown.What, &shown
	case p.AgeMS < 0:
		a.State = "unknown"
	case !a.Proven:
		a.State = "unproven"
	}
	return a
}

// faultedState is the word for a way that has a fault: interfaces.md section 2.
func faultedState(code string) string {
	switch code {
	case fence.CodeBMCSilent, fence.CodePDUSilent, fence.CodeNobodyAnswers:
		return "silent"
	case fence.CodeMapUnproven:
		return "unproven"
	case fence.CodePDUSettling:
		return "unknown"
	}
	return "refused"
}

// faultFacts are the faults that the facts show now, and those that an event raised.
func (n *Node) faultFacts(f facts) []api.Fault {
	var out []api.Fault
	add := func(fault *event.Fault) { out = append(out, apiFault(fault, time.Time{})) }
	st, self, peer := f.view.State, n.self.String(), n.peer().String()
	switch {
	case !f.founded:
		add(event.New(event.NotFounded, "node", self))
	case n.left.Load() && st.Session == 0:
		add(event.New(event.HasLeft, "node", self, "other", peer, "text", f.runtime.Latched[self].Reason))
	case st.Mode == membership.Frozen || st.Mode == membership.Init:
		add(event.New(event.FrozenWaits, "node", self, "waits_for", n.waitsFor(f)))
	case st.Session == 0 && n.hasLeft(f):
		add(event.New(event.HasLeft, "node", peer, "other", self, "text", f.runtime.Latched[peer].Reason))
	case st.Mode == membership.Solo && st.Session == 0:
		add(event.New(event.PeerOff, "peer", peer, "since", "the last loss", "node", self))
	case st.Session != 0 && !f.view.LaneUp && st.Mode == membership.Paired:
		add(event.New(event.NoDataLane, "peer", peer))
	}
	if n.forcedAlone(f) {
		add(event.New(event.Forced, "node", self, "text", st.Rec.Forced.Text.String()))
	}
	if f.founded && st.Committed() && st.Rec.Arb.Kind == membership.ArbNone && st.Change.Number == 0 && st.Create.Nonce == 0 {
		add(event.New(event.ArbiterNone))
	}
	if f.founded && f.doc.Witness != nil && f.witness.forgets(n.register()) {
		add(event.New(event.WitnessUnknown, "address", f.doc.Witness.Address))
	}
	if !f.mirrorUp {
		add(event.New(event.MirrorDown, "node", self))
	}
	if f.founded && f.doc.Witness != nil && !f.witness.ok && !f.witness.asked.IsZero() {
		add(event.New(event.WitnessSilent, "address", f.doc.Witness.Address, "seconds", sinceSeconds(f.witness.answered, n.arbiter.reachFor())))
	}
	if !f.view.Watchdog {
		add(event.New(event.WatchdogMissing, "device", orNone(n.boot.Watchdog), "reason", "it is not armed"))
	}
	for _, p := range f.fence {
		fault, notice := p.path.Fault, (*fence.Fault)(nil)
		if p.watched {
			fault, notice = p.proof.Fault, p.proof.Notice
		}
		for _, q := range []*fence.Fault{fault, notice} {
			if q != nil {
				add(reported(q))
			}
		}
	}
	if l, is := f.runtime.Latched[peer]; is && !n.hasLeft(f) {
		add(event.New(event.NodeLatched, "node", peer, "by", l.By, "reason", l.Reason))
	}
	for _, a := range n.faults.list() {
		fault := apiFault(a.fault, a.since)
		same := slices.IndexFunc(out, func(o api.Fault) bool { return o.Code == fault.Code && o.What == fault.What })
		if same >= 0 { // a fence run and the last look at its path say the same
			out[same].Since = fault.Since
			continue
		}
		out = append(out, fault)
	}
	slices.SortStableFunc(out, func(a, b api.Fault) int { // worst first
		return int(event.Lookup(event.Code(b.Code)).Severity) - int(event.Lookup(event.Code(a.Code)).Severity)
	})
	return out
}

// sinceSeconds: without an answer ever, since this process began to ask.
func sinceSeconds(t time.Time, asking time.Duration) string {
	if t.IsZero() {
		return fmt.Sprint(int(asking.Seconds()))
	}
	return fmt.Sprint(int(time.Since(t).Seconds()))
}

func orNone(s string) string {
	if s == "" {
		return "(none configured)"
	}
	return s
}

func apiFault(f *event.Fault, since time.Time) api.Fault {
	a := api.Fault{
		Code: string(f.Code), Severity: event.Lookup(f.Code).Severity.String(), What: f.What(), Why: f.Why(), Next: f.Next(),
		Command: f.Command(), Args: f.Args,
	}
	if !since.IsZero() {
		a.Since = &since
	}
	return a
}
