package handshake

import "fmt"

// Action is the kind of a decision.
type Action uint8

// The actions.
const (
	Wait    Action = iota // no data moves until something changes
	InSync                // the legs are equal up to writes in flight, which the one that has them sends again
	Found                 // both new and zeroed: the source makes a generation, nothing to copy
	Copy                  // bring the target up to date
	Refused               // a fault; touch neither leg
	Sole                  // the source serves alone; the other leg is out and cannot be brought back now
)

// How says what a copy compares.
type How uint8

// The ways to copy.
const (
	ByMap    How = iota + 1 // the dirty maps and blocks in flight of both legs
	ByDigest                // the whole volume by digest per block; only differences are sent
	ByHot                   // as ByMap, and what the activity logs name by digest
)

// Decision is the answer. Source is meant for InSync (who sends again), Found, Copy and Sole.
type Decision struct {
	Action Action
	Source uint8
	How    How
	Row    string // row of replication.md section 8 that matched
	Code   string // fault code of a refusal or of a wait that a person should see
	Why    string
}

// Equal says that two decisions order the same; texts may differ.
func (d Decision) Equal(o Decision) bool {
	return d.Action == o.Action && d.Source == o.Source && d.How == o.How && d.Row == o.Row
}

func wait(row, why string) Decision { return Decision{Action: Wait, Row: row, Why: why} }

func refuse(row, code, why string) Decision {
	return Decision{Action: Refused, Row: row, Code: code, Why: why}
}

func copyFrom(row string, source uint8, how How) Decision {
	return Decision{Action: Copy, Row: row, Source: source, How: how}
}

// Decide looks at both legs; mine and peer may be swapped without changing the answer. grant is the right of the
// node that asks; it is compared with both records, because a grant that moved since they were written makes
// them worthless (H0).
func Decide(mine, peer Leg, grant Right) Decision {
	if mine.Right != grant {
		return wait("H0", "the grant changed since this record was written")
	}
	a, b := mine, peer
	if a.Node > b.Node {
		a, b = b, a
	}
	if d, done := unrelated(a, b); done {
		return d
	}
	if !sameRight(a.Right, b.Right) || grant.Session == 0 {
		return wait("H2", "the grants of the nodes differ")
	}
	return decide(a, b, grant)
}

// sameRight says whether two grants are of one epoch and session and name the same legs. Who owns the volume matters
// only where it decides the direction: a solo node takes over what its peer ran (R8) while that peer, which took the
// owners from the HELLO (R12), is already joining; it hears of the new owner with PREPARE.
func sameRight(a, b Right) bool {
	if a.Legs != 3 {
		a.Owner, b.Owner = 0, 0
	}
	return a == b
}

// decide has a and b in order of their nodes, so that it cannot depend on who asks.
func decide(a, b Leg, grant Right) Decision {
	for _, l := range []Leg{a, b} {
		switch l.State {
		case Failed, Ejected, Missing:
			if s := other(a, b, l); grant.Legs == 1<<s.Node && s.readable() {
				return Decision{Action: Sole, Row: "H3", Source: s.Node}
			}
			return Decision{Action: Wait, Row: "H3", Code: "REPL-2020", Why: fmt.Sprintf("the leg of node %c failed or is missing", 'a'+l.Node)}
		case New, UpToDate, Inconsistent, Outdated:
		default:
			return refuse("H1", "REPL-2001", fmt.Sprintf("unknown state %d", l.State))
		}
	}
	switch grant.Legs {
	case 1:
		return excluded(b, a)
	case 2:
		return excluded(a, b)
	case 3:
		return both(a, b, grant.Owner)
	}
	return wait("H2", "the grant names no leg")
}

// other is the leg of a and b that is not l.
func other(a, b, l Leg) Leg {
	if l.Node == a.Node {
		return b
	}
	return a
}

// unrelated is row H1.
func unrelated(a, b Leg) (Decision, bool) {
	var why string
	switch {
	case a.Node == b.Node || b.Node > 1:
		why = "both legs claim the same node"
	case a.State == Missing || b.State == Missing:
		return Decision{}, false
	case a.Site != b.Site:
		why = "the legs belong to different sites"
	case a.Volume != b.Volume:
		why = "the legs belong to different volumes"
	case a.Leg == b.Leg:
		why = "both legs have the same id: one is a clone of the other"
	case a.BlockBytes != b.BlockBytes || a.FormatMajor != b.FormatMajor:
		why = "block size or format differ"
	case a.VolumeBytes != b.VolumeBytes:
		why = "the sizes differ"
	default:
		return Decision{}, false
	}
	return refuse("H1", "REPL-2001", why), true
}

