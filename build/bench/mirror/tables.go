package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// The tables of the document are between these lines.
const (
	beginMark = "<!-- bench-mirror: generated, do not edit -->"
	endMark   = "<!-- bench-mirror: end -->"
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

// tables are for people: first what was promised, then how long operations take and what they cost.
func (f *figures) tables(todo []job) string {
	var t strings.Builder
	fmt.Fprintf(&t, "%s\n\n", f.conditions())
	t.WriteString("| job | raw, a second | duet of raw | floor, goal | with TLS, of raw | TLS of clear | raw, two files | QEMU one copy | QEMU quorum unix | QEMU quorum TCP | duet to quorum unix | duet to quorum TCP |\n")
	t.WriteString("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, j := range todo {
		mine := f.row(j, duet)
		fmt.Fprintf(&t, "| %s | %.0f | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", j.Text, f.row(j, raw).PerSecond,
			words(mine.OfRaw), floorAndGoal(j), words(f.row(j, duetTLS).OfRaw), words(f.row(j, duetTLS).OfClear), words(f.row(j, rawTwo).OfRaw), words(f.row(j, oneCopy).OfRaw),
			words(f.row(j, quorumUnix).OfRaw), words(f.row(j, quorumTCP).OfRaw), words(mine.OfUnix), words(mine.OfTCP))
	}
	t.WriteString("\nMedian of the rounds' ratios (lowest to highest). Latency in microseconds, all rounds together; CPU in microseconds an operation:\n\n")
	t.WriteString("| job | subject | p50 | p99 | p99.9 | max | client CPU | servers' CPU | 40 ms plateau |\n")
	t.WriteString("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range f.Rows {
		if r.Subject == rawTwo {
			continue
		}
		p50, p99 := fmt.Sprintf("%.0f", r.P50), fmt.Sprintf("%.0f", r.P99)
		if r.FlushP50 > 0 {
			p50, p99 = fmt.Sprintf("%.0f + %.0f fsync", r.P50, r.FlushP50), fmt.Sprintf("%.0f, %.0f fsync", r.P99, r.FlushP99)
		}
		fmt.Fprintf(&t, "| %s | %s | %s | %s | %.0f | %.0f | %.0f | %.0f | %s |\n",
			r.Job, r.Subject, p50, p99, r.P999, r.Max, r.ClientCPU, r.ServerCPU, map[bool]string{true: "**yes**", false: "no"}[r.Plateau])
	}
	fmt.Fprintf(&t, "\nFloors missed: %s.\nGoals missed: %s.\n", listed(f.TargetsMissed), listed(f.GoalsMissed))
	return t.String()
}

func (f *figures) conditions() string {
	state := "**Not quiet: not for publication.**"
	if f.Quiet {
		state = "Quiet."
	}
	return fmt.Sprintf("%s %v, %v cores, Linux %v, %v on %v (%v), %v; commit %s. Data lane: %s. %d rounds of %g s, legs of %d MiB, seed %d, nice %d. "+
		"Foreign load %g (at most %g) processors, steal %g, raw spreads by %.0f %%.",
		state, f.Machine["cpu"], f.Machine["cores"], f.Machine["kernel"], f.Machine["filesystem"], f.Machine["disk"], f.Machine["disk_cache"],
		f.Machine["go"], f.Commit, f.Lane, f.Rounds, f.Seconds, f.LegMiB, f.Seed, f.Nice, f.ForeignLoad, f.ForeignMax, f.Steal, 100*f.RawSpread)
}

// row of a job, empty if it was not run.
func (f *figures) row(j job, subject string) row {
	for _, r := range f.Rows {
		if r.Job == j.Name && r.Subject == subject {
			return r
		}
	}
	return row{}
}

func words(s *spread) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%g (%g-%g)", s.Median, s.Min, s.Max)
}

func floorAndGoal(j job) string {
	if j.Floor == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f, %.2f", j.Floor, j.Goal)
}

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
