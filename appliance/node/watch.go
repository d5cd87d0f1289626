package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"duet/ipmi/fence"
	"duet/witness/wire"
)

// How often the means that are only needed in trouble are looked at. The bytes are counted in protocol.md section 11.
const (
	witnessEach  = 30 * time.Second
	witnessAgain = 2 * time.Second // after a silence
	witnessWait  = 5 * time.Second // a round trip that the register tolerates
	fenceEach    = 30 * time.Second
	fenceAgain   = 5 * time.Second
	watchTick    = 250 * time.Millisecond
)

// watch keeps what status says about witness and fencing fresh.
type watch struct {
	node *Node

	mu      sync.Mutex
	witness witnessSeen
	fence   fenceSeen
}

type witnessSeen struct {
	asked    time.Time
	answered time.Time // zero: never
	ok       bool      // the last question was answered
	rtt      time.Duration
	problem  string
}

type fenceSeen struct {
	asked  time.Time
	status fence.Status
}

func (w *watch) run(ctx context.Context) error {
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	witness, power := make(chan struct{}, 1), make(chan struct{}, 1) // one question at a time
	for {
		if w.witnessDue() && take(witness) {
			wg.Go(func() { defer give(witness); w.askWitness(ctx) })
		}
		if w.fenceDue() && take(power) {
			wg.Go(func() { defer give(power); w.askFence(ctx) })
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
	if !w.witness.ok || c != nil && !c.Connected() {
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
	reply, err := c.Do(ctx, wire.Request{Op: wire.Status, Nonce: binary.LittleEndian.Uint64(nonce[:])})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.witness.asked = began
	w.witness.ok = err == nil && reply.Result == wire.OK
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

func (w *watch) fenceDue() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	each := fenceEach
	for _, p := range w.fence.status.Paths {
		if p.State == fence.PathUnknown || p.Fault != nil {
			each = fenceAgain
		}
	}
	return time.Since(w.fence.asked) >= each
}

func (w *watch) askFence(ctx context.Context) {
	w.node.mu.Lock()
	f := w.node.fencer
	w.node.mu.Unlock()
	if f == nil || f.held.Load() {
		return
	}
	began := time.Now()
	status := f.status(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fence = fenceSeen{asked: began, status: status}
}

func (w *watch) seen() (witnessSeen, fenceSeen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.witness, w.fence
}
