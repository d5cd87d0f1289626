package explore

import (
	"os"
	"testing"
	"time"
)

func TestComplete(t *testing.T) {
	for _, p := range Complete {
		r := p.BFS(Bounds{States: 3_000_000, Deadline: time.Now().Add(20 * time.Second)})
		t.Log(r)
		if r.Violation != nil {
			t.Errorf("%v", r.Violation)
		}
	}
}

func TestWalks(t *testing.T) {
	for _, p := range Wide {
		d := time.Second
		if os.Getenv("EXPLORE_LONG") != "" {
			d = 40 * time.Second
		}
		r := p.Walks(uint64(time.Now().UnixNano()), 0, time.Now().Add(d))
		t.Log(r)
		if r.Violation != nil {
			t.Errorf("seed %d %v", r.Violation.Seed, r.Violation)
		}
	}
}
