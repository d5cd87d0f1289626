package node

import (
	"slices"
	"testing"
	"time"

	"duet/appliance/api"
	"duet/ipmi/fence"
	"duet/replication/control"
)

// What duet-mirrord and ipmi/fence found reaches people as it was written: code, what, why, next.
func TestFoundFaultsArriveUnchanged(t *testing.T) {
	p := newPlant(t)
	p.start(0, true)
	shown := func(code, what string) (f api.Fault, ok bool) {
		all := p.site(0).Faults
		i := slices.IndexFunc(all, func(f api.Fault) bool { return f.Code == code && f.What == what })
		if i < 0 {
			return f, false
		}
		return all[i], true
	}
	p.until("duet-mirrord is heard", 5*time.Second, func() bool {
		return !slices.ContainsFunc(p.site(0).Faults, func(f api.Fault) bool { return f.Code == "REPL-2042" })
	})
	for _, volume := range []string{"1111", "2222"} {
		p.cable.ends[0].srv.Emit(control.Event{Fault: &control.Fault{
			Code: "REPL-2021", What: "A disk failed: {volume} " + volume, Why: "write: input/output error", Next: "Replace the drive", Volume: volume,
		}})
	}
	p.until("the faults of both volumes are shown", 5*time.Second, func() bool {
		for _, volume := range []string{"1111", "2222"} {
			f, ok := shown("REPL-2021", "A disk failed: {volume} "+volume)
			if !ok || f.Why != "write: input/output error" || f.Next != "Replace the drive" || f.Severity != "critical" || f.Since == nil {
				return false
			}
		}
		return true
	})

	silent := fence.Fault{Code: fence.CodeBMCSilent, What: "The BMC of node b at 192.0.2.12 does not answer", Why: "no reply in 3 s", Next: "Check its cable"}
	n := p.nodes[0]
	path := fence.Path{Kind: fence.PathBMC, Address: "192.0.2.12", Checked: time.Now(), State: fence.PathUnknown, Fault: &silent}
	run := silent
	n.faults.raiseAbout(aboutFenceRun, reported(&run))
	same := func(f api.Fault) bool {
		return f.Code == silent.Code && f.What == silent.What && f.Why == silent.Why && f.Next == silent.Next && f.Command == "duet fence status"
	}
	facts := n.observe(t.Context())
	facts.fence = []pathSeen{{path: path}}
	s := api.Site{Fence: n.fenceFacts(facts), Faults: n.faultFacts(facts)}
	if len(s.Fence.Paths) != 1 || s.Fence.Paths[0].State != "silent" || s.Fence.Paths[0].Fault == nil || !same(*s.Fence.Paths[0].Fault) {
		t.Errorf("fence status: %+v", s.Fence.Paths)
	}
	var found int
	for _, f := range s.Faults {
		if same(f) {
			found++
		}
	}
	if found != 1 {
		t.Errorf("the BMC's fault is shown %d times: %+v", found, s.Faults)
	}
	if !slices.IsSortedFunc(s.Faults, func(a, b api.Fault) int { return severity(b) - severity(a) }) {
		t.Errorf("not worst first: %+v", s.Faults)
	}
	n.faults.clearAbout(aboutFenceRun)
	if _, ok := shown("REPL-2021", "A disk failed: {volume} 1111"); !ok {
		t.Error("the end of a fence run took the mirror's fault with it")
	}
}

func severity(f api.Fault) int {
	return slices.Index([]string{"info", "warning", "critical"}, f.Severity)
}
