package fakenode

import (
	"context"

	"duet/appliance/api"
	"duet/appliance/event"
)

// NoDatabase makes it a site without one.
func (n *Node) NoDatabase() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.noDatabase = true
}

// Database is in sync behind node a, or behind b after a switchover.
func (n *Node) Database(context.Context) (api.Database, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.fail != nil:
		return api.Database{}, n.fail
	case n.noDatabase:
		return api.Database{}, event.New(event.PGNone)
	}
	owner, other := "a", "b"
	record := api.DatabaseRecord{
		Epoch: 7, Version: 5, SystemID: "7123456789012345678", Copies: []string{"a", "b"}, Timeline: 1, PromoteLSN: "0/1000000", Durability: "available",
	}
	if n.switched {
		owner, other = "b", "a"
		record.Version, record.Timeline, record.PromoteLSN = 7, 2, "0/5000060"
		record.History = []api.Promotion{{
			Epoch: 7, Version: 6, From: "a", To: "b", FromTimeline: 1, Timeline: 2, ForkLSN: "0/5000060", CopiesBefore: []string{"a", "b"}, Reason: "switchover",
		}}
	}
	durability := n.durability
	if durability == "" {
		durability = "available"
	}
	primary := api.DatabaseNode{
		Node: owner, PGStatus: "PRI", DataStatus: "LATEST", Role: "primary", Activity: "none", Promotable: true, Why: "latest", Timeline: record.Timeline,
		ReceiveLSN: "0/5000100", ReplayLSN: "0/0", WriteOpen: true, Write: "held", Read: "absent", AgeMS: 120,
	}
	standby := api.DatabaseNode{
		Node: other, PGStatus: "HS:sync", DataStatus: "STREAMING|SYNC", Role: "standby", Activity: "none", Promotable: true, Why: "sync", Timeline: record.Timeline,
		ReceiveLSN: "0/5000100", ReplayLSN: "0/5000100", ReadOpen: true, Write: "absent", Read: "held", AgeMS: 310,
	}
	nodes := []api.DatabaseNode{primary, standby}
	if owner == "b" {
		nodes = []api.DatabaseNode{standby, primary}
	}
	return api.Database{
		Owner: owner, WriteAddress: "198.51.100.20", ReadAddress: "198.51.100.21", Port: 5432, Durability: durability, Record: record, Nodes: nodes,
	}, nil
}

// Switchover moves it to b, once.
func (n *Node) Switchover(context.Context, string, string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.fail != nil:
		return n.fail
	case n.noDatabase:
		return event.New(event.PGNone)
	case n.alone:
		return event.New(event.OrderRefused, "what", "the switchover of the database", "reason", "the nodes are not paired",
			"next", "Look at the database: duet db status")
	case n.switched:
		return &api.OtherNodeError{Object: "the database", Node: "b"}
	}
	n.switched = true
	return nil
}

// SetDatabase changes what is wanted.
func (n *Node) SetDatabase(_ context.Context, o api.DatabaseSettings, _ string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.fail != nil:
		return n.fail
	case n.noDatabase:
		return event.New(event.PGNone)
	}
	n.durability = o.Durability
	return nil
}
