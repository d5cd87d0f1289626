//go:build mutants

package explore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"duet/appliance/membership"
)

// mutation: which guard is off, and what must notice (protocol.md section 12.5). "order" and "panic" are the
// core's own checks, which notice before the model does.
type mutation struct{ id, guard, caught string }

var mutants = []mutation{
	{"M1", "R1: only {self} may start alone", "I1 I2 I3 I5"},
	{"M2", "witness compares the whole tuple", "I2 I13"},
	{"M3", "R11: lease from send time", "I1"},
	{"M4", "R1: peerWait after reboot", "I1"},
	{"M5", "W0 = L", "I1"},
	{"M6", "R10: unknown is not confirmed", "I1"},
	{"M7", "R12/R13: the highest epoch is not the source", "I2 I3 I4 I5 I11"},
	{"M9", "PUSH only after commit", "I2 I13"},
	{"M12", "fence only after authority", "I7"},
	{"M13", "W0 = L + 1", "I1"},
	{"M14", "ack after all legs", "I6"},
	{"M15", "frozen holds until the CAS reply", "I1 I2 I3 I5 I11"},
	{"M16", "R13: copy before PREPARE", "I3 I4 I5 I6 I11"},
	{"M17", "R5: nonce", "I2 I8 I13"},
	{"M18", "Fenced is recorded, not assumed after reboot", "I1"},
	{"M20", "R14: E above High", "I13 I2 I9"},
	{"M21", "R2: connecting cancels the attempt", "I2 I8 I13"},
	{"M22", "prepare and commit in two phases", "I2 I4 I5 I11 I13"},
	{"M24", "R6: above max(ep, prep)", "I5 I9 I11"},
	{"M25", "owners inside Prep", "I1 I10"},
	{"M26", "R7: a failed CAS never grants", "I2 I13"},
	{"M28", "wide beat nonce", "I1"},
	{"M29", "R7: R is forgotten at connect and at record change", "I2"},
	{"N14 persist grant", "R5, R12, R15, R16: Persist before Grant", "order"},
	{"N14 persist grant prepared", "R15: Persist before PREPARED", "order"},
	{"N14 persist grant commit", "R16: Persist before COMMIT", "order"},
	{"N14 persist grant join", "R12: Persist before JOIN", "order"},
	{"N16", "R8: an own start does not set Fenced", "I1"},
	{"N20", "R14: E above High of both", "I13"},
	{"N23", "the snapshot's Seq is that after the Persists", "I1 I2 I3 I5 I9 I10 I11 I12 I13"},
	{"N24", "R5: mine only by both tables", "I1 I10"},
	{"R8 prepare", "R8: no owner changes while a PREPARE names them", "I9 I10 I1"},
	{"R11 wait", "R11: peerWait before BEATACK", "I1"},
	{"R27 register", "each founding makes a register of its own", "I13"},
	{"M8", "messages carry their session", "I1 I2 I3 I3b I4 I5 I6 I8 I9 I11 I13"},
	{"M19", "R18: pair owner only", "I2 I5"},
	{"R18 committed", "R18: both committed", "I1 I2 I5 I13"},
	{"M23", "replicated writes carry their session", "I3b I4 I6"},
	{"N14 persist yield", "R18: Persist before YIELD", "order"},
	{"N14 persist give", "R22: Persist before GIVE (N9)", "order"},
	{"N14 persist taken", "R22: Persist before TAKEN", "order"},
	{"N14 persist wdropped", "R21a: Persist before WDROPPED", "order"},
	{"N14 persist wset", "R21a: Persist before WSET", "order"},
	{"N14 persist docprepared", "R25: Persist before DOCPREPD", "order"},
	{"N14 persist doccommit", "R25: Persist before DOCCOMMIT", "order"},
	{"N14 persist legout", "R23: Persist before LEGOUT", "order"},
	{"N14 persist legoutok", "R23: Persist before LEGOUTOK", "order"},
	{"N14 persist legprepared", "R24: Persist before LEGPREPD", "order"},
	{"N14 persist legcommit", "R24: Persist before LEGCOMMIT", "order"},
	{"R22 drain", "R22: nothing of the old owner is on its way", "I3b I6 I4"},
	{"N1a", "R21a: the peer gives up its right before the owner takes another", "I2 I8"},
	{"N1b", "R21a: the owner takes the target only after the peer gave up", "I2 I8"},
	{"N2", "R21b: pairedHere", "I2"},
	{"N3", "R21b: only confirmed", "I1 I2 I8"},
	{"N5", "R21c: fence or none asks no witness", "I2 I8"},
	{"N6", "R19: the peer gives up fencing first", "I2 I8"},
	{"N7a", "R21a: change number", "I2 I8"},
	{"N7b", "R21b: evidence dies at connect and pairing", "I1 I2"},
	{"N7c", "R15: PREPARE carries the arbiter", "I2 I8"},
	{"N8a", "R21b: a prepared node may not fence", "I2 I13"},
	{"N8b", "R21a: the peer gets the target only in step 4", "I2 I8"},
	{"N10", "R23: both durable before acknowledging on one leg", "I11 I5 I3"},
	{"N11", "R24: barrier and digest", "I11 I4 I3"},
	{"N12", "R12 takes the peer's leg table", "I11 I3 I5 I4"},
	{"N13", "R25: acknowledged only after both", "I12"},
	{"N13b", "R25: the survivor promotes what is pending", "I12"},
	{"W grow", "R25, rule W: a growth is current on its writer before the peer records it", "I14"},
	{"W shrink", "R25, rule W: anything else is recorded by the peer before it is current on its writer", "I12 I14"},
	{"N14 persist docprepare", "R25: Persist before DOCPREP of a growth", "order"},
	{"N15", "R26: a side that went on alone is not joined over", "erased"},
	{"N18", "R23: only the owner of the volume decides", "I11 I5"},
	{"N21", "CREATE: the store makes the id", "I2 I13"},
	{"N22", "R19: only the answer to a live CREATE counts (a register made for another membership grants nobody: it is compared whole)", "asks-again I2 I8 I13"},
	{"R24 lease", "R11: the lanes outlive the lease, and with them what is held since a barrier", "I11 I4 I3"},
	{"R26 claim", "R26: the claim of an override ends with the pairing", "I13"},
	{"R26 repeat", "R26: a claim is repeated over sessions", "asks-again"},
	{"R14 out", "R14: a broken leg stays out", "I4 I11 I5 I3"},
	{"R14 held", "R14: the leg that stays holds everything", "I4 I11 I5 I3"},
	{"R15 out", "R15: the tuple names the legs that this side saw copied", "I4 I11"},
	{"R23 again", "R23: an own leg that fails during another change of its volume is decided about behind it", "stuck"},
	{"hold", "a grant of the same stage keeps the hold of the barrier", "I3 I4 I11"},
}

