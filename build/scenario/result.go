package scenario

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Liveness is the one line of JSON at the end of a liveness run, and what the failure matrix is made from.
type Liveness struct {
	Liveness string `json:"liveness"` // "ok" or "failed"; times decide nothing here
	Commit   string `json:"commit"`
	Machine  string `json:"machine"` // its class

	Rows          []RowResult       `json:"rows"`
	TargetsMissed []string          `json:"targets_missed"` // rows in which something took longer than promised
	TargetsOpen   []string          `json:"targets_open"`   // row: what is promised with a bound and was not measured
	Failed        []string          `json:"failed"`         // row: case: why
	NotCovered    map[string]string `json:"not_covered"`    // row: why nothing measured it
	Leftovers     int               `json:"leftovers"`
	Seconds       float64           `json:"seconds"`
}

// RowResult is one row: the worst of its cases, and the cases.
type RowResult struct {
	Row    string     `json:"row"`
	Own    *float64   `json:"own_s,omitempty"`
	Other  *float64   `json:"other_s,omitempty"`
	Back   *float64   `json:"back_s,omitempty"`
	Says   string     `json:"says,omitempty"`
	Green  bool       `json:"green"` // every case was played to its end and no promise was broken
	Failed bool       `json:"failed,omitempty"`
	Missed []string   `json:"missed,omitempty"`
	Absent []string   `json:"not_measured,omitempty"` // promised with a bound, and no case happened to measure it
	Cases  []Measured `json:"cases"`
}

// add takes a case into its row.
func (r *RowResult) add(m Measured) {
	for _, v := range []struct{ into, from **float64 }{{&r.Own, &m.Own}, {&r.Other, &m.Other}, {&r.Back, &m.Back}} {
		if *v.from != nil && (*v.into == nil || **v.into < **v.from) {
			*v.into = *v.from
		}
	}
	r.Says = cmp.Or(m.Says, r.Says)
	r.Cases = append(r.Cases, m)
}

func (r *RowResult) failed() bool {
	return slices.ContainsFunc(r.Cases, func(m Measured) bool { return m.Failed != "" })
}

// judge compares a row with its promise.
func (r *RowResult) judge(row Row) {
	r.Failed = r.failed()
	for _, v := range []struct {
		name  string
		is    *float64
		bound time.Duration
	}{{"own", r.Own, row.OwnWithin}, {"other", r.Other, row.OtherWithin}, {"back", r.Back, row.BackWithin}} {
		switch {
		case v.bound == 0:
		case v.is == nil:
			r.Absent = append(r.Absent, v.name)
		case *v.is > v.bound.Seconds():
			r.Missed = append(r.Missed, v.name)
		}
	}
}

// Collect makes the report of what was measured. Rows without a measurement are named with their reason. A run without
// any case has shown nothing, and is no success.
func Collect(rows []Row, measured []Measured, skipped string) *Liveness {
	l := &Liveness{
		Liveness: "ok", Rows: []RowResult{}, TargetsMissed: []string{}, TargetsOpen: []string{}, Failed: []string{}, NotCovered: map[string]string{},
	}
	for _, row := range rows {
		r := RowResult{Row: row.Name}
		for _, m := range measured {
			if m.Row == row.Name {
				r.add(m)
			}
			if m.Row == row.Name && m.Failed != "" {
				l.Failed = append(l.Failed, m.Row+": "+m.Case+": "+m.Failed)
			}
		}
		if len(r.Cases) < len(row.Cases) || len(r.Cases) == 0 {
			l.NotCovered[row.Name] = cmp.Or(row.Reason, skipped)
		}
		if len(r.Cases) == 0 {
			continue
		}
		if r.judge(row); len(r.Missed) > 0 {
			l.TargetsMissed = append(l.TargetsMissed, row.Name)
		}
		for _, name := range r.Absent {
			l.TargetsOpen = append(l.TargetsOpen, row.Name+": "+name)
		}
		r.Green = !r.Failed && len(r.Cases) == len(row.Cases)
		l.Rows = append(l.Rows, r)
	}
	if len(l.Rows) == 0 {
		l.Failed = append(l.Failed, "no case was played: "+skipped)
	}
	if len(l.Failed) > 0 {
		l.Liveness = "failed"
	}
	return l
}

