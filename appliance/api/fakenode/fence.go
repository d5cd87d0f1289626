package fakenode

import (
	"context"

	"duet/appliance/api"
	"duet/appliance/event"
)

// FenceTest proves the paths to b; those to a only b can prove.
func (n *Node) FenceTest(ctx context.Context, node string) ([]api.FencePath, error) {
	st, err := n.Site(ctx)
	if err != nil {
		return nil, err
	}
	if err := aboutB(node); err != nil {
		return nil, err
	}
	var out []api.FencePath
	for _, p := range st.Fence.Paths {
		if p.Node == node {
			p.AgeMS, p.ProofAgeMS = 100, 100
			if p.Fault != nil {
				p.ProofAgeMS = 90000
			}
			out = append(out, p)
		}
	}
	return out, nil
}

func aboutB(node string) error {
	if node != "b" {
		return &api.OtherNodeError{Object: "the power of node " + node, Node: "b"}
	}
	return nil
}

// FenceTestLive is refused while VM press runs on b.
func (n *Node) FenceTestLive(_ context.Context, node string, _ bool, _, _ string, progress func(string)) error {
	if err := aboutB(node); err != nil {
		return err
	}
	n.mu.Lock()
	running, fail := n.running["press"], n.fail
	n.mu.Unlock()
	if fail != nil {
		return fail
	}
	if running {
		return event.New(event.FenceTestRefused, "node", node, "reason", "VM press runs on node b")
	}
	for _, name := range []string{"BMC: power down", "BMC: power up, says on", "node b boots and joins"} {
		progress(name)
	}
	return nil
}

// FenceHistory is one live test, and one fencing when b is off.
func (n *Node) FenceHistory(_ context.Context, limit int) ([]api.FenceEntry, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return nil, n.fail
	}
	all := []api.FenceEntry{{
		What: "live-test", Node: "b", By: "setup", At: epoch, Epoch: 5, TookMS: 9400, Verdict: "confirmed", Why: "every path switched it off and on",
		Steps: []api.FenceStep{{Name: "BMC: power down", TookMS: 310}, {Name: "BMC says off, twice", TookMS: 260}},
	}}
	if n.alone {
		all = append([]api.FenceEntry{{
			What: "fence", Node: "b", By: "core", At: epoch, Epoch: 8, TookMS: 3020, Means: "bmc, outlets", Verdict: "confirmed", Decided: "outlets",
			Evidence: map[string]string{"outlets": "confirmed"}, Why: "read off in successive requests", Raw: "5e55", Repeats: 2,
		}}, all...)
	}
	return all[:min(limit, len(all))], nil
}

// LatchNode keeps b off.
func (n *Node) LatchNode(_ context.Context, node, reason, by string) error {
	if err := aboutB(node); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latch = &api.Latch{Node: node, By: by, Reason: reason, Epoch: 7, At: epoch}
	return n.fail
}

// UnlatchNode lets b be switched on.
func (n *Node) UnlatchNode(_ context.Context, node, _, _ string) error {
	if err := aboutB(node); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latch = nil
	return n.fail
}