// survivors are guards whose mutant no search has caught, with the reason.
var survivors = map[string]string{
	"N18": "two decisions that cross carry the same version, so neither is confirmed and both stay held; the merge of the next session " +
		"keeps both legs, which hold everything: a belt",
	"R18 committed": "a YIELD that meets a prepared peer is ignored and comes again as R20: a belt",
	"N12":           "the table of PREPARE replaces the joiner's before anybody goes by it; taken at R12 so that both nodes show one table",
	"R15 out": "both sides report the same legs, which the digest is about too: a belt for a mirror that does not, and for a coordinator " +
		"that plans in what its mirror left out",
	"N24": "the giver of R22 stops and records first, so whoever the merged table takes a resource from runs it no longer: a belt",
}

// where names the world to begin with: for leases one that is small enough to be visited whole.
var where = map[string]string{"M3": "lease", "M5": "lease", "M13": "lease", "M28": "walk-lease", "R11 wait": "lease", "M17": "walk-cuts",
	"N3": "walk-fence", "N2": "walk-fence", "N8a": "walk-fence",
	"N15": "walk-force", "W grow": "copies", "W shrink": "copies", "R24 lease": "walk-legs",
	"R14 out": "join-leg", "R14 held": "join-leg", "R26 claim": "walk-force", "R26 repeat": "walk-force"}

// inRow names the situation whose reachability shows a mutant that breaks no promise and lets something wait for ever: "stuck".
var inRow = map[string]string{"R23 again": "row-leg"}

func stuck(name string) (*Violation, string) {
	for _, row := range Rows {
		if row.World.Name != name {
			continue
		}
		r, err := row.Reach()
		if err == nil && r.Stuck > 0 {
			err = fmt.Errorf("stuck: %d of %d states of %q never serve again", r.Stuck, r.States, row.Situation)
		}
		if err != nil {
			return &Violation{Err: err}, "reachability"
		}
	}
	return nil, ""
}

