package scenario

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"duet/build/lab"
)

// Fault is one thing that is done to the site at a moment of an episode, and undone later. Everything about it follows
// from the seed; nodes are named by slot, never by role, so that a schedule does not depend on how the site reacted.
type Fault struct {
	Kind     string
	Do, Undo string        // steps; no Undo: the product mends it by itself (a killed daemon is started again)
	At, For  time.Duration // since the episode's begin; how long
}

// ChaosEpisode is one random episode: one fault or two.
type ChaosEpisode struct {
	Number int // from 1
	Before time.Duration
	Faults []Fault
	// Rush: it begins as soon as the hardware is whole again after the one before, while the site still recovers.
	Rush bool
}

// chaosKind is one kind of fault: how often it is drawn, how long it lasts, and its steps with NODE for a node.
type chaosKind struct {
	name     string
	weight   int
	from, to time.Duration
	do, undo string
}

// The kinds. Absences around 1.5 s (peer lost), 4 s (lease) and 6 s (W0) are where decisions fall, so durations lie on
// both sides of them; most are short, because a run wants many.
var chaosKinds = []chaosKind{
	{"cut-blink", 8, 50 * time.Millisecond, time.Second, "cut NODE", "on NODE"},
	{"cut-short", 8, time.Second, 3 * time.Second, "cut NODE", "on NODE"},
	{"cut-long", 4, 3 * time.Second, 7 * time.Second, "cut NODE", "on NODE"},
	{"panic", 5, 200 * time.Millisecond, 3 * time.Second, "panic NODE", "on NODE"},
	{"hang", 8, 100 * time.Millisecond, 4 * time.Second, "hang NODE", "resume NODE"},
	{"cable", 6, 100 * time.Millisecond, 2500 * time.Millisecond, "link mirror0 cut", "link mirror0 restore"},
	{"lan", 4, 100 * time.Millisecond, 2500 * time.Millisecond, "link lan cut", "link lan restore"},
	{"all-links", 8, 100 * time.Millisecond, 3500 * time.Millisecond, "link all cut", "link all restore"},
	{"wan", 4, 200 * time.Millisecond, 3 * time.Second, "link wan NODE cut", "link wan NODE restore"},
	{"witness-stop", 5, 200 * time.Millisecond, 3 * time.Second, "witness stop", "witness start"},
	{"witness-pause", 4, 200 * time.Millisecond, 3 * time.Second, "witness pause", "witness resume"},
	{"witness-slow", 4, time.Second, 4 * time.Second, "witness slow 400ms 20%", "witness fast"},
	{"bmc-mute", 4, 200 * time.Millisecond, 3 * time.Second, "bmc NODE mute", "bmc NODE ok"},
	{"bmc-badpass", 2, 200 * time.Millisecond, 3 * time.Second, "bmc NODE badpass", "bmc NODE ok"},
	{"bmc-refuse", 2, 200 * time.Millisecond, 3 * time.Second, "bmc NODE refuse", "bmc NODE ok"},
	{"pdu-mute", 4, 200 * time.Millisecond, 3 * time.Second, "pdu mute", "pdu ok"},
	{"kill-duetd", 6, 0, 0, "kill NODE duetd", ""},
	{"kill-mirrord", 6, 0, 0, "kill NODE duet-mirrord", ""},
}

// Of 100 episodes: how many have a second fault, and how many begin while the site still recovers from the last one.
const (
	doublePercent = 45
	rushPercent   = 30
)

// chaosStream keeps the schedule's random numbers apart from those of the lab's drives.
const chaosStream = 0x6368616f73

// Schedule draws n episodes from a seed. Each episode has a generator of its own, so the first ones of a longer run are
// those of a shorter one.
func Schedule(seed uint64, n int) []ChaosEpisode {
	episodes := make([]ChaosEpisode, n)
	for i := range episodes {
		random := rand.New(rand.NewPCG(seed, chaosStream+uint64(i)<<32))
		e := ChaosEpisode{Number: i + 1, Before: between(random, 0, 300*time.Millisecond)}
		e.Rush = i > 0 && random.IntN(100) < rushPercent
		first := drawFault(random)
		e.Faults = append(e.Faults, first)
		if random.IntN(100) < doublePercent {
			second := drawFault(random)
			second.At = between(random, 0, first.For+time.Second)
			if second.Do != first.Do { // the same thing twice is one fault
				e.Faults = append(e.Faults, second)
			}
		}
		episodes[i] = e
	}
	return episodes
}

func drawFault(random *rand.Rand) Fault {
	total := 0
	for _, k := range chaosKinds {
		total += k.weight
	}
	at := random.IntN(total)
	node := []string{lab.A, lab.B}[random.IntN(2)]
	for _, k := range chaosKinds {
		if at -= k.weight; at < 0 {
			return Fault{
				Kind: k.name, Do: strings.ReplaceAll(k.do, "NODE", node), Undo: strings.ReplaceAll(k.undo, "NODE", node),
				For: between(random, k.from, k.to),
			}
		}
	}
	panic("weights") // at was below their sum
}

// between draws whole milliseconds: a schedule is printed and read by people.
func between(random *rand.Rand, from, to time.Duration) time.Duration {
	if to <= from {
		return from
	}
	return from + time.Duration(random.Int64N(int64((to-from)/time.Millisecond)))*time.Millisecond
}

// chaosMoment is one step of an episode's timeline.
type chaosMoment struct {
	at   time.Duration
	step string
	kind string // of the fault that begins; empty: one ends
}

// timeline puts the steps of all faults in order. What happens at one moment happens in the order of the faults.
func (e ChaosEpisode) timeline() []chaosMoment {
	var moments []chaosMoment
	for _, f := range e.Faults {
		moments = append(moments, chaosMoment{f.At, f.Do, f.Kind})
		if f.Undo != "" {
			moments = append(moments, chaosMoment{f.At + f.For, f.Undo, ""})
		}
	}
	slices.SortStableFunc(moments, func(x, y chaosMoment) int { return cmp.Compare(x.at, y.at) })
	return moments
}

// String is the line by which a person reads an episode.
func (e ChaosEpisode) String() string {
	var parts []string
	for _, f := range e.Faults {
		text := f.Do
		if f.Undo != "" {
			text += fmt.Sprintf(" for %s", f.For)
		}
		if f.At > 0 {
			text += fmt.Sprintf(" from %s", f.At)
		}
		parts = append(parts, text)
	}
	text := fmt.Sprintf("%d: %s", e.Number, strings.Join(parts, " + "))
	if e.Rush {
		text += " (the site still recovers)"
	}
	return text
}
