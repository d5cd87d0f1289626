package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
)

// Proves: protocol.md R22 through whole nodes: a VM goes to the other node and back, the order is taken by its owner
// only, and a stopped VM stays stopped.
func TestMoveVM(t *testing.T) {
	p := newPlant(t)
	p.start(0, true)
	p.start(1, true)
	doc := p.answers()
	doc.VMs = []site.VM{{Name: "press", MemoryMiB: 64, VCPUs: 1, Disks: []string{"data"}}}
	p.enrol()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	if err := p.nodes[0].Answer(ctx, doc, func(s api.Step) { t.Logf("%s: %s %s", s.Name, s.State, s.Detail) }); err != nil {
		t.Fatal(err)
	}
	p.until("paired", 5*time.Second, p.paired)
	if err := p.nodes[0].changeRuntime(func(r *site.Runtime) { r.StoppedVMs[p.site(0).VMs[0].ID] = true }); err != nil {
		t.Fatal(err)
	}
	names := [2]string{"a", "b"}
	for k := range 4 {
		from, to := k%2, 1-k%2
		err := p.nodes[to].MoveVM(ctx, "press", "root", "x")
		if other, is := errors.AsType[*api.OtherNodeError](err); !is || other.Node != names[from] {
			t.Fatalf("the node that does not own it: %v", err)
		}
		if err := p.nodes[from].MoveVM(ctx, "press", "root", "x"); err != nil {
			t.Fatal(err)
		}
		for i := range p.nodes {
			if vm, v := p.site(i).VMs[0], p.site(i).Volumes[0]; vm.Owner != names[to] || v.Owner != names[to] || vm.Desired != "stopped" {
				t.Fatalf("move %d, node %s says VM of %s, volume of %s, %s", k, names[i], vm.Owner, v.Owner, vm.Desired)
			}
		}
	}
	if err := p.nodes[0].MoveVM(ctx, "nope", "root", "x"); event.CodeOf(err) != event.UnknownVM {
		t.Errorf("an unknown VM: %v", err)
	}
	p.crash(1)
	p.until("solo", 6*time.Second, p.mode(0, "solo"))
	if err := p.nodes[0].MoveVM(ctx, "press", "root", "x"); event.CodeOf(err) != event.OrderRefused {
		t.Errorf("a move without the other node: %v", err)
	}
}

// A move whose session was lost has not been taken: it is over when both nodes agree, or when this one goes on alone.
func TestMoveOver(t *testing.T) {
	const vm = 3
	owned := func(by membership.Node) (o membership.Owners) {
		o[vm] = membership.Owner{Node: by, Version: 2}
		return o
	}
	paired := membership.State{Mode: membership.Paired, Session: 7}
	paired.Rec.Members, paired.Rec.Owners = membership.Both, owned(membership.B)
	if !paired.Committed() || paired.Owns(vm) {
		t.Fatalf("%+v is not what this test needs", paired)
	}
	for _, c := range []struct {
		what       string
		change     func(*membership.State)
		over, kept bool
	}{
		{"taken", func(*membership.State) {}, true, false},
		{"being given", func(st *membership.State) { st.Gives = 1 << vm }, false, false},
		{"being finished", func(st *membership.State) { st.Rec.Owners, st.Draining = owned(membership.A), 1<<vm }, false, false},
		{"it stayed", func(st *membership.State) { st.Rec.Owners = owned(membership.A) }, true, true},
		{"the session is lost", func(st *membership.State) { st.Session, st.Mode = 0, membership.Frozen }, false, false},
		{"another session begins", func(st *membership.State) { st.Session, st.Mode = 8, membership.Frozen }, false, false},
		{"and both agree", func(st *membership.State) { st.Session = 8 }, true, false},
	} {
		st := paired
		c.change(&st)
		if over, kept := moveOver(st, vm, 7); over != c.over || kept != c.kept {
			t.Errorf("%s: over %v, kept %v", c.what, over, kept)
		}
	}
}
