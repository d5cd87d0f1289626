package nbd

import (
	"context"
	"net"
)

// Serve accepts connections on l until ctx ends or l fails.
func Serve(ctx context.Context, l net.Listener, b Backend) error { panic("unfinished") }
