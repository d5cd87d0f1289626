package postgres

import (
	"context"

	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

// Authority is what the membership core gives and takes: protocol.md, R8, R9, R22, R25.
type Authority interface {
	// Now is the grant for the database and the record as this node has it.
	Now() (decide.Grant, decide.Docs)
	// WriteRecord makes r the newest record by rule W, and returns when every node that counts has it durably. Not growth:
	// pending on the other members first; growth: current here first. Until it is finished Docs.Writing is set. An error
	// says that it was refused, or is not known to be finished; Now says what holds.
	WriteRecord(ctx context.Context, r decide.Record, growth bool) error
	// Want asks for the ownership (R8); it may come, or not.
	Want()
	// MoveOwner gives the ownership to the other node (R22): nil when this node has recorded it.
	MoveOwner(ctx context.Context) error
}

// Other is the manager on the other node.
type Other interface {
	// Peer is what it last said of itself, and when it was heard.
	Peer() decide.Peer
	// PauseReplay pauses and resumes the replay of its standby, and returns when it is so (G3).
	PauseReplay(ctx context.Context, pause bool) error
}

// Gates are the ways of clients to the server. A gate closes by itself at its deadline, whatever this process does: that
// is what keeps a second reachable primary away when this node hangs.
type Gates interface {
	// Set opens a gate until a moment of CLOCK_BOOTTIME (0: no end), or closes it and cuts what goes through it.
	Set(g decide.Gate, open bool, until membership.Boottime) error
	Open(g decide.Gate) bool
}

// Addresses are the service addresses. Taking one announces it.
type Addresses interface {
	Set(g decide.Gate, add bool) error
	Held(g decide.Gate) bool
}
