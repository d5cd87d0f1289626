package explore

import (
	"fmt"
	"hash/fnv"
	"slices"
)

// search visits the worlds nearest to a beginning, each once, until there are no more or most were seen.
type search struct {
	states, transitions, depth int
	complete                   bool
}

// bfs returns the first path to something that must not be.
func bfs(first *world, most int) (search, *violation) {
	var s search
	seen := map[uint64]bool{first.key(): true}
	level := []*world{first}
	for len(level) > 0 {
		var next []*world
		for _, w := range level {
			if len(seen) >= most {
				s.states = len(seen)
				return s, nil
			}
			names := map[string]bool{}
			for k, a := range w.actions() {
				if names[a.name] {
					continue // listed twice for the walks
				}
				names[a.name] = true
				s.transitions++
				after := w.copy()
				if err := after.act(after.actions()[k]); err != nil {
					return s, &violation{err, 0, after.trace}
				}
				if key := after.key(); !seen[key] {
					seen[key] = true
					next = append(next, after)
				}
			}
		}
		level = next
		s.depth++
	}
	s.states, s.complete = len(seen), true
	return s, nil
}

// copy shares nothing that changes: records are never changed in place.
func (w *world) copy() *world {
	c := *w
	c.trace = slices.Clip(w.trace)
	for i := range c.n {
		n := &c.n[i]
		n.pending, n.done = slices.Clone(n.pending), slices.Clone(n.done)
	}
	return &c
}

// key is everything but what was done to get here, hashed: two worlds with one key are taken for one.
func (w *world) key() uint64 {
	c := *w
	c.trace = nil
	h := fnv.New64a()
	fmt.Fprintf(h, "%+v", c)
	return h.Sum64()
}
