package mirror

import (
	"testing"

	"duet/replication/handshake"
)

// Two decisions of node a in flight, both on records of before: neither may make node b tell its record once more, for
// each new round would make the next decision stale too (seen in the lab: 5,000 rounds a second, for ever).
func TestStaleDecisionsEnd(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	for _, h := range p.nodes {
		h.awaitStage("paired")
	}
	b := p.nodes[1].m
	b.mu.Lock()
	e := b.volumes[testVolume]
	b.tell(e) // what has changed since the legs were agreed is told now
	round, mine, theirs := e.round, e.mine.Round, e.theirs.Round
	for range 3 {
		stale := decision{Volume: testVolume, RoundA: theirs, RoundB: mine - 1, Decision: handshake.Decision{Row: "H2"}}
		if err := b.heardDecision(stale, false); err != nil {
			t.Error(err)
		}
	}
	if e.round != round {
		t.Errorf("stale decisions made %d new rounds", e.round-round)
	}
	// One on the newest records that b does not share is answered by a record: a waits for it.
	if err := b.heardDecision(decision{Volume: testVolume, RoundA: theirs, RoundB: mine, Decision: handshake.Decision{Row: "?"}}, false); err != nil {
		t.Error(err)
	}
	if e.round != round+1 {
		t.Errorf("%d new rounds, wanted one", e.round-round)
	}
	b.mu.Unlock()
}

// A refusal of an older proposal says nothing about the present one.
func TestStaleAnswersAreIgnored(t *testing.T) {
	p := startPair(t)
	p.serve(1, 11)
	for _, h := range p.nodes {
		h.awaitStage("paired")
	}
	a := p.nodes[0].m
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.volumes[testVolume]
	a.tell(e)
	e.proposed = true
	if err := a.heardAnswer(e, decision{Volume: testVolume, RoundA: e.mine.Round, RoundB: e.theirs.Round - 1}); err != nil || !e.proposed {
		t.Errorf("an old refusal ended the present proposal: %v", err)
	}
	if err := a.heardAnswer(e, decision{Volume: testVolume, RoundA: e.mine.Round, RoundB: e.theirs.Round}); err != nil || e.proposed {
		t.Errorf("the refusal of the present proposal was not heard: %v", err)
	}
}
