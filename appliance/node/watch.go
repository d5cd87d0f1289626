package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"duet/appliance/membership"
	"duet/witness/register"
	"duet/witness/wire"
)

// How often the means that are only needed in trouble are looked at. The bytes are counted in protocol.md section 11.
const (
	witnessEach  = 30 * time.Second
	witnessAgain = 2 * time.Second // after a silence
	witnessWait  = 5 * time.Second // a round trip that the register tolerates
	watchTick    = 250 * time.Millisecond
)

// watch keeps what status says about the witness fresh. The ways to fence are proven by a watch of their own (fenceproof.go).
type watch struct {
	node *Node

	mu      sync.Mutex
	witness witnessSeen

	published time.Time
}

type witnessSeen struct {
	asked    time.Time
	answered time.Time     // zero: never
	ok       bool          // the last question was answered
	rid      membership.ID // the register that the record named when it was asked; zero: none
	known    bool          // it is one of those that the witness has
	rtt      time.Duration
	problem  string
}

func (w *watch) run(ctx context.Context) error {
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	witness := make(chan struct{}, 1) // one question at a time
	for {
		if w.witnessDue() && take(witness) {
			wg.Go(func() { defer give(witness); w.askWitness(ctx) })
		}
		if w.publishDue() {
			wg.Go(w.node.publishProof)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func take(c chan struct{}) bool {
	select {
	case c <- struct{}{}:
		return true
	default:
		return false
	}
}

func give(c chan struct{}) { <-c }

// witnessDue: a connection that broke is news about a witness that was thought to be there.
func (w *watch) witnessDue() bool {
	w.node.mu.Lock()
	c := w.node.witness
	w.node.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	each := witnessEach
	if !w.witness.ok || c != nil && !c.Connected() || w.witness.rid != w.node.register() {
		each = witnessAgain
	}
	return time.Since(w.witness.asked) >= each
}

func (w *watch) askWitness(ctx context.Context) {
	w.node.mu.Lock()
	c := w.node.witness
	w.node.mu.Unlock()
	if c == nil {
		w.mu.Lock()
		w.witness = witnessSeen{}
		w.mu.Unlock()
		return
	}
	var nonce [8]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, witnessWait)
	defer cancel()
	began := time.Now()
	rid := w.node.register()
	reply, err := c.Do(ctx, wire.Request{Op: wire.Status, Nonce: binary.LittleEndian.Uint64(nonce[:])})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.witness.asked, w.witness.rid = began, rid
	w.witness.ok = err == nil && reply.Result == wire.OK
	w.witness.known = w.witness.ok && slices.Contains(reply.RIDs, register.ID(rid))
	w.witness.problem = ""
	switch {
	case err != nil:
		w.witness.problem = err.Error()
	case reply.Result != wire.OK:
		w.witness.problem = reply.Result.String()
	default:
		w.witness.answered, w.witness.rtt = time.Now(), time.Since(began)
	}
}

// register is the one that the record names; zero: none.
func (n *Node) register() membership.ID {
	if arb := n.driver.View().State.Rec.Arb; arb.Kind == membership.ArbWitness {
		return arb.RID
	}
	return membership.ID{}
}

// forgets says that the witness answers and does not have this register: it lost its store, or made it before the four
// newest. An answer about another register says nothing.
func (s witnessSeen) forgets(rid membership.ID) bool {
	return s.ok && !rid.IsZero() && s.rid == rid && !s.known
}

// publishDue: the peer is told how the paths to it stand, also when nothing changes, so that what it knows has an age.
func (w *watch) publishDue() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.published) < publishEvery || !w.node.peerHere() {
		return false
	}
	w.published = time.Now()
	return true
}

func (w *watch) seen() witnessSeen {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.witness
}
