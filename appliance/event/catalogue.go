// Package event is the catalogue of what people are told: every operator-visible fault and event with its code, what
// happened, why it matters, and the one next safe step.
//
// The catalogue is data. A code is an area and a number; the number alone is unique, because a panel may show only four
// digits, and it is never used for anything else again. Each code has a page docs/faults/<code>.md in the manual that
// is in the image: the site has no network. Title, severity and command come from here and from nowhere else, so the CLI,
// the API, the log and the panel cannot disagree. So do the words, but for what duet-mirrord and ipmi/fence find: they
// know what they saw, and nothing of this package; Reported carries their words on. That every code which is written
// anywhere has an entry here is checked by build/tidy.
//
// A Fault is the error form. Code that decides something for a person returns one (New), wraps it like any other
// error, and the edge unwraps it (As). An error that carries no code becomes SYS-9000 there: it is shown, never
// swallowed, and it means that a code is missing in this catalogue.
//
// It refuses to be a place for state: whether a fault is raised now is known by the subsystem that raised it.
package event

// Code names a fault or event, for example "FENCE-5012".
type Code string

// Severity orders what is shown first.
type Severity uint8

// The severities.
const (
	Info     Severity = iota // happened, nothing to do
	Warning                  // serving, but one named loss would stop service, or an order was refused
	Critical                 // not serving, or a promise is in danger
)

// String is the word on the wire.
func (s Severity) String() string { return [...]string{"info", "warning", "critical"}[s] }

// Entry is one line of the catalogue. Texts name their values in braces.
type Entry struct {
	Code     Code
	Severity Severity
	Title    string // heading of its page
	What     string
	Why      string
	Next     string
	Command  string // the next step as a command, where there is one
}

// Lookup finds an entry; an unknown code gets the entry of SYS-9000.
func Lookup(code Code) Entry {
	if e, ok := byCode[code]; ok {
		return e
	}
	return byCode[Internal]
}

// All is the catalogue in order of the codes.
func All() []Entry { return append([]Entry(nil), catalogue...) }

var byCode = index(catalogue)

func index(entries []Entry) map[Code]Entry {
	m := make(map[Code]Entry, len(entries))
	for _, e := range entries {
		m[e.Code] = e
	}
	return m
}
