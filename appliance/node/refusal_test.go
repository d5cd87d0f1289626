package node

import (
	"testing"

	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/pair/peerlink"
)

// A wrong key and another version are faults of their own, and a pair that has come about ends both.
func TestRefusalsAreFaults(t *testing.T) {
	n := &Node{faults: newFaults(), self: membership.A}
	for reason, want := range map[peerlink.Reason]event.Code{
		peerlink.WrongKey: event.WrongPeerKey, peerlink.OtherVersion: event.OtherPeerVersion, peerlink.OtherSite: event.LinkRefused,
		peerlink.NoTLS: event.LinkRefused, peerlink.Malformed: event.LinkRefused,
	} {
		n.refused(peerlink.Refusal{From: "192.0.2.1:7", Path: "lan0", Reason: reason, Why: "because"})
		all := n.faults.list()
		if len(all) != 1 || all[0].fault.Code != want {
			t.Errorf("%s: %+v", reason, all)
		}
		n.faults.clear(want)
	}
}
