package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"
)

// MoveBackend hands things over to the other node while both are there.
type MoveBackend interface {
	// MoveVM ends a VM here and gives it, with its volumes, to the other node, which starts it if it is wanted. It
	// returns when the other node has taken it. It is refused with *OtherNodeError where the VM is not owned.
	MoveVM(ctx context.Context, name string) error
}

func (s *Server) moveRoutes(api huma.API) {
	route(api, http.MethodPost, "/vms/{name}/move", "vm-move", "End a VM here and let the other node run it", s.moveVM)
}

func (s *Server) moveVM(ctx context.Context, in *byName) (*reply[Acted], error) {
	return s.order(ctx, in.Name, s.cfg.Backend.MoveVM)
}

// MoveVM ends the VM on the node that owns it, and lets the other one run it.
func (c *Client) MoveVM(ctx context.Context, name string) (Acted, error) {
	return call[Acted](ctx, c, http.MethodPost, "/vms/"+url.PathEscape(name)+"/move", nil)
}
