package vms

import (
	"cmp"
	"slices"
)

// State of a VM as observed.
type State uint8

// The states.
const (
	Absent        State = iota // no domain and no process
	Paused                     // created and not released yet, or stopped by somebody
	Running                    // guest code runs
	PausedOnError              // QEMU stopped the guest because of an I/O error
	Ending                     // libvirt says that it is going down
	Unclear                    // a process exists, libvirt does not tell
)

// String is the word for people.
func (s State) String() string {
	return [...]string{"stopped", "paused", "running", "paused on error", "ending", "unclear"}[s]
}

// Seen is a VM as observed.
type Seen struct {
	ID    string // UUID
	Name  string
	State State
}

// Wish is what the site document and people want of one VM.
type Wish struct {
	ID   string
	Name string
	Run  bool
}

// Right is what this node may do now: the epoch of the live grant and the VMs whose resources it owns.
type Right struct {
	Epoch uint64 // 0: nothing may run
	IDs   []string
}

// Has says whether the VM may run.
func (r Right) Has(id string) bool { return r.Epoch != 0 && slices.Contains(r.IDs, id) }

// Verb is what to do with one VM.
type Verb uint8

// The verbs, in the order in which a round carries them out: take away before giving.
const (
	DoKill   Verb = iota // runs without right or wish
	DoReport             // a domain of ours that the document does not know: for a person, left alone
	DoResume             // permitted and wanted, but paused
	DoWant               // permitted and wanted, but absent: ask the core (R8, R9)
)

// String is the verb as logged.
func (v Verb) String() string { return [...]string{"kill", "report", "resume", "want"}[v] }

// Action is one thing to do.
type Action struct {
	Verb Verb
	ID   string
	Name string
	Why  string
}

// Decide compares what is wanted, seen and permitted. It is total: every VM of either list gets at most one action.
// What is Unclear counts as running: it is killed without a right and never started twice.
func Decide(wishes []Wish, seen []Seen, right Right) []Action {
	var actions []Action
	for _, w := range wishes {
		if a, ok := one(w, stateOf(w.ID, seen), right.Has(w.ID)); ok {
			actions = append(actions, a)
		}
	}
	for _, s := range seen {
		known := slices.ContainsFunc(wishes, func(w Wish) bool { return w.ID == s.ID })
		if !known && s.State != Absent {
			actions = append(actions, Action{DoReport, s.ID, s.Name, "the site document does not know it"})
		}
	}
	slices.SortStableFunc(actions, func(a, b Action) int { return cmp.Compare(a.Verb, b.Verb) })
	return actions
}

func one(w Wish, state State, permitted bool) (Action, bool) {
	switch state {
	case Absent:
		return Action{DoWant, w.ID, w.Name, "it is wanted and does not run"}, w.Run && permitted
	case Paused, PausedOnError:
		switch {
		case !permitted:
			return Action{DoKill, w.ID, w.Name, "this node may not run it"}, true
		case !w.Run:
			return Action{DoKill, w.ID, w.Name, "it was stopped by order"}, true
		}
		return Action{DoResume, w.ID, w.Name, "it is " + state.String()}, true
	case Running, Unclear:
		switch {
		case !permitted:
			return Action{DoKill, w.ID, w.Name, "this node may not run it"}, true
		case !w.Run:
			return Action{DoKill, w.ID, w.Name, "it was stopped by order"}, true
		}
	case Ending:
	}
	return Action{}, false
}

func stateOf(id string, seen []Seen) State {
	if i := slices.IndexFunc(seen, func(s Seen) bool { return s.ID == id }); i >= 0 {
		return seen[i].State
	}
	return Absent
}
