package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// condition is "WHERE:PATH=VALUE" or "WHERE:PATH!=VALUE". WHERE is a node, whose own word is asked (duet status -o
// json), or truth. PATH goes through the JSON by names and indexes, with dots: a:volumes.0.name=v1.
type condition struct {
	where, path, want string
	negated           bool
}

func parseCondition(text string) (condition, error) {
	where, rest, ok1 := strings.Cut(text, ":")
	path, want, ok2 := strings.Cut(rest, "=")
	if !ok1 || !ok2 || where == "" || path == "" || path == "!" {
		return condition{}, fmt.Errorf("condition %q: must be WHERE:PATH=VALUE, e.g. a:mode=paired or truth:machines.b.power=off", text)
	}
	path, negated := strings.CutSuffix(path, "!")
	return condition{where, path, want, negated}, nil
}

// at finds the value at a path, as text; what is not there is "absent".
func at(doc any, path string) string {
	for key := range strings.SplitSeq(path, ".") {
		switch v := doc.(type) {
		case map[string]any:
			doc = v[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(v) {
				return "absent"
			}
			doc = v[i]
		default:
			return "absent"
		}
	}
	switch v := doc.(type) {
	case nil:
		return "absent"
	case string:
		return v
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return "absent"
	}
	return string(b)
}

// Wait waits until all conditions hold at one look, at most limit. The error says what is there instead.
func (l *Lab) Wait(ctx context.Context, limit time.Duration, conditions ...string) error {
	var parsed []condition
	for _, text := range conditions {
		c, err := parseCondition(text)
		if err != nil {
			return err
		}
		parsed = append(parsed, c)
	}
	return l.Until(ctx, limit, strings.Join(conditions, " "), func(ctx context.Context) (string, bool) {
		docs := map[string]any{}
		for i, c := range parsed {
			if _, asked := docs[c.where]; !asked {
				doc, err := l.document(ctx, c.where)
				if err != nil {
					return err.Error(), false
				}
				docs[c.where] = doc
			}
			if is := at(docs[c.where], c.path); (is == c.want) == c.negated {
				return fmt.Sprintf("%s is %s", conditions[i], is), false
			}
		}
		return "", true
	})
}

// document is what a condition looks at.
func (l *Lab) document(ctx context.Context, where string) (doc any, err error) {
	if where == "truth" || where == "status" {
		err = l.Call(ctx, &doc, where)
		return doc, err
	}
	out, err := l.Exec(ctx, where, "duet", "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	return doc, json.Unmarshal(out, &doc)
}

// Until looks again and again until look says true, at most limit. look's text says what is there instead.
func (l *Lab) Until(ctx context.Context, limit time.Duration, what string, look func(context.Context) (string, bool)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := "not looked at"
	for {
		text, ok := look(ctx)
		if ok {
			return nil
		}
		if ctx.Err() == nil {
			last = text
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: not so after %v: %s", what, limit, last)
		}
	}
}

// Watch calls f for every event, old ones first, until ctx ends.
func (l *Lab) Watch(ctx context.Context, f func(Event)) error {
	file, err := os.Open(filepath.Join(l.state, "events.jsonl"))
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	defer file.Close()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	in := bufio.NewReader(file)
	var line []byte
	for {
		part, err := in.ReadBytes('\n')
		line = append(line, part...)
		if err == nil {
			var e Event
			if err := json.Unmarshal(line, &e); err != nil {
				return fmt.Errorf("events: %w", err)
			}
			f(e)
			line = line[:0]
			continue
		}
		if !errors.Is(err, io.EOF) {
			return fmt.Errorf("events: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// LogPath is where the log of a machine's service lies, outside the machine.
func (l *Lab) LogPath(machine, unit string) string {
	return filepath.Join(l.state, machine, "log", unit+".log")
}

// FilePath is a file of a machine's own root (not of its drives or tmpfs) as seen from outside, written there since
// the lab is up: a VM's console, say. It is there whether or not the machine runs.
func (l *Lab) FilePath(machine, path string) string {
	return filepath.Join(l.state, machine, "upper", path)
}
