package decide

import (
	"fmt"
	"slices"

	"duet/appliance/membership"
)

// LSN is a position in the write-ahead log, in bytes; 0 is "not known".
type LSN uint64

// String is the form that the server prints (PostgreSQL manual 8.20).
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// Durability is what happens when the standby is lost.
type Durability uint8

// The choices: go on alone and say so, or hold commits (L5).
const (
	Available Durability = iota
	Strict
)

// String is the word of the site document.
func (d Durability) String() string { return [...]string{"available", "strict"}[d&1] }

// Reason is why a node was promoted.
type Reason uint8

// The reasons.
const (
	ReasonNone Reason = iota
	ReasonSwitchover
	ReasonCrash // the server died, its node lives (C2)
	ReasonNode  // the node was lost (N2)
	ReasonForced
)

// String is the word of the history.
func (r Reason) String() string {
	return [...]string{"none", "switchover", "crash", "node lost", "forced", "?", "?", "?"}[r&7]
}

// Promotion is one entry of the history: it is written before the promotion, Fork after it.
type Promotion struct {
	Epoch        membership.Epoch
	Version      uint64
	From, To     membership.Node
	FromTimeline uint32
	Timeline     uint32 // chosen here, not by the server: no number is ever used twice
	Fork         LSN    // where Timeline leaves FromTimeline; 0: not known yet
	CopiesBefore membership.Set
	Reason       Reason
	Forced       bool
}

// MaxHistory promotions are kept: more than a site sees in years, and a record stays below 4 KiB.
const MaxHistory = 64

// Record is the database record, one per site: which directories hold every acknowledged commit, and how the timeline
// came to be. It rides on the membership record (R25); only the owner of the database writes it.
type Record struct {
	Epoch      membership.Epoch
	Version    uint64 // 0: there is no record
	SystemID   uint64 // PostgreSQL's system identifier, set once
	Copies     membership.Set
	Timeline   uint32 // of the current primary, or of the promotion under way
	PromoteLSN LSN    // where Timeline began: the baseline of the classic view; 0: not known yet
	Durability Durability
	Since      int64       // wall clock, seconds: when Copies became what it is; for people
	History    []Promotion // oldest first, at most MaxHistory
}

// Newer says whether x replaces y: a lower pair never replaces a higher one.
func (x Record) Newer(y Record) bool {
	return x.Epoch > y.Epoch || x.Epoch == y.Epoch && x.Version > y.Version
}

// next is the record that the owner writes after r.
func (r Record) next(epoch membership.Epoch) Record {
	r.Epoch, r.Version = max(r.Epoch, epoch), r.Version+1
	r.History = slices.Clone(r.History)
	return r
}

// last is the newest promotion; its Version is 0 when there was none.
func (r Record) last() Promotion {
	if len(r.History) == 0 {
		return Promotion{}
	}
	return r.History[len(r.History)-1]
}

// entry is the promotion that made a timeline.
func (r Record) entry(timeline uint32) (Promotion, bool) {
	for _, p := range slices.Backward(r.History) {
		if p.Timeline == timeline {
			return p, true
		}
	}
	return Promotion{}, false
}

// promoted adds a promotion and makes its timeline current.
func (r Record) promoted(p Promotion, epoch membership.Epoch) Record {
	p.CopiesBefore, p.Timeline = r.Copies, r.freshTimeline(p.FromTimeline)
	r = r.next(epoch)
	p.Epoch, p.Version = r.Epoch, r.Version
	r.History = append(r.History, p)
	if len(r.History) > MaxHistory {
		r.History = r.History[len(r.History)-MaxHistory:]
	}
	r.Timeline, r.PromoteLSN = p.Timeline, 0
	return r
}

// freshTimeline is above every number that any node ever used or was told to use.
func (r Record) freshTimeline(own uint32) uint32 {
	highest := max(own, r.Timeline)
	for _, p := range r.History {
		highest = max(highest, p.Timeline)
	}
	if mutant("timeline") {
		highest = own
	}
	return highest + 1
}

// Left says where and by which promotion the current timeline left a directory that is on timeline own. Same: it did not,
// both are on one timeline. When a promotion on the way has no Fork yet, known is false: wait.
func (r Record) Left(own uint32) (by Promotion, fork LSN, same, known bool) {
	if own == r.Timeline {
		return Promotion{}, 0, true, true
	}
	// The ancestors of own, with the position at which each was left.
	left := map[uint32]LSN{own: 0}
	for tl := own; ; {
		e, found := r.entry(tl)
		if !found || e.FromTimeline == tl {
			break
		}
		left[e.FromTimeline] = e.Fork // 0: that promotion may never have happened; the other fork decides
		tl = e.FromTimeline
	}
	for tl := r.Timeline; ; {
		e, found := r.entry(tl)
		if !found || e.FromTimeline == tl {
			return Promotion{}, 0, false, true // unrelated, or older than the history: clone
		}
		if at, common := left[e.FromTimeline]; common {
			fork = e.Fork
			if at != 0 {
				fork = min(fork, at)
			}
			return e, fork, false, e.Fork != 0
		}
		tl = e.FromTimeline
	}
}
