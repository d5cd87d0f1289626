package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"
)

// VolumeBackend changes what carries a volume on this node.
type VolumeBackend interface {
	// ReadmitLeg gives this node a new leg in the place of its dead one. It returns when that has begun: the copy and its
	// proof follow, and the status shows them. It is refused with a code while the leg works or counts.
	ReadmitLeg(ctx context.Context, volume string) error
}

func (s *Server) volumeRoutes(api huma.API) {
	route(api, http.MethodPost, "/volumes/{name}/readmit", "volume-readmit", "Give this node a new leg in the place of its dead one", s.readmitLeg)
}

// Readmitted is the answer: who carried it out, and the volume as it was just after.
type Readmitted struct {
	ActedOn string `json:"acted_on"`
	Volume  Volume `json:"volume"`
}

func (s *Server) readmitLeg(ctx context.Context, in *byName) (*reply[Readmitted], error) {
	if _, err := s.volume(ctx, in); err != nil {
		return nil, err
	}
	if err := s.cfg.Backend.ReadmitLeg(ctx, in.Name); err != nil {
		return nil, err
	}
	v, err := s.volume(ctx, in)
	if err != nil {
		return nil, err
	}
	return &reply[Readmitted]{Readmitted{ActedOn: s.cfg.Node, Volume: v.Body}}, nil
}

// ReadmitLeg orders a new leg on the node that answers.
func (c *Client) ReadmitLeg(ctx context.Context, volume string) (Readmitted, error) {
	return post[Readmitted](ctx, c, "/volumes/"+url.PathEscape(volume)+"/readmit", nil)
}
