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
	MoveVM(ctx context.Context, name, by, reason string) error
}

func (s *Server) moveRoutes(api huma.API) {
	route(api, http.MethodPost, "/vms/{name}/move", "vm-move", "End a VM here and let the other node run it", s.moveVM)
}

type moving struct {
	Name string `path:"name" doc:"its name"`
	Body Confirmed
}

func (s *Server) moveVM(ctx context.Context, in *moving) (*reply[Acted], error) {
	return s.order(ctx, in.Name, func(ctx context.Context, name string) error {
		reason, err := s.confirmed(ctx, "the move of VM "+name, in.Body)
		if err != nil {
			return err
		}
		return s.cfg.Backend.MoveVM(ctx, name, byRoot, reason)
	})
}

// MoveVM ends the VM on the node that owns it, and lets the other one run it.
func (c *Client) MoveVM(ctx context.Context, name string, o Confirmed) (Acted, error) {
	return post[Acted](ctx, c, "/vms/"+url.PathEscape(name)+"/move", o)
}
