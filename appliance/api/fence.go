package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Limits of what is about fencing.
const (
	historyMax      = 1000 // entries of one answer; the ledger has about as many
	historyDefault  = 20
	liveTestLimit   = 10 * time.Minute // off, on, boot, join
	reasonBytesMax  = 200
	byRoot          = "root" // the local socket lets nobody else in
	livePowerCycle  = "fence-test"
	fenceTestPath   = "/fence/test/{node}"
	fenceCyclePath  = "/fence/test/{node}/power-cycle"
	nodeLatchPath   = "/nodes/{node}/latch"
	nodeUnlatchPath = "/nodes/{node}/on"
)

// FenceBackend is what the API needs for fencing. An order about the power of the answering node is refused with
// *OtherNodeError: no node can prove the ways to itself.
type FenceBackend interface {
	// FenceTest proves every path to that node now, without switching anything.
	FenceTest(ctx context.Context, node string) ([]FencePath, error)
	// FenceTestLive switches that node off and on by every path. It demands that nothing needs it (FENCE-5048).
	// newBMC: its BMC was exchanged, and the test makes the new one known.
	FenceTestLive(ctx context.Context, node string, newBMC bool, by, reason string, progress func(string)) error
	// FenceHistory is what was done, newest first.
	FenceHistory(ctx context.Context, limit int) ([]FenceEntry, error)
	// LatchNode keeps a node off; UnlatchNode lifts that and switches it on.
	LatchNode(ctx context.Context, node, reason, by string) error
	UnlatchNode(ctx context.Context, node, reason, by string) error
}

// FenceEntry is one line of the fence ledger.
type FenceEntry struct {
	What       string            `json:"what" enum:"fence,live-test,latch,unlatch"`
	Node       string            `json:"node"` // whom it was about
	By         string            `json:"by"`   // core, setup, or who ordered it
	At         time.Time         `json:"at"`
	BoottimeMS int64             `json:"boottime_ms"`
	TookMS     int64             `json:"took_ms"`
	Epoch      uint64            `json:"epoch"`
	Means      string            `json:"means,omitempty"`
	Verdict    string            `json:"verdict,omitempty" enum:"confirmed,refused,unknown"`
	Decided    string            `json:"decided,omitempty"`  // kind of evidence that decided: bmc, outlets, load, person
	Evidence   map[string]string `json:"evidence,omitempty"` // verdict of each kind that said anything
	Why        string            `json:"why"`
	Code       string            `json:"code,omitempty"`
	Steps      []FenceStep       `json:"steps,omitempty"`
	Raw        string            `json:"raw,omitempty"` // sha256 of what was exchanged
	Repeats    int               `json:"repeats,omitempty"`
}

// FenceStep is one step of a live test, with its time.
type FenceStep struct {
	Name   string `json:"name"`
	TookMS int64  `json:"took_ms"`
}

// Latch says that a node is off and stays off.
type Latch struct {
	Node   string    `json:"node"`
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Epoch  uint64    `json:"epoch"`
	At     time.Time `json:"at"`
}

// Cycling is the body of a live test.
type Cycling struct {
	Reason      string `json:"reason" doc:"why; the ledger keeps it"`
	ConfirmSite string `json:"confirm_site" doc:"name of the site: the order is meant, and for this site"`
	NewBMC      bool   `json:"new_bmc,omitempty" doc:"the BMC of the node was exchanged: record the GUID of the new one if the test passes"`
}

// Reason is the body of an order that needs nothing else.
type Reason struct {
	Reason string `json:"reason" doc:"why; it is shown to everybody who looks"`
}

type (
	byNode struct {
		Node string `path:"node" enum:"a,b" doc:"the node whose power it is"`
	}
	historyQuery struct {
		Limit int `query:"limit" minimum:"0" maximum:"1000" doc:"how many, newest first; 0: 20"`
	}
	cycled struct {
		Node string `path:"node" enum:"a,b" doc:"the node that is switched off and on"`
		Body Cycling
	}
	reasoned struct {
		Node string `path:"node" enum:"a,b" doc:"the node whose power it is"`
		Body Reason
	}
)

