package explore

import (
	"fmt"
	"slices"
	"time"
)

// Result is what a search did.
type Result struct {
	World       string
	Engine      string
	States      int
	Transitions int
	Depth       int
	Walks       int
	Steps       int
	Complete    bool
	Seconds     float64
	Violation   *Violation
}

// String is the result in one line.
func (r Result) String() string {
	return fmt.Sprintf("%s %s: %d states, %d transitions, depth %d, %d walks, %d steps, complete %t, %.1f s",
		r.World, r.Engine, r.States, r.Transitions, r.Depth, r.Walks, r.Steps, r.Complete, r.Seconds)
}

// Violation is a counterexample.
type Violation struct {
	World string
	Err   error
	Path  []Action
	Seed  uint64
}

// fnv64 is FNV-1a with a final mix: 64-bit hash compaction.
func hash(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for len(b) >= 8 {
		k := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
		h = (h ^ k) * 0x9E3779B97F4A7C15
		h ^= h >> 29
		b = b[8:]
	}
	for _, x := range b {
		h = (h ^ uint64(x)) * 1099511628211
	}
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	h ^= h >> 32
	return max(h, 1)
}

// visited is an open-addressing table from the hash of a state to that of its parent: 16 bytes a slot.
type visited struct {
	keys, parents []uint64
	n             int
}

func newVisited() *visited {
	return &visited{keys: make([]uint64, 1<<12), parents: make([]uint64, 1<<12)}
}

// add says whether k was new.
func (v *visited) add(k, parent uint64) bool {
	if v.n*4 >= len(v.keys)*3 {
		v.grow()
	}
	i := v.slot(k)
	if v.keys[i] == k {
		return false
	}
	v.keys[i], v.parents[i] = k, parent
	v.n++
	return true
}

func (v *visited) slot(k uint64) int {
	mask := len(v.keys) - 1
	i := int(k) & mask
	for v.keys[i] != 0 && v.keys[i] != k {
		i = (i + 1) & mask
	}
	return i
}

func (v *visited) grow() {
	old := *v
	v.keys, v.parents = make([]uint64, 2*len(old.keys)), make([]uint64, 2*len(old.keys))
	for i, k := range old.keys {
		if k != 0 {
			j := v.slot(k)
			v.keys[j], v.parents[j] = k, old.parents[i]
		}
	}
}

// Bounds end a search.
type Bounds struct {
	Depth    int // 0: none
	States   int // 0: none
	Deadline time.Time
}

func (b Bounds) over(states int) bool {
	return b.States != 0 && states >= b.States || !b.Deadline.IsZero() && time.Now().After(b.Deadline)
}

// BFS visits every state of the world, nearest first, until there are no more, a bound is met, or an invariant breaks.
func (p *Params) BFS(b Bounds) Result {
	begin := time.Now()
	r := Result{World: p.Name, Engine: "bfs"}
	w, err := p.Begin()
	if err != nil {
		r.Violation = &Violation{World: p.Name, Err: err}
		return r
	}
	seen := newVisited()
	first := Encode(&w, nil)
	seen.add(hash(first), 0)
	level := [][]byte{first}
	for len(level) > 0 && (b.Depth == 0 || r.Depth < b.Depth) {
		var next [][]byte
		next, r.Violation = p.level(level, seen, b, &r)
		if r.Violation != nil || next == nil {
			break
		}
		level = next
		if len(level) > 0 {
			r.Depth++
		}
	}
	r.Complete = r.Violation == nil && len(level) == 0
	r.States, r.Seconds = seen.n, time.Since(begin).Seconds()
	return r
}

// level expands one depth; nil when a bound was met in it.
func (p *Params) level(level [][]byte, seen *visited, b Bounds, r *Result) ([][]byte, *Violation) {
	next := [][]byte{}
	var actions []Action
	var buf []byte
	var arena []byte
	for i, blob := range level {
		if i&63 == 0 && b.over(seen.n) {
			return nil, nil
		}
		w := Decode(blob)
		parent := hash(blob)
		actions = p.Actions(&w, actions[:0])
		for _, a := range actions {
			r.Transitions++
			after := w
			if err := p.Apply(&after, a); err != nil {
				path := append(p.path(seen, parent), a)
				return nil, &Violation{World: p.Name, Err: err, Path: path}
			}
			Canonical(&after)
			buf = Encode(&after, buf)
			if !seen.add(hash(buf), parent) {
				continue
			}
			if cap(arena)-len(arena) < len(buf) {
				arena = make([]byte, 0, 1<<20)
			}
			at := len(arena)
			arena = append(arena, buf...)
			next = append(next, arena[at:len(arena):len(arena)])
		}
	}
	return next, nil
}

// path finds the actions that lead to the state with this hash, by walking forward along its ancestors.
func (p *Params) path(seen *visited, to uint64) []Action {
	var chain []uint64
	for k := to; k != 0; k = seen.parents[seen.slot(k)] {
		chain = append(chain, k)
	}
	slices.Reverse(chain)
	w, _ := p.Begin() //nolint:errcheck // the search began with it
	w = Decode(Encode(&w, nil))
	var path []Action
	for _, want := range chain[1:] {
		a, ok := p.stepTo(&w, want)
		if !ok {
			return append(path, Action{Kind: kindCount})
		}
		path = append(path, a)
	}
	return path
}

func (p *Params) stepTo(w *World, want uint64) (Action, bool) {
	for _, a := range p.Actions(w, nil) {
		after := *w
		if p.Apply(&after, a) != nil {
			continue
		}
		Canonical(&after)
		blob := Encode(&after, nil)
		if hash(blob) == want {
			*w = Decode(blob)
			return a, true
		}
	}
	return Action{}, false
}

// String is the counterexample for people.
func (v *Violation) String() string {
	if v.World == "" { // of a seed
		return v.Err.Error()
	}
	return fmt.Sprintf("world %s: %v\n%s", v.World, v.Err, Trace(Worlds[v.World], v.Path))
}
