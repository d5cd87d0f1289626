package scenario

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"duet/build/lab"
)

// A disk may lose what was not flushed when its power goes. A pair loses it only when the last node that holds the data
// loses its power: a solo node, or the second of two. So it does when that node, having neither lost its power nor gone on
// alone, starts again in any way before both are together again: then neither can tell whose leg ran through, and the owner's
// stands (replication.md section 10.1). Then, and only then, the oracles count what was flushed instead of what was
// acknowledged. Power is the lab's word; who was solo is the product's own log, and it can only gain by saying less: a node
// that says solo has said that it is the only one.

// modeChange is one line "msg=mode" of a duetd.
type modeChange struct {
	at   time.Time
	mode string
}

var modeLine = regexp.MustCompile(`^(\S+) .*\bmsg=mode\b.* to=(\S+)`)

// modeChanges reads them from a log whose lines begin with the lab's time.
func modeChanges(log io.Reader) ([]modeChange, error) {
	var changes []modeChange
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m := modeLine.FindSubmatch(lines.Bytes())
		if m == nil {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, string(m[1]))
		if err != nil {
			return nil, fmt.Errorf("log line %q: %w", lines.Text(), err)
		}
		changes = append(changes, modeChange{at, string(m[2])})
	}
	return changes, lines.Err()
}

// totalLosses finds the moments at which the last holder of the data lost its power, or lost its knowledge of being it.
func totalLosses(events []lab.Event, modes map[string][]modeChange) []time.Time {
	var losses []time.Time
	boots := map[string]time.Time{} // since when a node has power; absent: it has none
	alone := map[string]time.Time{} // a node whose peer has lost its power: since when
	for _, e := range events {
		peer := other(e.Machine)
		switch e.Kind {
		case "power-on":
			boots[e.Machine] = e.Time
		case "power-cut":
			delete(boots, e.Machine)
			since, on := boots[peer]
			holds := on && slices.Contains([]string{"paired", "frozen", "solo"}, modeAt(modes[peer], since, e.Time))
			if !holds || modeAt(modes[e.Machine], time.Time{}, e.Time) == "solo" {
				losses = append(losses, e.Time)
			} else if modeAt(modes[peer], since, e.Time) != "solo" {
				alone[peer] = e.Time
			}
			delete(alone, e.Machine)
		case "panic", "crashed", "reset":
			cut, was := alone[e.Machine]
			delete(alone, e.Machine)
			if was && !slices.ContainsFunc(modes[e.Machine], func(c modeChange) bool {
				return c.at.After(cut) && !c.at.After(e.Time) && slices.Contains([]string{"solo", "paired"}, c.mode)
			}) {
				losses = append(losses, cut)
			}
		}
	}
	slices.SortFunc(losses, time.Time.Compare)
	return losses
}

// modeAt is the last mode that a node said between two moments; empty: none.
func modeAt(changes []modeChange, from, to time.Time) string {
	mode := ""
	for _, c := range changes {
		if c.at.After(from) && !c.at.After(to) {
			mode = c.mode
		}
	}
	return mode
}

// losses reads what totalLosses needs.
func (s *Site) losses() ([]time.Time, error) {
	text, err := os.ReadFile(filepath.Join(s.Lab.State(), "events.jsonl"))
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	var events []lab.Event
	for line := range bytes.Lines(text) {
		var e lab.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("events: %w", err)
		}
		if e.Machine == lab.A || e.Machine == lab.B {
			events = append(events, e)
		}
	}
	modes := map[string][]modeChange{}
	for _, node := range []string{lab.A, lab.B} {
		if modes[node], err = s.modes(node); err != nil {
			return nil, err
		}
	}
	return totalLosses(events, modes), nil
}

// modes reads what a node said of its own mode, since the lab is up.
func (s *Site) modes(node string) ([]modeChange, error) {
	f, err := os.Open(s.Lab.LogPath(node, "duetd"))
	if err != nil {
		return nil, err
	}
	changes, err := modeChanges(f)
	return changes, errors.Join(err, f.Close())
}