func (s *Server) fenceRoutes(api huma.API) {
	route(api, http.MethodGet, "/fence", "fence-status", "Ways to turn each node off, their standing proof, and the last evidence", s.fence)
	route(api, http.MethodPost, fenceTestPath, "fence-test", "Prove every way to a node now; nothing is switched", s.fenceTest)
	route(api, http.MethodPost, fenceCyclePath, "fence-test-live", "Switch a node off and on by every way", s.fenceTestLive)
	route(api, http.MethodGet, "/fence/history", "fence-history", "What was done to switch a node off, and what was seen", s.fenceHistory)
	route(api, http.MethodPost, nodeLatchPath, "node-latch", "Keep a node off", s.latch)
	route(api, http.MethodPost, nodeUnlatchPath, "node-on", "Lift the latch of a node and switch it on", s.unlatch)
}

func (s *Server) fence(ctx context.Context, _ *nothing) (*reply[Fence], error) {
	st, err := s.cfg.Backend.Site(ctx)
	return &reply[Fence]{st.filled().Fence}, err
}

func (s *Server) fenceTest(ctx context.Context, in *byNode) (*reply[[]FencePath], error) {
	paths, err := s.cfg.Backend.FenceTest(ctx, in.Node)
	return &reply[[]FencePath]{orEmpty(paths)}, err
}

func (s *Server) fenceTestLive(ctx context.Context, in *cycled) (*reply[Task], error) {
	reason, err := s.confirmed(ctx, "the live test of node "+in.Node, Confirmed{in.Body.Reason, in.Body.ConfirmSite})
	if err != nil {
		return nil, err
	}
	task, err := s.tasks.start(s.ctx, livePowerCycle, liveTestLimit, func(ctx context.Context, report func(Step)) error {
		return inSteps(report, liveTestLimit, "node "+in.Node, func(progress func(string)) error {
			return s.cfg.Backend.FenceTestLive(ctx, in.Node, in.Body.NewBMC, byRoot, reason, progress)
		})
	})
	return &reply[Task]{task}, err
}

func (s *Server) fenceHistory(ctx context.Context, in *historyQuery) (*reply[[]FenceEntry], error) {
	limit := min(in.Limit, historyMax)
	if limit <= 0 {
		limit = historyDefault
	}
	entries, err := s.cfg.Backend.FenceHistory(ctx, limit)
	return &reply[[]FenceEntry]{orEmpty(entries)}, err
}

func (s *Server) latch(ctx context.Context, in *reasoned) (*reply[Fence], error) {
	return s.latching(ctx, in, s.cfg.Backend.LatchNode)
}

func (s *Server) unlatch(ctx context.Context, in *reasoned) (*reply[Fence], error) {
	return s.latching(ctx, in, s.cfg.Backend.UnlatchNode)
}

func (s *Server) latching(ctx context.Context, in *reasoned, act func(ctx context.Context, node, reason, by string) error) (*reply[Fence], error) {
	reason, err := givenReason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	if err := act(ctx, in.Node, reason, byRoot); err != nil {
		return nil, err
	}
	return s.fence(ctx, nil)
}

// FenceTest proves every way to a node now.
func (c *Client) FenceTest(ctx context.Context, node string) ([]FencePath, error) {
	return call[[]FencePath](ctx, c, http.MethodPost, "/fence/test/"+url.PathEscape(node), nil)
}

// FenceTestLive begins the task that switches a node off and on.
func (c *Client) FenceTestLive(ctx context.Context, node string, o Cycling) (Task, error) {
	return post[Task](ctx, c, "/fence/test/"+url.PathEscape(node)+"/power-cycle", o)
}

// FenceHistory is what was done, newest first.
func (c *Client) FenceHistory(ctx context.Context, limit int) ([]FenceEntry, error) {
	return get[[]FenceEntry](ctx, c, "/fence/history?limit="+strconv.Itoa(limit))
}

// Latch keeps a node off.
func (c *Client) Latch(ctx context.Context, node string, reason []byte) (Fence, error) {
	return call[Fence](ctx, c, http.MethodPost, "/nodes/"+url.PathEscape(node)+"/latch", reason)
}

// Unlatch lifts the latch of a node and switches it on.
func (c *Client) Unlatch(ctx context.Context, node string, reason []byte) (Fence, error) {
	return call[Fence](ctx, c, http.MethodPost, "/nodes/"+url.PathEscape(node)+"/on", reason)
}

// filled makes every list non-nil.
func (f Fence) filled() Fence {
	f.Says = orEmpty(f.Says)
	f.Paths, f.Latches = orEmpty(slices.Clone(f.Paths)), orEmpty(f.Latches)
	return f
}
