package explore

import (
	"fmt"

	m "duet/appliance/membership"
)

// Row is one line of protocol.md section 12.2: a situation, and whether service comes back by itself from every state
// in it.
type Row struct {
	Situation string
	World     Params
	Always    bool   // from every state some node can come to serve without a further fault (AG EF)
	Legs      bool   // to serve is: no leg that has failed counts any more, too
	Why       string // when not
}

// Rows are the situations that are checked.
var Rows = []Row{
	{"one node dies", Params{Name: "row-dies", Start: FromPaired, Eager: true, Witness: true, Budget: Budget{Crash: 1, Cut: 1}}, true, false, ""},
	{"link lost", Params{Name: "row-link", Start: FromPaired, Eager: true, Witness: true, Budget: Budget{Cut: 1}}, true, false, ""},
	{"link lost and back", Params{
		Name: "row-link-back", Start: FromPaired, Eager: true, Witness: true, Link: true,
		Budget: Budget{Cut: 1, Session: 1},
	}, true, false, ""},
	{"both power-cycled, both return, witness alive", Params{
		Name: "row-both", Start: FromPowerless, Eager: true, Witness: true,
		Link: true, Budget: Budget{Session: 1},
	}, true, false, ""},
	{"both power-cycled, both return, no witness, link alive", Params{
		Name: "row-both-dark", Start: FromPowerless, Eager: true,
		Link: true, Budget: Budget{Session: 1},
	}, true, false, ""},
	{"both power-cycled, link lost, witness alive", Params{Name: "row-both-cut", Start: FromPowerless, Eager: true, Witness: true}, true, false, ""},
	{"node dies, then witness, then the survivor reboots", Params{
		Name: "row-solo-boots", Start: FromSolo, Eager: true,
		Budget: Budget{Crash: 1},
	}, true, false, ""},
	{"a solo, b returns and is cut while it joins", Params{
		Name: "row-join-cut", Start: FromSolo, Eager: true, Witness: true, Link: true,
		Budget: Budget{Cut: 1, Session: 2},
	}, true, false, ""},
	{"a solo, b returns, misses COMMIT, and is cut in its next join too", Params{
		Name: "row-join-cuts", Start: FromSolo, Eager: true, Witness: true, Link: true, NoRun: true,
		Budget: Budget{Cut: 2, Session: 3},
	}, true, false, ""},
	{"witness replaced, then a node dies", Params{
		Name: "row-replaced", Start: FromPaired, Eager: true, Witness: true, NoRun: true,
		Budget: Budget{Witness: 1, Crash: 1, Cut: 1},
	}, true, false, ""},
	{"witness dropped or being dropped, then a node dies, witness alive", Params{
		Name: "row-dropping", Start: FromPaired, Eager: true, Witness: true, NoRun: true,
		Budget: Budget{Arbiter: 1, Crash: 1, Cut: 1},
	}, false, false, "a node that gave up the witness (R21a step 2) and was not given fencing yet waits for its peer: milliseconds wide"},
	{"fencing is the arbiter, then a node dies", Params{
		Name: "row-fence-dies", Start: FromFence, Eager: true, NoRun: true,
		Budget: Budget{Crash: 1},
	}, true, false, ""},
	{"fencing is the arbiter, then the link is lost and comes back", Params{
		Name: "row-fence-link", Start: FromFence, Eager: true, Link: true, NoRun: true,
		Budget: Budget{Cut: 1, Session: 1}, Endless: true,
	}, true, false, ""},
	{"a node leaves by order, the other serves", Params{
		Name: "row-leave", Start: FromPaired, Eager: true, Witness: true, Link: true, NoRun: true,
		Budget: Budget{Leave: 1, Session: 1},
	}, true, false, ""},
	{"a resource is handed over and the link is lost in between", Params{
		Name: "row-move", Start: FromPaired, Eager: true, Witness: true, NoRun: true,
		Budget: Budget{Move: 1, Cut: 1},
	}, true, false, ""},
	{"a leg fails, perhaps while its volume is handed over", Params{
		Name: "row-leg", Start: FromPaired, Eager: true, Witness: true, NoRun: true,
		Budget: Budget{LegLoss: 1, Move: 1},
	}, true, true, ""},
	{
		"fencing is the arbiter, then a node dies and fencing gives no evidence",
		Params{Name: "row-fence-mute", Start: FromFence, Eager: true, NoRun: true, NoFence: true, Budget: Budget{Crash: 1, Cut: 1}},
		false, false,
		"here the evidence is the vote: without it, without the peer, nobody may decide",
	},
	{
		"fencing is the arbiter, both are shot in a race, link lost",
		Params{Name: "row-fence-race", Start: FromFence, Eager: true, NoRun: true, Budget: Budget{Cut: 1}},
		false, false,
		"the model has no turns; a restarted node may not go on alone (R21c), so both wait for the link",
	},
	{
		"witness lost, then a node dies for good",
		Params{Name: "row-dark-dies", Start: FromPaired, Eager: true, Budget: Budget{Crash: 1, Cut: 1}},
		false, false,
		"the peer may live and hold newer writes; without witness or peer nobody may decide",
	},
	{
		"witness lost, then link lost",
		Params{Name: "row-dark-cut", Start: FromPaired, Eager: true, Budget: Budget{Cut: 1}},
		false, false,
		"both live; either could be the one that goes on, and neither can know",
	},
	{
		"both power-cycled, no witness, link lost",
		Params{Name: "row-dark-both", Start: FromPowerless, Eager: true},
		false, false,
		"each may lack the other's last writes",
	},
}

