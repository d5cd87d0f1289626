// Package fakenode is a node in memory behind the API: a small real backend for tests of the server, the client and the
// CLI, with a clock that stands still.
//
// It has one site with two VMs and two volumes, node a answers, VM press belongs to b. Founding runs its steps at once.
// Orders change what is desired and what runs, in the way the real node does, and fail with the same faults. It holds
// nothing durable and is used by tests only.
package fakenode

import (
	"context"
	"sync"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/outlook"
	"duet/appliance/site"
)

// epoch is the time at which the fake's clock stands.
var epoch = time.Date(2026, 3, 12, 3, 12, 0, 0, time.UTC)

// Node is the backend. Make it with New.
type Node struct {
	mu      sync.Mutex
	founded bool
	alone   bool
	fail    error
	running map[string]bool
	moved   map[string]bool // to node b
	hold    chan struct{}
	latch   *api.Latch
	left    string

	noDatabase, switched bool
	durability           string
}

// New makes a founded node of a healthy pair.
func New() *Node {
	return &Node{founded: true, running: map[string]bool{"counter": true, "press": true}, moved: map[string]bool{}}
}

// Fresh makes it a node without a site.
func (n *Node) Fresh() *Node {
	n.founded = false
	return n
}

// PeerOff makes node a serve alone.
func (n *Node) PeerOff() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.alone = true
}

// Fail makes every call fail with err; nil ends it.
func (n *Node) Fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail = err
}

// Hold makes founding wait until the returned function is called.
func (n *Node) Hold() (release func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	hold := make(chan struct{})
	n.hold = hold
	return func() { close(hold) }
}

// Site is the whole status.
func (n *Node) Site(context.Context) (api.Site, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return api.Site{}, n.fail
	}
	if !n.founded {
		v := outlook.Judge(outlook.Facts{Self: "a"})
		return api.Site{Node: "a", Mode: "starting", Word: v.Word, Sentence: v.Sentence, Next: v.Next, Setup: "fresh", ObservedAt: epoch, BootID: "boot"}, nil
	}
	return n.status(), nil
}

func (n *Node) status() api.Site {
	both := outlook.Fence{BMC: true, Outlets: true}
	f := outlook.Facts{
		Site: "demo", Founded: true, Complete: true, Self: "a", Mode: outlook.Paired, Peer: true, CopyParts: -1,
		Arbiter: outlook.ByWitness, PairOwner: "a",
		Witness: outlook.Witness{Configured: true, Reached: true, Confirmed: true, PeerReached: true}, FenceA: both, FenceB: both,
		Volumes: []outlook.Volume{{Name: "disk0", InSyncA: true, InSyncB: true}},
	}
	s := api.Site{
		Name: "demo", SiteID: "00112233445566778899aabbccddeeff", Node: "a", Mode: "paired", Epoch: 7, Members: []string{"a", "b"},
		PairOwner: "a", Session: "5e55", Setup: "complete", ObservedAt: epoch, BootID: "boot", BoottimeMS: 60000,
		Nodes: []api.Node{
			{Node: "a", Self: true, Reached: true, Mode: "paired", Since: epoch, BootID: "boot"},
			{Node: "b", Reached: true, Mode: "paired", Since: epoch, LastAck: 120, DataPath: "mirror0", Paths: []api.Path{{Name: "mirror0", Up: true, AgeMS: 120}, {Name: "lan0", Up: true, AgeMS: 130}}},
		},
		Witness: api.Witness{
			Configured: true, Address: "203.0.113.13:7443", Reached: true, AgeMS: 900, RTTMS: 12, Register: "aa", Confirmed: true,
			Key: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", ForMS: 400000, Known: true, Arbiter: "witness",
		},
		Fence: api.Fence{Paths: []api.FencePath{
			{Node: "a", By: "b", Kind: "bmc", Target: "192.0.2.11", State: "ready", Proven: true, AgeMS: 40000, Fresh: true, ProofAgeMS: 40000, Power: "on", Watts: -1},
			{Node: "b", By: "a", Kind: "bmc", Target: "192.0.2.12", State: "ready", Proven: true, AgeMS: 40000, Fresh: true, ProofAgeMS: 40000, Power: "on", Watts: -1},
			{Node: "a", By: "b", Kind: "outlets", Target: "1+2 at 192.0.2.21:502", State: "ready", Proven: true, AgeMS: 60000, Fresh: true, ProofAgeMS: 60000, Power: "on", Numbers: "", Watts: -1},
			{Node: "b", By: "a", Kind: "outlets", Target: "3+4 at 192.0.2.21:502", State: "ready", Proven: true, AgeMS: 60000, Fresh: true, ProofAgeMS: 60000, Power: "on", Numbers: "switch V, read V, meter V", Watts: 171},
		}},
		Volumes: []api.Volume{
			{Name: "disk0", ID: "d0", SizeBytes: 64 << 20, Owner: "a", InSync: []string{"a", "b"}, Stage: "paired", Leg: "uptodate", ProvenEpoch: 7, UsedBy: "counter"},
			{Name: "disk1", ID: "d1", SizeBytes: 256 << 20, Owner: "b", InSync: []string{"a", "b"}, Stage: "paired", Leg: "uptodate", ProvenEpoch: 7, UsedBy: "press"},
		},
		VMs: []api.VM{n.vm("counter", "a", "disk0"), n.vm("press", "b", "disk1")},
	}
	s.Fence.Says = []string{"b can be fenced: BMC 40 s ago, outlets 3+4 60 s ago"}
	if n.latch != nil {
		s.Fence.Latches = []api.Latch{*n.latch}
	}
	if n.alone {
		f.Mode, f.Peer, f.PeerOff, f.Since = outlook.Solo, false, true, "03:12"
		s.Mode, s.Members, s.Epoch, s.Session = "solo", []string{"a"}, 8, ""
		s.Nodes[0].Mode = "solo"
		s.Nodes[1].Reached, s.Nodes[1].Mode, s.Nodes[1].DataPath, s.Nodes[1].LastAck = false, "", "", 90000
		s.Nodes[1].Paths = []api.Path{{Name: "mirror0", AgeMS: 90000}, {Name: "lan0", AgeMS: 90000}}
		for i := range s.Volumes {
			s.Volumes[i].Owner, s.Volumes[i].InSync, s.Volumes[i].Stage, s.Volumes[i].DirtyBytes = "a", []string{"a"}, "alone", 3<<20
		}
		s.Fence.Last = &api.Evidence{Node: "b", Verdict: "confirmed", By: "outlets", Epoch: 8, At: epoch, Detail: "outlets 3+4 read back off"}
		since := epoch
		silent := api.AsFault(event.Reported(event.BMCSilent, event.Words{
			What: "The BMC of node b at 192.0.2.12 does not answer", Why: "No reply in 3 s, 3 tries", Next: "Check its cable, its address and whether the node has AC",
		}), nil)
		s.Fence.Paths[1].State, s.Fence.Paths[1].Problem, s.Fence.Paths[1].Fault, s.Fence.Paths[1].Fresh = "silent", silent.What, silent, false
		s.Fence.Paths[1].Power = "unknown"
		s.Fence.Says = []string{"b can be fenced: outlets 3+4 60 s ago; not by BMC (FENCE-5012)"}
		s.Faults = []api.Fault{*api.AsFault(event.New(event.PeerOff, "peer", "b", "node", "a", "since", "03:12"), &since), *silent}
	}
	if n.left != "" {
		f.Mode, f.Peer, f.Left = outlook.Starting, false, true
		s.Mode, s.Members, s.Session, s.WaitsFor = "starting", []string{"b"}, "", "the order to return"
	}
	v := outlook.Judge(f)
	s.Word, s.Sentence, s.Next = v.Word, v.Sentence, v.Next
	for _, l := range v.Losses {
		s.Losses = append(s.Losses, api.Loss(l))
	}
	return s
}

