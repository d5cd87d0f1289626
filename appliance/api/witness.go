package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"duet/appliance/event"
	"duet/appliance/site"
)

// witnessLimit bounds a change of the witness: asking it, the document on both nodes, the register, both records.
const witnessLimit = 2 * time.Minute

// Kinds of its task.
const (
	witnessAddTask     = "witness-add"
	witnessReplaceTask = "witness-replace"
)

// WitnessBackend is what the API needs to change the witness.
type WitnessBackend interface {
	// TestWitness asks this witness, or the site's when the address is empty, and returns the round trip.
	TestWitness(ctx context.Context, w site.Witness) (address string, rtt time.Duration, err error)
	// AddWitness admits a witness to a site that has none.
	AddWitness(ctx context.Context, w site.Witness, by, reason string, progress func(string)) error
	// ReplaceWitness admits another witness in the place of the present one; without an address it makes a fresh
	// register at the present one.
	ReplaceWitness(ctx context.Context, w site.Witness, by, reason string, progress func(string)) error
}

// WitnessOrder names a witness. Address and key come together.
type WitnessOrder struct {
	Address string `json:"address,omitempty" doc:"host:port"`
	Key     string `json:"key,omitempty" doc:"ed25519 public key of the witness, base64"`
	Reason  string `json:"reason,omitempty" doc:"why; kept in the log"`
}

// WitnessTest is the answer of a witness.
type WitnessTest struct {
	Address string  `json:"address"`
	RTTMS   float64 `json:"rtt_ms"`
}

type witnessBody struct{ Body WitnessOrder }

func (s *Server) witnessRoutes(api huma.API) {
	route(api, http.MethodGet, "/witness", "witness-status", "The witness, the register in use, and how a node may go on alone", s.witness)
	route(api, http.MethodPost, "/witness/test", "witness-test", "Ask a witness and measure the round trip", s.witnessTest)
	route(api, http.MethodPost, "/witness/add", "witness-add", "Admit a witness to a site without one", s.witnessAdd)
	route(api, http.MethodPost, "/witness/replace", "witness-replace", "Admit another witness, or a fresh register at the present one", s.witnessReplace)
}

func (s *Server) witness(ctx context.Context, _ *nothing) (*reply[Witness], error) {
	st, err := s.cfg.Backend.Site(ctx)
	return &reply[Witness]{st.Witness}, err
}

func (s *Server) witnessTest(ctx context.Context, in *witnessBody) (*reply[WitnessTest], error) {
	w, err := in.Body.witness(false)
	if err != nil {
		return nil, err
	}
	address, rtt, err := s.cfg.Backend.TestWitness(ctx, w)
	return &reply[WitnessTest]{WitnessTest{address, float64(rtt.Microseconds()) / 1000}}, err
}

func (s *Server) witnessAdd(_ context.Context, in *witnessBody) (*accepted, error) {
	return s.changeWitness(in, witnessAddTask, true, s.cfg.Backend.AddWitness)
}

func (s *Server) witnessReplace(_ context.Context, in *witnessBody) (*accepted, error) {
	return s.changeWitness(in, witnessReplaceTask, false, s.cfg.Backend.ReplaceWitness)
}

func (s *Server) changeWitness(
	in *witnessBody, kind string, named bool,
	change func(ctx context.Context, w site.Witness, by, reason string, progress func(string)) error,
) (*accepted, error) {
	reason, err := givenReason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	w, err := in.Body.witness(named)
	if err != nil {
		return nil, err
	}
	task, err := s.tasks.start(s.ctx, kind, witnessLimit, func(ctx context.Context, report func(Step)) error {
		return inSteps(report, witnessLimit, "the witness and the other node", func(progress func(string)) error {
			return change(ctx, w, byRoot, reason, progress)
		})
	})
	return &accepted{Location: base + "/tasks/" + task.ID, Body: task}, err
}

// witness is what was named, checked; nothing named is the zero value unless it must be.
func (o WitnessOrder) witness(must bool) (site.Witness, error) {
	w := site.Witness{Address: strings.TrimSpace(o.Address), Key: strings.TrimSpace(o.Key)}
	if w == (site.Witness{}) && !must {
		return w, nil
	}
	if w.Address == "" || w.Key == "" {
		return w, event.New(event.BadRequest, "detail", "a witness is named by its address and its key, both")
	}
	return w, site.CheckWitness(w).Err()
}

// givenReason is a reason of the length that is shown everywhere.
func givenReason(text string) (string, error) {
	reason := strings.TrimSpace(text)
	if reason == "" || len(reason) > reasonBytesMax {
		return "", event.New(event.BadRequest, "detail", "a reason of 1 to 200 bytes is needed")
	}
	return reason, nil
}

// inSteps turns words of progress into the steps of a task: each ends the one before it.
func inSteps(report func(Step), limit time.Duration, waitsFor string, do func(progress func(string)) error) error {
	began := time.Now()
	var step Step
	end := func(state string) {
		if step.Name != "" {
			step.State, step.WaitingFor, step.Detail = state, "", fmt.Sprintf("%.1f s", time.Since(step.Since).Seconds())
			report(step)
		}
	}
	err := do(func(name string) {
		end("done")
		step = Step{Name: name, State: "running", WaitingFor: waitsFor, Since: time.Now(), Deadline: began.Add(limit)}
		report(step)
	})
	if err != nil {
		end("failed")
		return err
	}
	end("done")
	return nil
}

// Witness is the witness and the arbiter.
func (c *Client) Witness(ctx context.Context) (Witness, error) {
	return get[Witness](ctx, c, "/witness")
}

// WitnessTest asks a witness; without an address the site's.
func (c *Client) WitnessTest(ctx context.Context, o WitnessOrder) (WitnessTest, error) {
	return post[WitnessTest](ctx, c, "/witness/test", o)
}

// WitnessAdd begins the task that admits a first witness.
func (c *Client) WitnessAdd(ctx context.Context, o WitnessOrder) (Task, error) {
	return post[Task](ctx, c, "/witness/add", o)
}

// WitnessReplace begins the task that admits another witness, or a fresh register.
func (c *Client) WitnessReplace(ctx context.Context, o WitnessOrder) (Task, error) {
	return post[Task](ctx, c, "/witness/replace", o)
}

func post[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	text, err := json.Marshal(body)
	if err != nil {
		var none T
		return none, fmt.Errorf("request: %w", err)
	}
	return call[T](ctx, c, http.MethodPost, path, text)
}
