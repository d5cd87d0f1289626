package fakenode

import (
	"context"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/site"
)

// overrideWord is the word that confirms an override of the fake node.
const overrideWord = "7QK3-M0TX"

// TestWitness answers in 12 ms; at 203.0.113.99 nobody does.
func (n *Node) TestWitness(_ context.Context, w site.Witness) (string, time.Duration, error) {
	if w.Address == "" {
		w.Address = "203.0.113.13:7443"
	}
	if w.Address == "203.0.113.99:7443" {
		return "", 0, event.New(event.WitnessSilent, "address", w.Address, "seconds", "20")
	}
	return w.Address, 12 * time.Millisecond, n.fail
}

// AddWitness is refused: there is one.
func (n *Node) AddWitness(context.Context, site.Witness, string, string, func(string)) error {
	return event.New(event.OrderRefused, "what", "a witness more", "reason", "the site has one, at 203.0.113.13:7443", "next", "Replace it: duet witness replace")
}

// ReplaceWitness runs its steps at once.
func (n *Node) ReplaceWitness(ctx context.Context, w site.Witness, _, _ string, progress func(string)) error {
	address, _, err := n.TestWitness(ctx, w)
	progress("asking the witness at " + address)
	if err != nil {
		return err
	}
	progress("making a register and changing the arbiter")
	return nil
}

// Leave is refused while the node goes on alone.
func (n *Node) Leave(_ context.Context, _ bool, by, reason string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.alone {
		return event.New(event.OrderRefused, "what", "leaving the pair", "reason", "the nodes are not paired, or not both committed",
			"next", "Wait until the status says paired, then order it again")
	}
	n.left = by + ": " + reason
	return n.fail
}

// Return ends a Leave.
func (n *Node) Return(context.Context, string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.left == "" {
		return event.New(event.OrderRefused, "what", "the return of node a", "reason", "it has not left by order", "next", "Nothing is to be done")
	}
	n.left = ""
	return nil
}

// Overrides: a node that goes on alone may be told that the other one is off.
func (n *Node) Overrides(context.Context) (api.Overrides, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	o := api.Overrides{
		Node: "a", Peer: "b", Mode: "paired", Epoch: 7, PeerEpoch: 7, Members: []string{"a", "b"}, Arbiter: "witness", Holds: true, HeardAge: 120,
		PeerOff:   api.Override{Refused: "the other node is connected", Does: "counts as evidence that node b is off", MayLose: []string{}},
		ForceSolo: api.Override{Refused: "it is so already", Does: "makes node a the only member", MayLose: []string{}},
	}
	if n.alone {
		o.Mode, o.Epoch, o.PeerEpoch, o.Members, o.HeardAge = "solo", 8, 8, []string{"a"}, 90000
		o.PeerOff = api.Override{
			Possible: true, Does: o.PeerOff.Does, MayLose: []string{"if node b runs, what it ran runs twice until its lease ends"}, Word: overrideWord,
		}
	}
	return o, n.fail
}

// Override takes the word for peer-off; force-solo is never possible here.
func (n *Node) Override(_ context.Context, kind, word, _, _ string) error {
	if kind == api.ForceSoloOverride {
		return event.New(event.OrderRefused, "what", "going on alone by force", "reason", "it is so already", "next", "Nothing is to be done")
	}
	if word != overrideWord {
		return event.New(event.OverrideUnconfirmed, "what", "taking over by a person's word", "verb", kind)
	}
	return nil
}
