package explore

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// seedFiles are the traces that once broke something, or that reach a place worth keeping. The corpus only grows.
//
//go:embed testdata/seeds
var seedFiles embed.FS

// Actions is the path in the form of a seed file.
func (v *Violation) Actions() string {
	out := "world " + v.World + "\n"
	for _, a := range v.Path {
		out += a.String() + "\n"
	}
	return out
}

// Replay plays every seed; the error names the first that violates an invariant or cannot be read.
func Replay(files fs.FS) (int, error) {
	names, err := fs.Glob(files, "testdata/seeds/*.txt")
	if err != nil {
		return 0, fmt.Errorf("list seeds: %w", err)
	}
	for i, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return i, fmt.Errorf("seed %s: %w", name, err)
		}
		if _, err := ReplaySeed(string(text)); err != nil {
			return i, fmt.Errorf("seed %s: %w", name, err)
		}
	}
	return len(names), nil
}

// ReplaySeed plays one seed: lines of "world NAME", actions, and # comments. An action that is not possible (any
// more) ends it: the guard that came since closed that way. It returns how many actions were played.
func ReplaySeed(text string) (int, error) {
	p, path, err := parseSeed(text)
	if err != nil {
		return 0, err
	}
	w, err := p.Begin()
	if err != nil {
		return 0, err
	}
	for i, a := range path {
		if !p.possible(&w, a) {
			return i, nil
		}
		if err := p.Apply(&w, a); err != nil {
			return i, fmt.Errorf("action %d, %v: %w", i+1, a, err)
		}
		Canonical(&w)
	}
	return len(path), nil
}

func (p *Params) possible(w *World, a Action) bool {
	return slices.Contains(p.Actions(w, nil), a)
}

func parseSeed(text string) (p *Params, path []Action, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch name, isWorld := strings.CutPrefix(line, "world "); {
		case line == "" || strings.HasPrefix(line, "#"):
		case isWorld:
			if p = Worlds[name]; p == nil {
				return nil, nil, fmt.Errorf("no world %q", name)
			}
		default:
			a, err := ParseAction(line)
			if err != nil {
				return nil, nil, err
			}
			path = append(path, a)
		}
	}
	if p == nil {
		return nil, nil, fmt.Errorf("a seed names its world first")
	}
	return p, path, nil
}
