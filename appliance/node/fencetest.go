package node

import (
	"context"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
)

// The live fence tests that end a setup (hardware.md section 5): each node turns the other one off and on by every way
// it has. Only then is an outlet map evidence, and only then does anything run.

// testPeer runs the live fence test of the peer from here, and waits until the peer is back and in sync.
func (s *setup) testPeer(ctx context.Context, say func(string)) error {
	n := s.node
	f := n.fencerNow()
	if f == nil || !f.exists() || n.tested(n.peer()) {
		return s.completeIfDone()
	}
	if err := s.awaitLegs(ctx, say); err != nil { // both hold everything before one is turned off
		return err
	}
	if err := n.liveTest(ctx, f, nil, "setup", "", say); err != nil {
		return err
	}
	return s.completeIfDone()
}

// powerPeer gives a peer that is not there its power back: a live test that was cut short may have left its outlets
// off, and until that test has passed no evidence can lead to R10b. A peer that is on is left as it is; one that is
// switched on has no authority until it joins. What fails here shows in the step that waits for the peer.
func (s *setup) powerPeer(ctx context.Context, say func(string)) {
	n := s.node
	n.mu.Lock()
	f := n.fencer
	n.mu.Unlock()
	if n.driver.View().State.Session != 0 || f == nil || !f.exists() {
		return
	}
	say("node " + n.peer().String() + " gets its power back")
	if err := f.PowerOn(ctx); err != nil {
		n.log.Warn("setup cannot power on the other node", "error", err.Error())
	}
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
