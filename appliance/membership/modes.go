package membership

import "fmt"

// modeWords are what status and logs print.
var modeWords = [...]string{"init", "joining", "resolving", "frozen", "paired", "solo"}

// String is the mode's word.
func (m Mode) String() string {
	if int(m) >= len(modeWords) {
		return "mode?"
	}
	return modeWords[m]
}

// transitions is the one table of allowed changes of mode, with the rules that make them. R1 leads from
// anywhere to init (and on to solo) and is not in it.
var transitions = [...]struct {
	from, to Mode
	rules    string
}{
	{Init, Solo, "R1 R5 R20 R26"},
	{Init, Joining, "R12 R28"},
	{Init, Resolving, "R13"},
	{Init, Paired, "R27"},
	{Joining, Init, "R3 R17"},
	{Joining, Paired, "R15"},
	{Resolving, Frozen, "R3 R17"},
	{Resolving, Paired, "R15 R16"},
	{Frozen, Init, "R6 R27"},
	{Frozen, Joining, "R12"},
	{Frozen, Resolving, "R13"},
	{Frozen, Solo, "R5 R20 R21b R26"},
	{Paired, Frozen, "R3"},
	{Paired, Init, "R18"},
	{Paired, Solo, "R18"},
	{Solo, Paired, "R16"},
	{Solo, Frozen, "HELLO without a match"},
}

// checkTransition panics on a change that no rule makes: going on with a broken belief could lose data.
func checkTransition(from, to Mode) {
	if from == to {
		return
	}
	for _, tr := range transitions {
		if tr.from == from && tr.to == to {
			return
		}
	}
	panic(fmt.Sprintf("membership: no rule leads from %v to %v", from, to))
}

// Diagram is the table as a Mermaid state diagram, for docs/protocol.md.
func Diagram() string {
	out := "stateDiagram-v2\n    [*] --> init: R1\n"
	for _, tr := range transitions {
		out += fmt.Sprintf("    %v --> %v: %s\n", tr.from, tr.to, tr.rules)
	}
	return out
}
