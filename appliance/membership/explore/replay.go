package explore

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
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

// Replay plays every seed; the error names the first that violates an invariant, has rotted, or cannot be read.
func Replay(files fs.FS) (int, error) {
	seeds, err := readSeeds(files)
	if err != nil {
		return 0, err
	}
	for i, s := range seeds {
		if err := s.replay(); err != nil {
			return i, fmt.Errorf("seed %s: %w", s.name, err)
		}
	}
	return len(seeds), nil
}

func readSeeds(files fs.FS) ([]*seed, error) {
	names, err := fs.Glob(files, "testdata/seeds/*.txt")
	if err != nil {
		return nil, fmt.Errorf("list seeds: %w", err)
	}
	var out []*seed
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("seed %s: %w", name, err)
		}
		s, err := parseSeed(string(text))
		if err != nil {
			return nil, fmt.Errorf("seed %s: %w", name, err)
		}
		s.name = path.Base(name)
		out = append(out, s)
	}
	return out, nil
}

// seed is one file: "world NAME", actions, and # comments. "mutant ID" names the guard that closed the way since: with it an
// action that is not possible any more ends the seed, and without it (a test of the gate) the seed must still break what it
// broke. A seed that names none is played to its end, or it has rotted.
type seed struct {
	name   string
	world  *Params
	mutant string
	path   []Action
}

// errRotten is no violated invariant.
var errRotten = errors.New("not possible any more, and the seed names no mutant: it must be played whole")

// replay returns the invariant that the seed violates, or what keeps it from being played.
func (s *seed) replay() error {
	w, err := s.world.Begin()
	if err != nil {
		return err
	}
	for i, a := range s.path {
		if !s.world.possible(&w, a) {
			if s.mutant != "" {
				return nil
			}
			return fmt.Errorf("action %d, %v: %w", i+1, a, errRotten)
		}
		if err := s.world.Apply(&w, a); err != nil {
			return fmt.Errorf("action %d, %v: %w", i+1, a, err)
		}
		Canonical(&w)
	}
	return nil
}

func (p *Params) possible(w *World, a Action) bool {
	return slices.Contains(p.Actions(w, nil), a)
}

func parseSeed(text string) (*seed, error) {
	var s seed
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name, isWorld := strings.CutPrefix(line, "world ")
		id, isMutant := strings.CutPrefix(line, "mutant ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case isWorld:
			if s.world = Worlds[name]; s.world == nil {
				return nil, fmt.Errorf("no world %q", name)
			}
		case isMutant:
			s.mutant = id
		default:
			a, err := ParseAction(line)
			if err != nil {
				return nil, err
			}
			s.path = append(s.path, a)
		}
	}
	if s.world == nil {
		return nil, fmt.Errorf("a seed names its world first")
	}
	return &s, nil
}