// ReachResult counts the states of a row and those from which service cannot come back.
type ReachResult struct {
	States, Stuck int
	Example       World // one that is stuck
}

// maxRowStates bounds a row: they are small on purpose.
const maxRowStates = 400_000

// Reach walks the whole graph of the row forwards, then backwards from every state in which a node serves, along
// actions that are not faults.
func (r *Row) Reach() (ReachResult, error) {
	p := &r.World
	w, err := p.Begin()
	if err != nil {
		return ReachResult{}, err
	}
	g := graph{index: map[string]int32{}}
	g.add(Encode(&w, nil))
	var good []int32
	for i := 0; i < len(g.blobs); i++ { // it grows meanwhile
		if len(g.blobs) > maxRowStates {
			return ReachResult{}, fmt.Errorf("%s: more than %d states", p.Name, maxRowStates)
		}
		w := Decode(g.blobs[i])
		if w.serves() && (!r.Legs || w.legsServe()) {
			good = append(good, int32(i))
		}
		for _, a := range p.Actions(&w, nil) {
			after := w
			if err := p.Apply(&after, a); err != nil {
				return ReachResult{}, fmt.Errorf("%s: %v: %w", p.Name, a, err)
			}
			Canonical(&after)
			j := g.add(Encode(&after, nil))
			if !after.Left.spent(w.Left) {
				g.back[j] = append(g.back[j], int32(i))
			}
		}
	}
	stuck := g.without(good)
	result := ReachResult{States: len(g.blobs), Stuck: len(stuck)}
	if len(stuck) > 0 {
		result.Example = Decode(g.blobs[stuck[0]])
	}
	return result, nil
}

// graph numbers the states and keeps who leads to whom.
type graph struct {
	index map[string]int32
	blobs [][]byte
	back  [][]int32
}

func (g *graph) add(blob []byte) int32 {
	if i, ok := g.index[string(blob)]; ok {
		return i
	}
	i := int32(len(g.blobs))
	g.index[string(blob)] = i
	g.blobs = append(g.blobs, blob)
	g.back = append(g.back, nil)
	return i
}

// without is the states that do not lead to one of good.
func (g *graph) without(good []int32) []int32 {
	seen := make([]bool, len(g.blobs))
	for _, i := range good {
		seen[i] = true
	}
	for len(good) > 0 {
		i := good[len(good)-1]
		good = good[:len(good)-1]
		for _, j := range g.back[i] {
			if !seen[j] {
				seen[j] = true
				good = append(good, j)
			}
		}
	}
	var rest []int32
	for i, ok := range seen {
		if !ok {
			rest = append(rest, int32(i))
		}
	}
	return rest
}

// serves says whether some node may acknowledge writes.
func (w *World) serves() bool {
	for i := range w.N {
		n, peer := &w.N[i], &w.N[m.Node(i).Peer()]
		switch {
		case !n.live() || n.Hold:
		case n.Grant.Mode == m.Solo:
			return true
		case n.Grant.Mode == m.Paired && n.Grant.Prepared == 0:
			if peer.Up && peer.Granted && peer.Grant.Mode == m.Paired && peer.Grant.Session == n.Grant.Session {
				return true
			}
		}
	}
	return false
}

// legsServe says whether no leg that takes no writes holds its volume.
func (w *World) legsServe() bool {
	for i := range w.N {
		n := &w.N[i]
		for v := range volumes {
			for k := range w.N {
				if n.live() && n.legCounts(v, m.Node(k)) && w.N[k].bad(v) {
					return false
				}
			}
		}
	}
	return true
}

// spent says whether a fault happened between before and b.
func (b Budget) spent(before Budget) bool {
	b.Session, b.Write, b.Dup = before.Session, before.Write, before.Dup
	return b != before
}