// hunt begins where it is told, then takes turns: short walks in every wide world, breadth-first a little deeper.
func hunt(id string, budget time.Duration) (*Violation, string) {
	deadline := time.Now().Add(budget)
	seeds, err := readSeeds(seedFiles)
	if err != nil {
		return &Violation{Err: err}, "seeds"
	}
	for _, s := range seeds {
		if err := s.replay(); err != nil && !errors.Is(err, errRotten) { // a mutant may close a seed's way
			return &Violation{Err: err}, "seed " + s.name
		}
	}
	if row := inRow[id]; row != "" {
		return stuck(row)
	}
	switch p := Worlds[where[id]]; {
	case p == nil:
	case strings.HasPrefix(p.Name, "walk"):
		if r := p.Walks(1, 0, deadline); r.Violation != nil {
			return r.Violation, "walks in " + p.Name
		}
	default:
		if r := p.BFS(Bounds{States: 500_000, Deadline: deadline}); r.Violation != nil {
			return r.Violation, "breadth-first in " + p.Name
		}
	}
	for round := uint64(1); time.Now().Before(deadline); round++ {
		for _, p := range Wide {
			if r := p.Walks(round*1_000_000, 200*int(round), deadline); r.Violation != nil {
				return r.Violation, "walks in " + p.Name
			}
		}
		for _, list := range [][]*Params{Complete, Deep} {
			for _, p := range list {
				if r := p.BFS(Bounds{States: 10_000 << round, Deadline: deadline}); r.Violation != nil {
					return r.Violation, "breadth-first in " + p.Name
				}
			}
		}
	}
	return nil, ""
}

// Each mutant has this long; one that is expected to survive is not hunted for long.
const (
	mutantBudget   = 30 * time.Second // 10 s on an idle machine
	survivorBudget = 3 * time.Second
)

// Verdict is what became of a mutant.
type Verdict struct {
	ID, Guard string
	Caught    string // the invariant that noticed, in its own word; empty: it survives
	Actions   int
	By        string
	Seconds   float64
	Survives  string // why that is expected; empty: it must die
	Err       error  // the gate's: it survives unexpectedly, dies unexpectedly, or is noticed by something else than it should be
}

// hunted is the verdict on one mutant.
func hunted(mu mutation) Verdict {
	membership.Mutant = mu.id
	defer func() { membership.Mutant = "" }()
	begin := time.Now()
	out := Verdict{ID: mu.id, Guard: mu.guard, Survives: survivors[mu.id]}
	budget := mutantBudget
	if out.Survives != "" {
		budget = survivorBudget
	}
	v, by := hunt(mu.id, budget)
	out.By, out.Seconds = by, time.Since(begin).Seconds()
	switch {
	case v == nil && out.Survives == "":
		out.Err = fmt.Errorf("mutant %s survives: %s", mu.id, mu.guard)
	case v == nil:
	default:
		out.Actions = len(v.Path)
		out.Caught = caughtAs(v.Err)
		if out.Survives != "" {
			out.Err = fmt.Errorf("mutant %s is listed as a survivor and was caught", mu.id)
		} else if !strings.Contains(" "+mu.caught+" ", " "+out.Caught+" ") {
			out.Err = fmt.Errorf("mutant %s is caught as %s, wanted one of %s:\n%v", mu.id, out.Caught, mu.caught, v)
		}
	}
	return out
}

// caughtAs is the invariant that an error names, in its own word.
func caughtAs(err error) string {
	text := err.Error()
	for ; strings.HasPrefix(text, "action "); _, text, _ = strings.Cut(text, ": ") { // of a seed
	}
	return strings.Trim(strings.Fields(strings.TrimPrefix(text, membership.ErrInvariant.Error()+": "))[0], ":")
}

// Gate is the command: every mutant must die, or be listed with a reason. It ends with one JSON line.
func Gate(stdout, stderr io.Writer) int {
	var sum struct {
		Mutants   int      `json:"mutants"`
		Survivors []string `json:"survivors"`
		Failures  []string `json:"failures"`
		Seconds   float64  `json:"seconds"`
	}
	begin := time.Now()
	sum.Survivors, sum.Failures = []string{}, []string{}
	for _, mu := range mutants {
		v := hunted(mu)
		sum.Mutants++
		caught := v.Caught
		if caught == "" {
			caught = "survives"
			sum.Survivors = append(sum.Survivors, v.ID)
		}
		fmt.Fprintf(stderr, "%6.1fs %-24s %-9s %4d actions, %s\n", time.Since(begin).Seconds(), v.ID, caught, v.Actions, v.By)
		if v.Err != nil {
			sum.Failures = append(sum.Failures, v.ID)
			fmt.Fprintf(stderr, "FAILURE %v\n", v.Err)
		}
	}
	sum.Seconds = time.Since(begin).Round(10 * time.Millisecond).Seconds()
	line, err := json.Marshal(sum)
	if err != nil {
		fmt.Fprintf(stderr, "explore: %v\n", err)
		return 2
	}
	fmt.Fprintf(stdout, "%s\n", line)
	return min(len(sum.Failures), 1)
}