// Merge makes one report of several runs: of each row the last run that played it whole, or else the last that played it.
// A failure of any of them stays one, and its row is not green: what went wrong once is not undone by a run in which it
// went well. Who has mended it leaves the run of before out.
func Merge(rows []Row, runs []Liveness) *Liveness {
	var measured []Measured
	commits, machines := []string{}, []string{}
	for _, row := range rows {
		var cases []Measured
		at := -1
		for i, run := range runs {
			for _, r := range run.Rows {
				if r.Row == row.Name && (len(r.Cases) >= len(cases) || len(r.Cases) == len(row.Cases)) {
					cases, at = r.Cases, i
				}
			}
		}
		measured = append(measured, cases...)
		if at >= 0 && !slices.Contains(commits, runs[at].Commit) {
			commits = append(commits, runs[at].Commit)
		}
		if at >= 0 && !slices.Contains(machines, runs[at].Machine) {
			machines = append(machines, runs[at].Machine)
		}
	}
	l := Collect(rows, measured, "not played in those runs")
	l.Commit, l.Machine = strings.Join(commits, ", "), strings.Join(machines, "; ")
	for _, run := range runs {
		l.Seconds += run.Seconds
		l.Leftovers += run.Leftovers
		l.keepFailures(run)
	}
	return l
}

// keepFailures takes over what went wrong in one of the runs.
func (l *Liveness) keepFailures(run Liveness) {
	if run.Liveness != "ok" {
		l.Liveness = "failed"
	}
	for _, text := range run.Failed {
		if !slices.Contains(l.Failed, text) {
			l.Failed = append(l.Failed, text)
		}
	}
	for _, r := range run.Rows {
		if i := slices.IndexFunc(l.Rows, func(is RowResult) bool { return is.Row == r.Row }); i >= 0 && r.failed() {
			l.Rows[i].Failed, l.Rows[i].Green = true, false
		}
	}
}

// Write prints the line.
func (l *Liveness) Write(w io.Writer) error {
	line, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", line)
	return err
}

// Table prints measured beside promised, for people at a terminal.
func (l *Liveness) Table(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SITUATION\tSURVIVOR'S OWN: PROMISED\tMEASURED\tTHE OTHER'S: PROMISED\tMEASURED\tBACK AFTER\tPEOPLE MUST")
	var absent []string
	for _, row := range rows {
		i := slices.IndexFunc(l.Rows, func(r RowResult) bool { return r.Row == row.Name })
		if i < 0 {
			absent = append(absent, fmt.Sprintf("not measured: %s: %s", row.Situation, l.NotCovered[row.Name]))
			continue
		}
		r := l.Rows[i]
		own := r.cell("own", r.Own)
		if r.Says != "" {
			own = strings.TrimSpace("frozen, says why " + own)
		}
		if r.Failed {
			own = strings.TrimSpace("FAILED " + own)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row.Situation, row.Own, own, row.Other, r.cell("other", r.Other), r.cell("back", r.Back), row.Person)
	}
	err := t.Flush()
	for _, text := range absent {
		fmt.Fprintln(w, text)
	}
	return err
}

// cell is a measured time as people read it. One that has a bound and was not measured says so.
func (r *RowResult) cell(name string, v *float64) string {
	switch {
	case v == nil && slices.Contains(r.Absent, name):
		return "not measured"
	case v == nil:
		return ""
	}
	if *v < 0.1 {
		return "< 0.1 s"
	}
	return fmt.Sprintf("%.1f s", *v)
}
