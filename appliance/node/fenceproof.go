package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"duet/appliance/internal/boottime"
	"duet/ipmi/fence"
)

// The standing proof of fencing (hardware.md section 5), as this node knows it: of the paths to the peer by its own
// checks, of the paths to itself by what the peer tells. Fencing may become the arbiter only if it is fresh in both
// directions (protocol.md R21a).

const (
	publishEvery   = 15 * time.Second // also unasked: a duetd that was restarted inside a session knows nothing
	publishedMax   = 8                // paths; a node has two
	publishedBytes = 4096
)

// published is what a node tells its peer of one path to it.
type published struct {
	Kind  string `json:"kind"`
	State string `json:"state"`
	AgeMS int64  `json:"age_ms"` // since it was proven; -1: never
	Fresh bool   `json:"fresh"`
	Code  string `json:"code,omitempty"` // why it is withdrawn
}

// pathSeen is one way to the peer.
type pathSeen struct {
	path    fence.Path
	proof   fence.Proof
	watched bool // proof says something
}

// proof runs the watch of a fencer and keeps what the peer told.
type proof struct {
	cancel context.CancelFunc
	done   chan struct{}
	watch  *fence.Watch // nil: there is no path, or nobody began

	mu     sync.Mutex
	told   []published
	toldAt int64 // CLOCK_BOOTTIME; 0: nothing in this session
}

// begin starts the checks. here says whether the peer is heard; changed is called when a path stands otherwise.
func (p *proof) begin(r *fence.Runner, rhythm fence.Rhythm, here func() bool, changed func()) {
	if r == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.watch, p.cancel, p.done = fence.NewWatch(r, rhythm, here, changed), cancel, make(chan struct{})
	go func() {
		defer close(p.done)
		p.watch.Run(ctx)
	}()
}

func (p *proof) stop() {
	if p.cancel != nil {
		p.cancel()
		<-p.done
	}
}

func (p *proof) now() []fence.Proof {
	if p.watch == nil {
		return nil
	}
	return p.watch.Proofs()
}

// publish is what the peer is told.
func (p *proof) publish() []published {
	out := []published{}
	now := boottime.Now()
	for _, q := range p.now() {
		o := published{Kind: string(q.Kind), State: string(q.State), AgeMS: -1, Fresh: q.Fresh(fence.Boottime(now), fence.DefaultRhythm())}
		if q.ProvenAt != 0 {
			o.AgeMS = (now - int64(q.ProvenAt)) / int64(time.Millisecond)
		}
		if q.Fault != nil {
			o.Code = q.Fault.Code
		}
		out = append(out, o)
	}
	return out
}

// take keeps what the peer told. It is news of this session only.
func (p *proof) take(told []published) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told, p.toldAt = told, boottime.Now()
}

func (p *proof) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told, p.toldAt = nil, 0
}

// fromPeer is what the peer last told, its ages as they are now, and whether it told anything in this session.
func (p *proof) fromPeer() ([]published, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.toldAt == 0 {
		return nil, false
	}
	passed := (boottime.Now() - p.toldAt) / int64(time.Millisecond)
	out := slices.Clone(p.told)
	for i := range out {
		if out[i].AgeMS >= 0 {
			out[i].AgeMS += passed
		}
		out[i].Fresh = out[i].Fresh && out[i].AgeMS >= 0 && out[i].AgeMS < int64(fence.DefaultRhythm().Fresh)/int64(time.Millisecond)
	}
	return out, true
}

// ProofFresh says whether at least one path of each direction would be expected to bring evidence now: the guard of
// prudence of R21a. It is false without a session, because only the peer knows of the paths to this node.
func (f *fencer) ProofFresh() bool {
	if f.runner == nil || f.proof.watch == nil || !f.proof.watch.Fresh() {
		return false
	}
	told, ok := f.proof.fromPeer()
	return ok && slices.ContainsFunc(told, func(p published) bool { return p.Fresh })
}

// publishProof tells the peer how the paths to it stand.
func (n *Node) publishProof() {
	f := n.fencerNow()
	if f == nil {
		return
	}
	body, err := json.Marshal(f.proof.publish())
	if err != nil {
		n.log.Error("fence proof", "error", err.Error())
		return
	}
	n.driver.Tell(msgFenceProof, body)
}

func (n *Node) fencerNow() *fencer {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fencer
}

func (n *Node) toldProof(body []byte) error {
	told, err := parsePublished(body)
	if err != nil {
		return err
	}
	if f := n.fencerNow(); f != nil {
		f.proof.take(told)
	}
	return nil
}

func parsePublished(body []byte) ([]published, error) {
	if len(body) > publishedBytes {
		return nil, fmt.Errorf("fence proof of %d bytes", len(body))
	}
	var told []published
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&told); err != nil {
		return nil, fmt.Errorf("fence proof: %w", err)
	}
	if len(told) > publishedMax {
		return nil, fmt.Errorf("fence proof of %d paths", len(told))
	}
	return told, nil
}

// peerHere says whether the peer is heard: then its BMC must say "on".
func (n *Node) peerHere() bool {
	st := n.driver.View().State
	return st.Session != 0 && st.Peer.Hello
}
