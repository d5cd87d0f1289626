package api

import (
	"context"
	"fmt"

	"duet/appliance/site"
)

// Backend is what the API needs from the node. Its errors are *event.Fault where a person can act on them; everything
// else is shown as SYS-9000. No method may hang: each returns within the context's deadline (CallTimeout), and a fact
// that is not fresh is given as unknown, not waited for.
type Backend interface {
	FenceBackend
	WitnessBackend
	MembersBackend
	MoveBackend
	VolumeBackend
	DatabaseBackend

	// Site is the whole status. It answers in every mode, also before founding.
	Site(ctx context.Context) (Site, error)

	// StartVM and StopVM change what is desired and act on it. An order that this node cannot carry out
	// because the other one owns the VM is refused with *OtherNodeError.
	StartVM(ctx context.Context, name string) error
	StopVM(ctx context.Context, name string) error

	// Setup tells how far founding has come.
	Setup(ctx context.Context) (Setup, error)

	// Answer founds the site with this document (validated by the caller with site.Validate) and returns when
	// founding is complete or has failed. It reports every change of a step. The context is the task's, not the
	// request's: it ends at SetupTimeout or when duetd stops.
	Answer(ctx context.Context, answers site.Document, report func(Step)) error
}

// OtherNodeError refuses an order that the other node must be given.
type OtherNodeError struct {
	Object string // "VM press-control"
	Node   string // "b"
}

// Error names who owns it.
func (e *OtherNodeError) Error() string {
	return fmt.Sprintf("%s belongs to node %s", e.Object, e.Node)
}
