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
	Missed []string   `json:"missed,omitempty"`
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

// judge compares a row with its promise.
func (r *RowResult) judge(row Row) {
	r.Green = !slices.ContainsFunc(r.Cases, func(m Measured) bool { return m.Failed != "" })
	for _, v := range []struct {
		name  string
		is    *float64
		bound time.Duration
	}{{"own", r.Own, row.OwnWithin}, {"other", r.Other, row.OtherWithin}, {"back", r.Back, row.BackWithin}} {
		if v.is != nil && v.bound > 0 && *v.is > v.bound.Seconds() {
			r.Missed = append(r.Missed, v.name)
		}
	}
}

// Collect makes the report of what was measured. Rows without a measurement are named with their reason.
func Collect(rows []Row, measured []Measured, skipped string) *Liveness {
	l := &Liveness{Liveness: "ok", Rows: []RowResult{}, TargetsMissed: []string{}, Failed: []string{}, NotCovered: map[string]string{}}
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
		r.Green = r.Green && len(r.Cases) == len(row.Cases)
		l.Rows = append(l.Rows, r)
	}
	if len(l.Failed) > 0 {
		l.Liveness = "failed"
	}
	return l
}

// Merge makes one report of several runs: of each row the last run that played it whole, or else the last that played it.
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
	}
	return l
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
		own := cell(r.Own)
		if r.Says != "" {
			own = strings.TrimSpace("frozen, says why " + own)
		}
		if slices.ContainsFunc(r.Cases, func(m Measured) bool { return m.Failed != "" }) {
			own = strings.TrimSpace("FAILED " + own)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row.Situation, row.Own, own, row.Other, cell(r.Other), cell(r.Back), row.Person)
	}
	err := t.Flush()
	for _, text := range absent {
		fmt.Fprintln(w, text)
	}
	return err
}

func cell(v *float64) string {
	if v == nil {
		return ""
	}
	if *v < 0.1 {
		return "< 0.1 s"
	}
	return fmt.Sprintf("%.1f s", *v)
}
