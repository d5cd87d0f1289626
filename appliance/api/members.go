package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"

	"duet/appliance/event"
)

// The overrides, as routes and commands name them.
const (
	PeerOffOverride   = "peer-off"
	ForceSoloOverride = "force-solo"
)

// MembersBackend is what the API needs to change who is a member. Orders about the other node are refused with
// *OtherNodeError: a node leaves by its own hand.
type MembersBackend interface {
	// Leave lets this node leave the pair by order; waiting: also if volumes then wait for it.
	Leave(ctx context.Context, waiting bool, by, reason string) error
	// Return ends a Leave.
	Return(ctx context.Context, by string) error
	// Overrides is what is known, and what each override would need and may lose.
	Overrides(ctx context.Context) (Overrides, error)
	// Override carries one out, PeerOffOverride or ForceSoloOverride. The word must be the present one of Overrides.
	Override(ctx context.Context, kind, word, by, reason string) error
}

// Overrides is what a person must see before overriding (protocol.md section 9.5).
type Overrides struct {
	Node      string   `json:"node"` // who would go on
	Peer      string   `json:"peer"` // whom the person speaks for
	Mode      string   `json:"mode"`
	WaitsFor  string   `json:"waits_for"`
	Epoch     uint64   `json:"epoch"`
	Prepared  uint64   `json:"prepared_epoch"` // 0: none
	Members   []string `json:"members"`
	Arbiter   string   `json:"arbiter"`
	Holds     bool     `json:"holds"`            // this node's copy was whole when its record was written
	HeardAge  int64    `json:"heard_age_ms"`     // since the peer was heard; -1: not since duetd began
	PeerEpoch uint64   `json:"peer_epoch"`       // highest that this node recorded for the pair
	Forced    string   `json:"forced,omitempty"` // by whom and why this node was forced before

	Evidence *Evidence `json:"evidence,omitempty"` // the last about the peer's power

	PeerOff   Override `json:"peer_off"`
	ForceSolo Override `json:"force_solo"`
}

// Override is one of the two, as things are.
type Override struct {
	Possible bool     `json:"possible"`
	Refused  string   `json:"refused,omitempty"` // why it is not possible now
	Does     string   `json:"does"`
	MayLose  []string `json:"may_lose"`
	Word     string   `json:"word,omitempty"` // confirms it, as long as nothing changes
}

// Overriding is the body of an override.
type Overriding struct {
	Reason  string `json:"reason" doc:"why; it is part of the record"`
	Confirm string `json:"confirm" doc:"the word of GET /override"`
}

// Confirmed is the body of an order that stops something that runs.
type Confirmed struct {
	Reason      string `json:"reason" doc:"why; it is shown to everybody who looks"`
	ConfirmSite string `json:"confirm_site" doc:"name of the site: the order is meant, and for this site"`
}

// confirmed checks both.
func (s *Server) confirmed(ctx context.Context, what string, c Confirmed) (reason string, err error) {
	if reason, err = givenReason(c.Reason); err != nil {
		return "", err
	}
	site, err := s.cfg.Backend.Site(ctx)
	if err != nil {
		return "", err
	}
	if site.Setup != "fresh" && c.ConfirmSite != site.Name { // without a site, the order itself is refused
		return "", event.New(event.OrderUnconfirmed, "what", what)
	}
	return reason, nil
}

// Leaving is the body of a leave.
type Leaving struct {
	Reason      string `json:"reason" doc:"why; shown on the other node while this one is away"`
	Waiting     bool   `json:"waiting,omitempty" doc:"also if a volume is not in sync on the other node, or the database cannot be handed over: it waits"`
	ConfirmSite string `json:"confirm_site" doc:"name of the site: the order is meant, and for this site"`
}

type (
	leaving struct {
		Node string `path:"node" enum:"a,b" doc:"the node that leaves; it must be asked itself"`
		Body Leaving
	}
	overriding struct{ Body Overriding }
)

func (s *Server) memberRoutes(api huma.API) {
	route(api, http.MethodPost, "/nodes/{node}/leave", "node-leave", "Let a node leave the pair: everything on it stops, the other one goes on", s.leave)
	route(api, http.MethodPost, "/nodes/{node}/return", "node-return", "Let a node that left join again", s.comeBack)
	route(api, http.MethodGet, "/override", "override-show", "What is known of the other node, and what an override may lose", s.overrides)
	route(api, http.MethodPost, "/override/"+PeerOffOverride, "override-peer-off", "State that the other node is off and stays off", s.peerOff)
	route(api, http.MethodPost, "/override/"+ForceSoloOverride, "override-force-solo", "Go on alone against the record", s.forceSolo)
}

func (s *Server) leave(ctx context.Context, in *leaving) (*reply[Site], error) {
	reason, err := s.confirmed(ctx, "leaving the pair", Confirmed{in.Body.Reason, in.Body.ConfirmSite})
	if err == nil {
		err = s.ownNode(in.Node)
	}
	if err == nil {
		err = s.cfg.Backend.Leave(ctx, in.Body.Waiting, byRoot, reason)
	}
	return s.after(ctx, err)
}

func (s *Server) comeBack(ctx context.Context, in *byNode) (*reply[Site], error) {
	err := s.ownNode(in.Node)
	if err == nil {
		err = s.cfg.Backend.Return(ctx, byRoot)
	}
	return s.after(ctx, err)
}

func (s *Server) ownNode(node string) error {
	if node != s.cfg.Node {
		return &OtherNodeError{Object: "the membership of node " + node, Node: node}
	}
	return nil
}

func (s *Server) overrides(ctx context.Context, _ *nothing) (*reply[Overrides], error) {
	o, err := s.cfg.Backend.Overrides(ctx)
	return &reply[Overrides]{o}, err
}

func (s *Server) peerOff(ctx context.Context, in *overriding) (*reply[Site], error) {
	return s.override(ctx, in, PeerOffOverride)
}

func (s *Server) forceSolo(ctx context.Context, in *overriding) (*reply[Site], error) {
	return s.override(ctx, in, ForceSoloOverride)
}

func (s *Server) override(ctx context.Context, in *overriding, kind string) (*reply[Site], error) {
	reason, err := givenReason(in.Body.Reason)
	if err == nil {
		err = s.cfg.Backend.Override(ctx, kind, in.Body.Confirm, byRoot, reason)
	}
	return s.after(ctx, err)
}

// after is the site as it is when an order about members has been carried out.
func (s *Server) after(ctx context.Context, err error) (*reply[Site], error) {
	if err != nil {
		return nil, err
	}
	return s.site(ctx, nil)
}

// Leave lets the node that answers leave the pair.
func (c *Client) Leave(ctx context.Context, node string, l Leaving) (Site, error) {
	return post[Site](ctx, c, "/nodes/"+url.PathEscape(node)+"/leave", l)
}

// Return lets it join again.
func (c *Client) Return(ctx context.Context, node string) (Site, error) {
	return call[Site](ctx, c, http.MethodPost, "/nodes/"+url.PathEscape(node)+"/return", nil)
}

// Overrides is what is known before an override.
func (c *Client) Overrides(ctx context.Context) (Overrides, error) {
	return get[Overrides](ctx, c, "/override")
}

// Override carries one out.
func (c *Client) Override(ctx context.Context, kind string, o Overriding) (Site, error) {
	return post[Site](ctx, c, "/override/"+url.PathEscape(kind), o)
}
