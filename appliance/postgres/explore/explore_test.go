package explore

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// limit is how much to do: less in a short run; the variable sets it.
func limit(t *testing.T, variable string, long, short int) int {
	t.Helper()
	if text := os.Getenv(variable); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if testing.Short() {
		return short
	}
	return long
}

// TestWalks: random walks, healed afterwards.
func TestWalks(t *testing.T) {
	count, healed, did := limit(t, "DUET_WALKS", 6000, 1000), 0, 0
	began := time.Now()
	for seed := range uint64(count) {
		steps, v, w := walk(seed)
		if v != nil {
			t.Fatal(v)
		}
		did += steps
		if w.forced { // what was given up is kept until a person decides (J4)
			continue
		}
		if err := w.heal(); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, strings.Join(w.trace[:walkSteps], "\n"))
		}
		healed++
	}
	t.Logf("%d walks, %d steps, %d healed, %.1f s", count, did, healed, time.Since(began).Seconds())
}

// TestNearest: every world near a pair in sync, with one kind of harm each, and with some together.
func TestNearest(t *testing.T) {
	for name, b := range map[string]budget{
		"server crashes": {crashServer: 1, rows: 2, ticks: 2}, "node loses power": {crashNode: 1, rows: 1, ticks: 2}, "link is cut": {cut: 1, rows: 2, ticks: 2},
		"checkpointer stalls": {stall: 1, crashServer: 1, rows: 1, ticks: 2}, "switchover": {switchover: 1, rows: 1, restart: 1, ticks: 1},
		"all": {crashNode: 1, crashServer: 1, cut: 1, stall: 1, restart: 1, unmount: 1, rows: 2, ticks: 3, switchover: 1},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			w := begin(false, budget{})
			if err := w.heal(); err != nil {
				t.Fatal(err)
			}
			w.left, w.trace = b, nil
			s, v := bfs(w, limit(t, "DUET_STATES", 6000, 1500))
			if v != nil {
				t.Fatal(v)
			}
			t.Logf("%d worlds, %d transitions, depth %d, complete %t, %.1f s", s.states, s.transitions, s.depth, s.complete, time.Since(began).Seconds())
		})
	}
}
