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
	// ScrubVolume has both legs read, compared and repaired. It returns when that is ordered; the volume shows how far it is. It
	// is refused with a code where this node does not coordinate the volume, or the legs are not both in sync.
	ScrubVolume(ctx context.Context, volume string) error
}

func (s *Server) volumeRoutes(api huma.API) {
	route(api, http.MethodPost, "/volumes/{name}/readmit", "volume-readmit", "Give this node a new leg in the place of its dead one", s.readmitLeg)
	route(api, http.MethodPost, "/volumes/{name}/scrub", "volume-scrub", "Read, compare and repair both legs of a volume", s.scrubVolume)
}

// OnVolume is the answer to an order: who carried it out, and the volume as it was just after.
type OnVolume struct {
	ActedOn string `json:"acted_on"`
	Volume  Volume `json:"volume"`
}

func (s *Server) readmitLeg(ctx context.Context, in *byName) (*reply[OnVolume], error) {
	return s.onVolume(ctx, in, s.cfg.Backend.ReadmitLeg)
}

func (s *Server) scrubVolume(ctx context.Context, in *byName) (*reply[OnVolume], error) {
	return s.onVolume(ctx, in, s.cfg.Backend.ScrubVolume)
}

func (s *Server) onVolume(ctx context.Context, in *byName, order func(context.Context, string) error) (*reply[OnVolume], error) {
	if _, err := s.volume(ctx, in); err != nil {
		return nil, err
	}
	if err := order(ctx, in.Name); err != nil {
		return nil, err
	}
	v, err := s.volume(ctx, in)
	if err != nil {
		return nil, err
	}
	return &reply[OnVolume]{OnVolume{ActedOn: s.cfg.Node, Volume: v.Body}}, nil
}

// ReadmitLeg orders a new leg on the node that answers.
func (c *Client) ReadmitLeg(ctx context.Context, volume string) (OnVolume, error) {
	return post[OnVolume](ctx, c, "/volumes/"+url.PathEscape(volume)+"/readmit", nil)
}

// ScrubVolume orders a scrub on the node that answers.
func (c *Client) ScrubVolume(ctx context.Context, volume string) (OnVolume, error) {
	return post[OnVolume](ctx, c, "/volumes/"+url.PathEscape(volume)+"/scrub", nil)
}
