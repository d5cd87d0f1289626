package server

import (
	"context"

	"duet/witness/register"
)

// Store is what a server needs of a store: the three operations of a register (protocol.md section 11), the list for
// STATUS, and what people want to know of it. Every change is durable before it is answered. An error that is none of
// register's four is the death of the store.
type Store interface {
	Create(ctx context.Context, owner register.Owner, site register.ID, nonce uint64, content register.Content) (register.Register, error)
	CAS(ctx context.Context, owner register.Owner, rid register.ID, expected, next register.Content) (register.Register, bool, error)
	Push(ctx context.Context, owner register.Owner, rid register.ID, epoch register.Epoch) (register.Register, bool, error)
	List(ctx context.Context, owner register.Owner) ([]register.ID, error)
	Described
}

// Described is a store as people see it.
type Described interface {
	Kind() string
	Health() error // why it answers nothing now, or nil
	Count(ctx context.Context) (sites, registers int, err error)
}
