package explore

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// walkSteps is how long one walk is.
const walkSteps = 250

// violation is a path to something that must not be.
type violation struct {
	err  error
	seed uint64
	path []string
}

func (v *violation) Error() string {
	return fmt.Sprintf("%v\nseed %d, %d actions:\n%s", v.err, v.seed, len(v.path), strings.Join(v.path, "\n"))
}

// walk is one random walk: a swarm, because each seed has its own budget and its own taste.
func walk(seed uint64) (int, *violation, *world) {
	rng := rand.New(rand.NewPCG(seed, 0x9057))
	some := func(most int) int { return rng.IntN(most + 1) }
	w := begin(seed%5 == 0, budget{
		crashNode: some(3), crashServer: some(3), cut: some(3), stall: some(2), restart: some(2), unmount: some(1), rows: some(maxRows), ticks: 20 + some(20),
		switchover: some(2), resume: some(1),
	})
	rareness := 3 + rng.IntN(20)
	for step := range walkSteps {
		all := w.actions()
		a := all[rng.IntN(len(all))]
		for a.rare && rng.IntN(rareness) != 0 {
			a = all[rng.IntN(len(all))]
		}
		if err := w.act(a); err != nil {
			return step, &violation{err, seed, w.trace}, w
		}
	}
	return walkSteps, nil, w
}

// act does one action and looks at the invariants.
func (w *world) act(a action) error {
	w.trace = append(w.trace, a.name)
	if err := a.do(); err != nil {
		return err
	}
	return w.check()
}

// heal ends all harm and lets everything happen in turns: the pair must get in sync by itself.
func (w *world) heal() error {
	w.left = budget{ticks: 1 << 20}
	w.link = true
	const turns = 600
	for range turns {
		if w.inSync() {
			return nil
		}
		for _, a := range w.actions() {
			if a.rare || strings.Contains(a.name, "'s lease ends") || strings.Contains(a.name, "wins") && w.n[0].up && w.n[1].up {
				continue
			}
			// An action may have taken the ground of those behind it: ask again by name.
			for _, b := range w.actions() {
				if b.name == a.name {
					if err := w.act(b); err != nil {
						return err
					}
					break
				}
			}
		}
	}
	return fmt.Errorf("liveness: not in sync %d turns after everything was healed\n%s", turns, w.describe())
}

func (w *world) inSync() bool {
	for i := range w.n {
		n, p := &w.n[i], w.peerOf(i)
		if w.primary(i) && p.proc.Alive() && p.connected == n.life && w.newest().Copies == 3 && n.docs.Current.Copies == 3 && w.doc.phase == 0 {
			return true
		}
	}
	return false
}

// describe is the world for people.
func (w *world) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "members %v epoch %d link %v record message %d\n", w.members, w.epoch, w.link, w.doc.phase)
	for i := range w.n {
		n := &w.n[i]
		fmt.Fprintf(&b, "%c up=%v %v owner %v.%d evidence %v over %v; %v tl %d log %v %v clean=%v standby=%v gone=%v; copies=%v %d.%d tl %d pending %v/%d; names %v/%v gate %v doing %v work %v opened %d/%d proven %d armed %d order %d rejoin %d\n",
			'a'+i, n.up, n.mode, n.owner, n.version, n.evidence, n.over, n.proc, n.disk.timeline, n.disk.log.row[:n.disk.log.n], n.disk.kind, n.disk.clean, n.disk.standby, n.gone,
			n.docs.Current.Copies, n.docs.Current.Epoch, n.docs.Current.Version, n.docs.Current.Timeline, n.docs.Pending.Copies, n.docs.Pending.Version,
			n.names, n.effective, n.write, n.state.Doing, n.work, n.state.Opened, n.life, n.state.Proven, n.state.Armed, n.state.Order, n.state.Rejoin)
	}
	return b.String()
}
