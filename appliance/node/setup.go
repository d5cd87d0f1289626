package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"slices"
	"sync"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/site"
	"duet/witness/pinned"
)

// Deadlines of the steps of a founding. Each wait says what it waits for; none is for ever.
const (
	peerWait     = 90 * time.Second // both nodes boot
	registerWait = 90 * time.Second // two BMCs, and a witness behind a slow line
	bmcWait      = 10 * time.Second // two tries of a lost datagram, with a login each
	foundWait    = 30 * time.Second // PREPARE has L = 4 s; a cut begins again
	legsWait     = 5 * time.Minute  // new legs are zeroed
	testWait     = 3 * time.Minute  // one live test
	rejoinWait   = 5 * time.Minute  // the tested node boots and is brought up to date
	setupPoll    = 100 * time.Millisecond
)

// The steps, in order, as status names them.
const (
	stepPeer     = "other node"
	stepRegister = "devices and witness"
	stepFound    = "found"
	stepLegs     = "legs"
	stepTestPeer = "fence test of the other node"
	stepTestSelf = "fence test of this node"
)

// setup is the founding of a site (protocol.md 9.2) and the live fence tests behind it. What is durable (record,
// documents) says how far it has come, so every step may be cut and the whole be asked for again: founded or fresh,
// never between; proven or not.
type setup struct {
	node *Node

	mu       sync.Mutex
	running  bool
	testing  bool
	steps    []api.Step
	problem  *event.Fault
	fromPeer chan string // outcome of the test that the peer runs on this node
}

// answer runs or continues the founding; it reports every change of a step.
func (s *setup) answer(ctx context.Context, answers site.Document, report func(api.Step)) error {
	if !s.take() {
		return event.New(event.TaskRunning, "task", "setup")
	}
	defer s.release()
	err := s.run(ctx, answers, report)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problem = nil
	if err != nil {
		s.problem = event.As(err)
	}
	return err
}

func (s *setup) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running {
		return false
	}
	s.running, s.steps, s.problem = true, nil, nil
	return true
}

func (s *setup) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
}

// phase is one step with its deadline.
type phase struct {
	name, waitsFor string
	limit          time.Duration
	do             func(ctx context.Context, say func(string)) error
	skip           bool
}

func (s *setup) run(ctx context.Context, answers site.Document, report func(api.Step)) error {
	n := s.node
	doc, founded := n.document()
	if founded && doc.Name != answers.Name || n.store.Runtime().SetupComplete {
		return event.New(event.AlreadyFounded, "node", n.self.String(), "site", doc.Name)
	}
	var peer ed25519.PublicKey
	phases := []phase{
		{stepPeer, "node " + n.peer().String(), peerWait, func(ctx context.Context, _ func(string)) (err error) {
			peer, err = s.awaitPeer(ctx)
			return err
		}, founded},
		{stepRegister, "the BMCs and the witness", registerWait, func(ctx context.Context, _ func(string)) (err error) {
			doc, err = s.makeDocument(ctx, answers, peer)
			return err
		}, founded},
		{stepFound, "node " + n.peer().String(), foundWait, func(ctx context.Context, _ func(string)) error {
			return s.found(ctx, doc)
		}, founded},
		{stepLegs, "both legs of every volume", legsWait, func(ctx context.Context, say func(string)) error {
			if founded {
				s.powerPeer(ctx, say)
			}
			return s.awaitLegs(ctx, say)
		}, false},
		{stepTestPeer, "node " + n.peer().String(), testWait + rejoinWait, func(ctx context.Context, say func(string)) error {
			return s.testPeer(ctx, say)
		}, false},
		{stepTestSelf, "node " + n.peer().String(), testWait + rejoinWait, func(ctx context.Context, say func(string)) error {
			return s.testSelf(ctx, say)
		}, false},
	}
	for _, p := range phases {
		if err := s.one(ctx, p, report); err != nil {
			return err
		}
	}
	return nil
}

// one carries out a step and reports it.
func (s *setup) one(ctx context.Context, p phase, report func(api.Step)) error {
	now := time.Now()
	step := api.Step{Name: p.name, State: "running", WaitingFor: p.waitsFor, Since: now, Deadline: now.Add(p.limit)}
	say := func(state, detail string) {
		step.State, step.Detail = state, detail
		s.keep(step)
		report(step)
	}
	if p.skip {
		say("skipped", "done before")
		return nil
	}
	say("running", "")
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	err := p.do(ctx, func(detail string) { say("running", detail) })
	if err == nil {
		step.WaitingFor = ""
		say("done", step.Detail)
		return nil
	}
	say("failed", err.Error())
	if fault, ok := errors.AsType[*event.Fault](err); ok {
		return fault
	}
	return event.New(event.FoundingFailed, "step", p.name, "reason", err.Error())
}

func (s *setup) keep(step api.Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.IndexFunc(s.steps, func(o api.Step) bool { return o.Name == step.Name }); i >= 0 {
		s.steps[i] = step
		return
	}
	s.steps = append(s.steps, step)
}

// await polls a condition until the context ends. Status is a level, so nothing can be missed between two looks.
func await(ctx context.Context, ready func() (bool, error)) error {
	t := time.NewTicker(setupPoll)
	defer t.Stop()
	for {
		ok, err := ready()
		if ok || err != nil {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// show is `duet setup show`.
func (s *setup) show() api.Setup {
	n := s.node
	out := api.Setup{
		State: n.setupState(), Node: n.self.String(), ChassisSerial: n.boot.ChassisSerial,
		NodeKey: pinned.FormatKey(n.key.Public().(ed25519.PublicKey)), Steps: []api.Step{},
	}
	for _, p := range n.driver.Paths() {
		if p.Connected && p.Chassis && p.PeerKey != nil {
			out.Peer = &api.SetupPeer{
				Node: n.peer().String(), Key: pinned.FormatKey(p.PeerKey), ChassisSerial: p.Serial, Fresh: p.Fresh, Path: p.Name,
			}
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Steps = append(out.Steps, s.steps...)
	if s.problem != nil {
		f := apiFault(s.problem, time.Time{})
		out.Problem = &f
	}
	return out
}

// setupState: fresh, founding, testing, complete.
func (n *Node) setupState() string {
	_, founded := n.document()
	st := n.driver.View().State
	switch {
	case n.store.Runtime().SetupComplete:
		return "complete"
	case founded && st.Rec.Ep != 0:
		return "testing"
	case founded:
		return "founding"
	}
	n.setup.mu.Lock()
	defer n.setup.mu.Unlock()
	if n.setup.running {
		return "founding"
	}
	return "fresh"
}
