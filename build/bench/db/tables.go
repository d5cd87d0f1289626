package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// The table of the document is between these lines.
const (
	beginMark = "<!-- bench-pg: generated, do not edit -->"
	endMark   = "<!-- bench-pg: end -->"
)

var errMarks = errors.New("the marks of the generated section are missing")

func replaceGenerated(text []byte, generated string) ([]byte, error) {
	before, rest, ok := bytes.Cut(text, []byte(beginMark+"\n"))
	if !ok {
		return nil, errMarks
	}
	_, after, ok := bytes.Cut(rest, []byte(endMark))
	if !ok {
		return nil, errMarks
	}
	return bytes.Join([][]byte{before, []byte(beginMark + "\n"), []byte(generated), []byte(endMark), after}, nil), nil
}

// tables are for people: fault by fault, duet first.
func (f *figures) tables() string {
	var t strings.Builder
	fmt.Fprintf(&t, "%s\n\n", f.conditions())
	t.WriteString("| fault | pair | p50, s | p95, s | max, s | limit, s | every run, s | stall at the node's return, s | in sync again, s | rows lost |\n")
	t.WriteString("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range f.Rows {
		fmt.Fprintf(&t, "| %s | %s | %.2f | %.2f | %.2f | %s | %s | %s | %.0f | %s |\n",
			text(r.Fault), r.Pair, r.P50, r.P95, r.Max, limitOf(r), list(r.Outages), returned(r), r.InSyncP50, lost(r))
	}
	fmt.Fprintf(&t, "\nOf Patroni's default after a power cut duet takes one part in %.1f (target: %d). Targets missed: %s. Not measured: %s.\n",
		f.PowerRatio, leastRatio, names(f.TargetsMissed), names(f.TargetsOpen))
	for _, failure := range f.Failures {
		fmt.Fprintf(&t, "Did not come back: %s.\n", failure)
	}
	return t.String()
}

func (f *figures) conditions() string {
	state := "**Not quiet.**"
	if f.Quiet {
		state = "Quiet."
	}
	return fmt.Sprintf("%s %s; commit %s. %s. %d runs, seed %d, %d writers, a row each every %v. Others used %.2f processors in the mean, at most %.2f over a minute.",
		state, f.Machine, f.Commit, f.Versions, f.Runs, f.Seed, writersCount, writersEvery, f.Foreign, f.ForeignMax)
}

func text(name string) string {
	for _, f := range faults {
		if f.name == name {
			return f.text
		}
	}
	return name
}

func limitOf(r row) string {
	for _, l := range limits {
		if r.Pair == duetPair && l.fault == r.Fault {
			return fmt.Sprint(l.most)
		}
	}
	return "-"
}

func returned(r row) string {
	if r.ReturnMax == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", r.ReturnMax)
}

func lost(r row) string {
	said := fmt.Sprint(r.Lost)
	if r.Twice > 0 {
		said += fmt.Sprintf(", %d twice", r.Twice)
	}
	if len(r.TwoPrimaries) > 0 {
		said += ", two primaries"
	}
	if r.Failed > 0 {
		said += fmt.Sprintf(", %d did not come back", r.Failed)
	}
	return said
}

func list(values []float64) string {
	var words []string
	for _, v := range values {
		words = append(words, fmt.Sprintf("%.2f", v))
	}
	return strings.Join(words, " ")
}

func names(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
