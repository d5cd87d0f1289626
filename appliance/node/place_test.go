package node

import (
	"testing"

	"duet/appliance/membership"
	"duet/appliance/site"
)

// The tables of a founding tie every volume to the resource that owns it, so that the core's guards about legs see it: with
// the leg of the peer out, nothing whose volume it is may be handed over or started there.
func TestTheTablesOfAFoundingNameTheOwnerOfEachVolume(t *testing.T) {
	doc := site.Document{
		Volumes: []site.Volume{
			{Slot: 0, Resource: 2, Name: "root"}, {Slot: 1, Resource: 3, Name: "alone"}, {Slot: 4, Resource: 2, Name: "data"},
		},
		VMs: []site.VM{{Slot: 2, Name: "mail", Disks: []string{"root", "data"}}},
	}
	owners, legs := tables(doc, membership.B)
	for slot, want := range map[int]membership.ResourceID{0: 2, 1: 3, 4: 2} {
		if l := legs[slot]; l != (membership.VolumeLegs{Set: membership.Both, Resource: want, Version: 1}) {
			t.Errorf("volume %d: %+v, wanted resource %d", slot, l, want)
		}
	}
	for r, o := range owners {
		if want := r == 0 || r == 2 || r == 3; (o.Version != 0) != want || want && o.Node != membership.B {
			t.Errorf("resource %d: %+v", r, o)
		}
	}

	st := membership.State{Mode: membership.Paired, Session: 1}
	st.Cfg.Self = membership.B
	st.Rec = membership.Record{Ep: 1, Members: membership.Both, Owners: owners, Legs: legs}
	st.Peer.Ep = 1
	if why := st.Allows(membership.Move{Resource: 2}); why != membership.Granted {
		t.Errorf("a move with every leg in sync: %v", why)
	}
	st.Rec.Legs[4].Set = membership.OnlyB
	if why := st.Allows(membership.Move{Resource: 2}); why != membership.RefusedLegMissing {
		t.Errorf("a move to a node without a leg of volume 4: %v", why)
	}
	if why := st.Allows(membership.Move{Resource: 3}); why != membership.Granted {
		t.Errorf("a move of what has its legs: %v", why)
	}
}
