package explore

import (
	"math/rand/v2"
	"time"
)

// WalkSteps is how long one random walk is at most (protocol.md section 12.3).
const WalkSteps = 300

// Walk is one random walk: a swarm, because every seed has its own budget and its own taste for each kind of action.
// It returns the number of steps, and what it violated.
func (p *Params) Walk(seed uint64) (int, *Violation) { return p.follow(seed, func(*World) {}) }

// follow walks and shows every world on the way.
func (p *Params) follow(seed uint64, show func(*World)) (int, *Violation) {
	rng := rand.New(rand.NewPCG(seed, 0xd0e7))
	own := *p
	own.Budget = swarm(rng, p.Budget)
	var taste [kindCount]int
	for k := range taste {
		taste[k] = 1 + rng.IntN(8)*rng.IntN(3)
	}
	w, err := own.Begin()
	if err != nil {
		return 0, &Violation{World: p.Name, Err: err, Seed: seed}
	}
	var path []Action
	var actions []Action
	for step := range WalkSteps {
		actions = own.Actions(&w, actions[:0])
		if len(actions) == 0 {
			return step, nil
		}
		a := choose(rng, actions, &taste)
		path = append(path, a)
		if err := own.Apply(&w, a); err != nil {
			return step, &Violation{World: p.Name, Err: err, Path: path, Seed: seed}
		}
		Canonical(&w)
		show(&w)
	}
	return WalkSteps, nil
}

// swarm draws a budget below the largest.
func swarm(rng *rand.Rand, most Budget) Budget {
	b := most
	for _, f := range b.fields() {
		if f != &b.Skew && f != &b.Session {
			*f = uint8(rng.IntN(int(*f) + 1))
		}
	}
	return b
}

// rare are the faults: they come a tenth as often, or a walk would spend them all at once.
func rare(k Kind) bool {
	switch k {
	case ActCrash, ActSuspect, ActRestart, ActFenceUnknown, ActFenceLate:
		return true
	default: // the others as below
	}
	return false
}

func choose(rng *rand.Rand, actions []Action, taste *[kindCount]int) Action {
	weight := func(a Action) int {
		if rare(a.Kind) {
			return taste[a.Kind]
		}
		return 10 * taste[a.Kind]
	}
	total := 0
	for _, a := range actions {
		total += weight(a)
	}
	at := rng.IntN(total)
	for _, a := range actions {
		if at -= weight(a); at < 0 {
			return a
		}
	}
	return actions[len(actions)-1]
}

// Walks walks with seeds from first on until the deadline, a number of walks, or a violation.
func (p *Params) Walks(first uint64, count int, deadline time.Time) Result {
	begin := time.Now()
	r := Result{World: p.Name, Engine: "walks"}
	for seed := first; count == 0 || r.Walks < count; seed++ {
		if !deadline.IsZero() && time.Now().After(deadline) {
			break
		}
		steps, v := p.Walk(seed)
		r.Walks++
		r.Steps += steps
		r.Depth = max(r.Depth, steps)
		if v != nil {
			r.Violation = v
			break
		}
	}
	r.Seconds = time.Since(begin).Seconds()
	return r
}