func (n *Node) vm(name, owner, disk string) api.VM {
	vm := api.VM{Name: name, ID: name + "-id", Desired: "stopped", State: "stopped", Owner: owner, MemoryMiB: 96, VCPUs: 1, Disks: []string{disk}}
	if n.running[name] {
		vm.Desired, vm.State = "running", "running"
	}
	if n.moved[name] {
		vm.Owner = "b"
	}
	if n.alone {
		vm.Owner = "a"
	}
	return vm
}

// StartVM wants the VM to run.
func (n *Node) StartVM(_ context.Context, name string) error { return n.order(name, true) }

// StopVM wants the VM not to run.
func (n *Node) StopVM(_ context.Context, name string) error { return n.order(name, false) }

func (n *Node) order(name string, run bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return n.fail
	}
	if (name == "press" || n.moved[name]) && !n.alone {
		return &api.OtherNodeError{Object: "VM " + name, Node: "b"}
	}
	n.running[name] = run
	return nil
}

// Setup tells how far founding has come.
func (n *Node) Setup(context.Context) (api.Setup, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := api.Setup{State: "fresh", Node: "a", NodeKey: "a2V5LWE=", ChassisSerial: "LAB-1", Steps: []api.Step{}}
	s.Peer = &api.SetupPeer{Node: "b", Key: "a2V5LWI=", ChassisSerial: "LAB-1", Fresh: !n.founded, Path: "mirror0"}
	if n.founded {
		s.State = "complete"
	}
	return s, n.fail
}

// Answer founds the site in three steps.
func (n *Node) Answer(ctx context.Context, _ site.Document, report func(api.Step)) error {
	n.mu.Lock()
	fail, hold, founded := n.fail, n.hold, n.founded
	n.mu.Unlock()
	if founded {
		return event.New(event.AlreadyFounded, "node", "a", "site", "demo")
	}
	for _, name := range []string{"witness register", "found", "fence test of b"} {
		report(api.Step{Name: name, State: "running", Since: epoch, Deadline: epoch})
		if hold != nil {
			select {
			case <-hold:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if fail != nil {
			report(api.Step{Name: name, State: "failed", Since: epoch, Deadline: epoch, Detail: "planted"})
			return fail
		}
		report(api.Step{Name: name, State: "done", Since: epoch, Deadline: epoch})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.founded = true
	return nil
}

var _ api.Backend = (*Node)(nil)
