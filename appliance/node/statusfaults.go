package node

import (
	"fmt"
	"slices"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/outlook"
	"duet/ipmi/fence"
)

// fenceWays is what would give evidence now: about the peer as seen by the last look, about this node as far as it is
// known here: proven by the peer's test.
func (n *Node) fenceWays(f facts) (peer, self outlook.Fence) {
	fresh := time.Since(f.fence.asked) < fenceStale
	for _, p := range f.fence.status.Paths {
		ok := fresh && p.Fault == nil && p.State != fence.PathUnknown
		switch p.Kind {
		case "bmc":
			peer.BMC = ok
		case "outlets":
			peer.Outlets = ok && f.runtime.OutletsProven[n.peer().String()]
		}
	}
	me := n.self.String()
	self.BMC = f.runtime.BMCProven[me]
	self.Outlets = f.runtime.OutletsProven[me]
	return peer, self
}

func (n *Node) fenceFacts(f facts) api.Fence {
	out := api.Fence{Paths: []api.FencePath{}}
	peer := n.peer().String()
	for _, p := range f.fence.status.Paths {
		a := api.FencePath{Node: peer, Kind: string(p.Kind), Target: p.Address, State: "ready", AgeMS: -1}
		if p.Kind == "outlets" {
			a.Target = fmt.Sprintf("%v at %s", p.Outlets, p.Address)
			a.Proven = f.runtime.OutletsProven[peer]
		} else {
			a.Proven = f.runtime.BMCProven[peer]
		}
		if !p.Checked.IsZero() {
			a.AgeMS = time.Since(p.Checked).Milliseconds()
		}
		switch {
		case p.Fault != nil:
			shown := apiFault(reported(p.Fault), time.Time{})
			a.State, a.Problem, a.Fault = faultedState(shown.Code), p.Fault.What, &shown
		case p.State == fence.PathUnknown:
			a.State = "unknown"
		case !a.Proven:
			a.State = "unproven"
		}
		out.Paths = append(out.Paths, a)
	}
	for _, m := range n.driver.Moments() {
		var verdict string
		if _, err := fmt.Sscanf(m.What, "fence %s", &verdict); err == nil {
			out.Last = &api.Evidence{
				Node: peer, Verdict: verdict, By: firstWord(m.Detail), Epoch: uint64(f.view.State.Rec.Ep), At: m.Wall, Detail: m.Detail,
			}
		}
	}
	return out
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

func firstWord(s string) string {
	var w string
	_, _ = fmt.Sscan(s, &w) //nolint:errcheck // no word is an empty one
	return w
}

// faultFacts are the faults that the facts show now, and those that an event raised.
func (n *Node) faultFacts(f facts) []api.Fault {
	var out []api.Fault
	add := func(fault *event.Fault) { out = append(out, apiFault(fault, time.Time{})) }
	st, self, peer := f.view.State, n.self.String(), n.peer().String()
	switch {
	case !f.founded:
		add(event.New(event.NotFounded, "node", self))
	case st.Mode == membership.Frozen || st.Mode == membership.Init:
		add(event.New(event.FrozenWaits, "node", self, "waits_for", n.waitsFor(f)))
	case st.Mode == membership.Solo && st.Session == 0:
		add(event.New(event.PeerOff, "peer", peer, "since", "the last loss", "node", self))
	case st.Session != 0 && !f.view.LaneUp && st.Mode == membership.Paired:
		add(event.New(event.NoDataLane, "peer", peer))
	}
	if !f.mirrorUp {
		add(event.New(event.MirrorDown, "node", self))
	}
	if f.founded && f.doc.Witness != nil && !f.witness.ok && !f.witness.asked.IsZero() {
		add(event.New(event.WitnessSilent, "address", f.doc.Witness.Address, "seconds", sinceSeconds(f.witness.answered)))
	}
	if !f.view.Watchdog {
		add(event.New(event.WatchdogMissing, "device", orNone(n.boot.Watchdog), "reason", "it is not armed"))
	}
	for _, p := range f.fence.status.Paths {
		if p.Fault != nil {
			add(reported(p.Fault))
		}
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

func sinceSeconds(t time.Time) string {
	if t.IsZero() {
		return "a long time, more than any"
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
