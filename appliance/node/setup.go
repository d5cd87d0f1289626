package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
	"duet/witness/client"
	"duet/witness/pinned"
	"duet/witness/register"
	"duet/witness/wire"
)

// Deadlines of the steps of a founding. Each wait says what it waits for; none is for ever.
const (
	peerWait     = 90 * time.Second // both nodes boot
	registerWait = 60 * time.Second // a witness behind a slow line
	foundWait    = 30 * time.Second // PREPARE has L = 4 s; a cut begins again
	legsWait     = 5 * time.Minute  // new legs are zeroed
	testWait     = 3 * time.Minute  // one live test
	rejoinWait   = 5 * time.Minute  // the tested node boots and is brought up to date
	setupPoll    = 100 * time.Millisecond
)

// The steps, in order, as status names them.
const (
	stepPeer     = "other node"
	stepRegister = "witness register"
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
		{stepRegister, "the witness", registerWait, func(ctx context.Context, _ func(string)) (err error) {
			doc, err = s.makeDocument(ctx, answers, peer)
			return err
		}, founded},
		{stepFound, "node " + n.peer().String(), foundWait, func(ctx context.Context, _ func(string)) error {
			return s.found(ctx, doc)
		}, founded},
		{stepLegs, "both legs of every volume", legsWait, func(ctx context.Context, say func(string)) error {
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
	var fault *event.Fault
	if errors.As(err, &fault) {
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

// awaitPeer waits for a session with a fresh peer and returns its key.
func (s *setup) awaitPeer(ctx context.Context) (ed25519.PublicKey, error) {
	n := s.node
	var key ed25519.PublicKey
	err := await(ctx, func() (bool, error) {
		v := n.driver.View()
		if v.State.Session == 0 || !v.State.Peer.Hello {
			return false, nil
		}
		if !v.State.Peer.Fresh {
			return false, event.New(event.PeerNotFresh, "peer", n.peer().String())
		}
		key = v.PeerKey
		return len(key) == ed25519.PublicKeySize, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, event.New(event.NoPeer, "node", n.self.String(), "peer", n.peer().String())
	}
	return key, err
}

// makeDocument fills what setup adds, and lets the witness make the register: no CAS can match its content, so nobody
// can win it before the first PUSH.
func (s *setup) makeDocument(ctx context.Context, answers site.Document, peer ed25519.PublicKey) (site.Document, error) {
	n := s.node
	keys := map[membership.Node]ed25519.PublicKey{n.self: n.key.Public().(ed25519.PublicKey), n.peer(): peer}
	doc, err := site.Found(answers, site.Founding{Random: rand.Reader, KeyA: keys[membership.A], KeyB: keys[membership.B]})
	if err != nil {
		var wrong site.FieldErrors
		if errors.As(err, &wrong) {
			var fields []string
			for _, f := range wrong {
				fields = append(fields, f.Field)
			}
			return doc, event.New(event.DocumentInvalid, "count", fmt.Sprint(len(wrong)), "fields", strings.Join(fields, ", ")).Because(err)
		}
		return doc, err
	}
	if doc.Witness == nil {
		return doc, nil
	}
	rid, err := s.createRegister(ctx, doc)
	if err != nil {
		return doc, err
	}
	doc.SetRID(fmt.Sprintf("%x", rid))
	return doc, nil
}

func (s *setup) createRegister(ctx context.Context, doc site.Document) (register.ID, error) {
	c, err := s.node.witnessClient(doc)
	if err != nil {
		return register.ID{}, err
	}
	defer c.Close()
	id, err := parseID(doc.SiteID)
	if err != nil {
		return register.ID{}, err
	}
	var nonce [8]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return register.ID{}, err
	}
	reply, err := c.Do(ctx, wire.Request{Op: wire.Create, Site: register.ID(id), Nonce: binary.LittleEndian.Uint64(nonce[:])})
	switch {
	case errors.Is(err, client.ErrKeyRefused), errors.Is(err, client.ErrServerKey):
		return register.ID{}, event.New(event.WitnessRefused, "address", doc.Witness.Address, "reason", err.Error())
	case err != nil:
		return register.ID{}, event.New(event.WitnessSilent, "address", doc.Witness.Address, "seconds",
			fmt.Sprint(int(registerWait.Seconds()))).Because(err)
	case reply.Result != wire.OK:
		return register.ID{}, event.New(event.WitnessRefused, "address", doc.Witness.Address, "reason", reply.Result.String())
	}
	return reply.RID, nil
}

// found gives the order of R27 and waits until both nodes have recorded epoch 1. A cut begins it again in the next
// session; the register of a founding that did not come about is never used.
func (s *setup) found(ctx context.Context, doc site.Document) error {
	n := s.node
	order, body, err := foundingOf(doc, n.self)
	if err != nil {
		return err
	}
	if err := n.store.SaveDocument(doc); err != nil {
		return fmt.Errorf("site document: %w", err)
	}
	var asked membership.Session
	err = await(ctx, func() (bool, error) {
		st := n.driver.View().State
		switch {
		case !st.Fresh():
			return st.Committed() && st.Peer.Ep == st.Rec.Ep && st.Peer.Prep == 0 && st.Push.Nonce == 0, nil
		case st.Session != 0 && st.Session != asked && st.Peer.Fresh && st.Peer.Hello:
			asked = st.Session
			if err := n.store.SaveDocument(doc); err != nil { // a founding that was dropped has forgotten it
				return false, err
			}
			n.driver.Tell(msgDocument, body)
			n.driver.Found(order)
		}
		return false, nil
	})
	if err != nil && n.driver.View().State.Fresh() {
		return errors.Join(err, n.store.Forget())
	}
	return err
}

// foundingOf is the order for the core and the body for the peer.
func foundingOf(doc site.Document, founder membership.Node) (membership.Found, []byte, error) {
	body, err := doc.Canonical()
	if err != nil {
		return membership.Found{}, nil, err
	}
	hash, err := doc.Hash()
	if err != nil {
		return membership.Found{}, nil, err
	}
	f := membership.Found{}
	if f.Site, err = parseID(doc.SiteID); err != nil {
		return f, nil, err
	}
	if doc.Witness != nil {
		f.Arb.Kind = membership.ArbWitness
		if f.Arb.RID, err = parseID(doc.Witness.RID); err != nil {
			return f, nil, err
		}
	}
	f.Owners, f.Legs = tables(doc, founder)
	f.Docs[membership.DocSite] = membership.DocRef{Ep: 1, Version: doc.Version, Hash: membership.Digest(hash)}
	return f, body, nil
}

// awaitLegs waits until the pair is committed and every volume runs on both legs.
func (s *setup) awaitLegs(ctx context.Context, say func(string)) error {
	n := s.node
	last := ""
	return await(ctx, func() (bool, error) {
		st := n.driver.View().State
		status, ok := n.driver.MirrorStatus(ctx)
		detail := "waiting for the mirror"
		done := ok && st.Committed() && st.Peer.Ep == st.Rec.Ep && st.Peer.Prep == 0 && st.Push.Nonce == 0 && status.LinkUp
		for _, v := range status.Volumes {
			if v.LegState != "uptodate" || v.Stage != "paired" {
				done, detail = false, fmt.Sprintf("volume %s: %s", v.Name, v.Stage)
			}
		}
		if !done && detail != last {
			last = detail
			say(detail)
		}
		return done, nil
	})
}

// testPeer runs the live fence test of the peer from here, and waits until the peer is back and in sync.
func (s *setup) testPeer(ctx context.Context, say func(string)) error {
	n := s.node
	n.mu.Lock()
	f := n.fencer
	n.mu.Unlock()
	peer := n.peer().String()
	if f == nil || !f.exists() || n.tested(n.peer()) {
		return s.completeIfDone()
	}
	if err := s.awaitLegs(ctx, say); err != nil { // both hold everything before one is turned off
		return err
	}
	f.held.Store(true)
	defer f.held.Store(false)
	n.driver.Note("fence-test", peer)
	result, err := f.test(ctx, say)
	if err != nil {
		return event.New(event.FenceTestFailed, "node", peer, "step", err.Error())
	}
	say("node " + peer + " boots and joins")
	if err := s.awaitLegs(ctx, func(string) {}); err != nil {
		return fmt.Errorf("node %s did not come back after its test: %w", peer, err)
	}
	err = n.changeRuntime(func(r *site.Runtime) {
		r.BMCProven[peer] = r.BMCProven[peer] || result.BMCProven
		r.OutletsProven[peer] = r.OutletsProven[peer] || result.OutletsProven
	})
	if err != nil {
		return err
	}
	return s.completeIfDone()
}

// testSelf asks the peer to test this node. This node is turned off by it, so the task ends here with its power; the
// peer goes on and completes the setup.
func (s *setup) testSelf(ctx context.Context, say func(string)) error {
	n := s.node
	if n.store.Runtime().SetupComplete {
		return nil
	}
	outcome := make(chan string, 1)
	s.mu.Lock()
	s.fromPeer = outcome
	s.mu.Unlock()
	say("node " + n.peer().String() + " turns this node off and on")
	n.driver.Tell(msgTestMe, nil)
	return await(ctx, func() (bool, error) {
		select {
		case problem := <-outcome:
			if problem != "" {
				return false, event.New(event.FenceTestFailed, "node", n.self.String(), "step", problem)
			}
		default:
		}
		return n.store.Runtime().SetupComplete, nil
	})
}

func (s *setup) toldTest(problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fromPeer != nil {
		select {
		case s.fromPeer <- problem:
		default:
		}
	}
}

// testForPeer is the other side of testSelf.
func (s *setup) testForPeer() {
	s.mu.Lock()
	busy := s.testing
	s.testing = true
	s.mu.Unlock()
	if busy {
		return
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.testing = false
	}()
	n := s.node
	err := s.one(n.ctx, phase{
		name: stepTestPeer, waitsFor: "node " + n.peer().String(), limit: testWait + rejoinWait, do: s.testPeer,
	}, func(step api.Step) {
		n.log.Info("setup", "step", step.Name, "state", step.State, "detail", step.Detail)
	})
	outcome := ""
	if err != nil {
		outcome = err.Error()
		n.faults.raise(event.As(err))
	}
	n.driver.Tell(msgTestDone, []byte(outcome))
}

// tested says whether every way to turn a node off has passed its live test.
func (n *Node) tested(node membership.Node) bool {
	doc, ok := n.document()
	if !ok {
		return false
	}
	r := n.store.Runtime()
	d := doc.Node(node.String())
	bmc := d.BMC == nil || r.BMCProven[node.String()]
	outlets := doc.PDU == nil || len(d.Outlets) == 0 || r.OutletsProven[node.String()]
	return bmc && outlets
}

// completeIfDone ends the setup when nothing is left to be proven. From here on VMs are wanted.
func (s *setup) completeIfDone() error {
	n := s.node
	if n.store.Runtime().SetupComplete || !n.tested(membership.A) || !n.tested(membership.B) {
		return nil
	}
	n.driver.Note("setup-complete", "")
	return n.changeRuntime(func(r *site.Runtime) { r.SetupComplete = true })
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