// newLegs is rows H4 and H5. pick chooses the source if both are new.
func newLegs(a, b Leg, pick uint8) (Decision, bool) {
	switch {
	case a.State == New && b.State == New:
		if a.Zeroed && b.Zeroed {
			return Decision{Action: Found, Row: "H4", Source: pick}, true
		}
		return copyFrom("H4", pick, ByDigest), true
	case a.State == New || b.State == New:
		s := b
		if b.State == New {
			s = a
		}
		if s.State != UpToDate {
			return refuse("H5", "REPL-2002", "one leg is new and the other is not up to date"), true
		}
		return copyFrom("H5", s.Node, ByDigest), true
	}
	return Decision{}, false
}

// excluded is row H6: Legs names s alone, so s is the source or nobody is.
func excluded(x, s Leg) Decision {
	if s.State == New || (x.State == New && !s.readable()) {
		return refuse("H5", "REPL-2002", "the only leg that may be the source is not up to date")
	}
	if x.State == New {
		return copyFrom("H5", s.Node, ByDigest)
	}
	if !s.readable() {
		return refuse("H6a", "REPL-2002", "the only leg that may be the source is not up to date")
	}
	switch {
	case x.Current.IsZero():
		return begun("H6e", x, s)
	case x.Current == s.Base || x.Current == s.Current:
		return copyFrom("H6b", s.Node, howMuch(x, s))
	case s.knows(x.Current):
		return copyFrom("H6c", s.Node, ByDigest)
	case x.knows(s.Current), !x.Base.IsZero() && x.Base == s.Base, common(x, s):
		return refuse("H6d", "REPL-2003", "both legs were written without the other")
	}
	return begun("H6e", x, s)
}

// howMuch is the least that finds every difference between two legs of one history.
func howMuch(x, y Leg) How {
	switch {
	case x.Clean && y.Clean:
		return ByMap
	case x.bounded() && y.bounded():
		return ByHot
	}
	return ByDigest
}

// begun lets an interrupted first resync go on: such a leg has no generation of its own, but it records whose
// copy it was becoming (replication.md O7).
func begun(row string, x, s Leg) Decision {
	g := x.SyncSource
	if x.State == Inconsistent && !g.IsZero() && (g == s.Current || g == s.Base || s.knows(g)) {
		return copyFrom("H6c", s.Node, ByDigest)
	}
	return refuse(row, "REPL-2001", "the legs have no generation in common")
}

func common(x, s Leg) bool {
	for _, g := range x.History {
		if s.knows(g) || (!g.IsZero() && (g == s.Base || g == s.Current)) {
			return true
		}
	}
	return s.knows(x.Base)
}

// both is row H7: each leg holds every acknowledged write, as the grant says.
func both(a, b Leg, owner uint8) Decision {
	if d, done := newLegs(a, b, owner); done {
		return d
	}
	o, p := a, b // owner's and peer's
	if owner == b.Node {
		o, p = b, a
	}
	switch {
	case a.Current != b.Current || a.Current.IsZero():
		return refuse("H7a", "REPL-2004", "both legs should hold every write, but their generations differ")
	case o.Unconfirmed && o.readable():
		return copyFrom("H7b", o.Node, howMuch(o, p))
	case p.Unconfirmed && p.readable():
		return copyFrom("H7b", p.Node, howMuch(o, p))
	case o.readable() && !p.readable():
		return copyFrom("H7c", o.Node, ByDigest)
	case p.readable() && !o.readable():
		return copyFrom("H7c", p.Node, ByDigest)
	case !o.readable():
		return refuse("H7c", "REPL-2002", "neither leg is up to date")
	case !o.Clean || !p.Clean:
		return copyFrom("H7d", direction(o, p), howMuch(o, p))
	case o.DirtyBlocks != 0 || p.DirtyBlocks != 0:
		if o.DirtyBlocks == 0 {
			return copyFrom("H7e", p.Node, ByDigest)
		}
		return copyFrom("H7e", o.Node, ByDigest)
	case p.InFlightBlocks != 0 || p.SuspectBlocks != 0 || o.SuspectBlocks != 0:
		// Writes that nobody will repeat: the blocks are known, so they are copied.
		return copyFrom("H7g", o.Node, ByMap)
	}
	return Decision{Action: InSync, Row: "H7g", Source: o.Node}
}

// direction is the table of section 10.1 for a leg that is not clean.
func direction(o, p Leg) uint8 {
	switch {
	case o.Clean:
		return o.Node
	case p.Clean:
		return p.Node
	case o.Rebooted && !p.Rebooted:
		return p.Node
	}
	return o.Node
}
