package core

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"duet/build/lab/control"
)

// eventsKept bounds what truth shows; the file has all.
const eventsKept = 1000

// journal is what really happened, in order: the last events in memory, all of them in a file that survives the lab.
type journal struct {
	born time.Time
	file *os.File

	mu      sync.Mutex
	events  []control.Event
	dropped int
}

func openJournal(path string, born time.Time) (*journal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	return &journal{born: born, file: f}, nil
}

func (j *journal) add(machine, kind, text string) {
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	e := control.Event{TimeMS: now.Sub(j.born).Milliseconds(), Time: now.UTC(), Machine: machine, Kind: kind, Text: text}
	j.events = append(j.events, e)
	if len(j.events) > eventsKept {
		j.events = j.events[1:]
		j.dropped++
	}
	line, err := json.Marshal(e)
	if err == nil {
		_, err = j.file.Write(append(line, '\n'))
	}
	if err != nil {
		slog.Error("event not written", "error", err)
	}
}

// addf is add with a format.
func (j *journal) addf(machine, kind, format string, args ...any) {
	j.add(machine, kind, fmt.Sprintf(format, args...))
}

func (j *journal) all() ([]control.Event, int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]control.Event(nil), j.events...), j.dropped
}
