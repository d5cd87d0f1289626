package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// figures is the JSON line.
type figures struct {
	Bench         string   `json:"bench"`
	Commit        string   `json:"commit"`
	Machine       string   `json:"machine"`
	Versions      string   `json:"versions"`
	Seed          uint64   `json:"seed"`
	Runs          int      `json:"runs"`
	Foreign       float64  `json:"foreign_load"`     // processors that others used, mean of the whole run
	ForeignMax    float64  `json:"foreign_load_max"` // of a minute
	Quiet         bool     `json:"quiet"`
	Rows          []row    `json:"rows"`
	PowerRatio    float64  `json:"power_cut_patroni_default_to_duet"` // medians; 0: not measured
	TargetsMissed []string `json:"targets_missed"`
	TargetsOpen   []string `json:"targets_open"` // what this run did not measure
	Failures      []string `json:"failures"`     // pairs that did not come back by themselves
	Leftovers     int      `json:"leftovers"`
}

// row is one pair under one fault. Times are in seconds.
type row struct {
	Pair         string    `json:"pair"`
	Fault        string    `json:"fault"`
	Outages      []float64 `json:"outages_s"` // in the order of the runs
	P50          float64   `json:"p50_s"`
	P95          float64   `json:"p95_s"`
	Max          float64   `json:"max_s"`
	ReturnMax    float64   `json:"return_max_s"`  // longest stall since its node was on again
	InSyncP50    float64   `json:"in_sync_p50_s"` // from the fault until either node can be lost again
	Lost         int       `json:"lost"`
	Twice        int       `json:"twice"`
	TwoPrimaries []string  `json:"two_primaries"`
	Failed       int       `json:"failed"`
}

// percentile is the nearest rank: with less than 20 values the 95th is the highest.
func percentile(values []float64, percent float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, int(math.Ceil(percent/100*float64(len(sorted))))-1)]
}

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }

// quietForeign is how many processors others may use in a run that is quoted.
const quietForeign = 0.5

func newFigures(ctx context.Context, o options) *figures {
	return &figures{
		Bench: "pg", Commit: commit(ctx), Machine: machine(), Versions: versions(ctx), Seed: o.seed, Runs: o.runs,
		TargetsMissed: []string{}, TargetsOpen: []string{}, Failures: []string{},
	}
}

// take makes rows of episodes and judges them.
func (f *figures) take(o options, all []episode) {
	f.Quiet = f.Foreign <= quietForeign
	for _, fault := range o.faults {
		for _, pair := range o.pairs {
			r, failures := rowOf(pair, fault, all)
			f.Failures = append(f.Failures, failures...)
			if len(r.Outages) > 0 || r.Failed > 0 {
				f.Rows = append(f.Rows, r)
			}
		}
	}
	f.judge()
}

func rowOf(pair, fault string, all []episode) (row, []string) {
	r := row{Pair: pair, Fault: fault, Outages: []float64{}, TwoPrimaries: []string{}}
	var inSync []float64
	var failures []string
	for _, e := range all {
		if e.Pair != pair || e.Fault != fault {
			continue
		}
		if e.Failure != "" {
			r.Failed++
			failures = append(failures, fmt.Sprintf("%s/%s: %s", pair, fault, e.Failure))
			continue
		}
		r.Outages = append(r.Outages, seconds(e.Outage))
		inSync = append(inSync, seconds(e.InSync))
		r.ReturnMax = max(r.ReturnMax, seconds(e.Return))
		r.Lost += e.Lost
		r.Twice += e.Twice
		if e.TwoPrimaries != "" {
			r.TwoPrimaries = append(r.TwoPrimaries, e.TwoPrimaries)
		}
	}
	r.P50, r.P95, r.Max = percentile(r.Outages, 50), percentile(r.Outages, 95), percentile(r.Outages, 100)
	r.InSyncP50 = percentile(inSync, 50)
	return r, failures
}

// limits are duet's, in seconds at the 95th percentile (docs/performance.md).
var limits = []struct {
	fault string
	most  float64
}{
	{"power-cut", 5},
	{"crash", 3},
	{"switchover", 1.5},
	{"standby-loss", 3.5},
	{"standby-crash", 3.5},
}

// leastRatio is how much shorter duet's outage is after a power cut than that of Patroni with its defaults.
const leastRatio = 4

// The targets beside the limits, which are named by their faults.
const (
	targetLost  = "lost"
	targetRatio = "power-cut-ratio"
)

func (f *figures) row(pair, fault string) (row, bool) {
	i := slices.IndexFunc(f.Rows, func(r row) bool { return r.Pair == pair && r.Fault == fault })
	if i < 0 {
		return row{}, false
	}
	return f.Rows[i], true
}

func (f *figures) judge() {
	say := func(name string, measured, missed bool) {
		switch {
		case !measured:
			f.TargetsOpen = append(f.TargetsOpen, name)
		case missed:
			f.TargetsMissed = append(f.TargetsMissed, name)
		}
	}
	for _, l := range limits {
		r, ok := f.row(duetPair, l.fault)
		say(l.fault, ok, r.P95 > l.most || r.Failed > 0)
	}
	measured, wrong := false, 0
	for _, r := range f.Rows {
		if r.Pair == duetPair {
			measured = true
			wrong += r.Lost + r.Twice + len(r.TwoPrimaries)
		}
	}
	say(targetLost, measured, wrong > 0)
	mine, ok := f.row(duetPair, "power-cut")
	theirs, both := f.row(patroniUsual, "power-cut")
	if mine.P50 > 0 {
		f.PowerRatio = math.Round(theirs.P50/mine.P50*100) / 100
	}
	say(targetRatio, ok && both && mine.P50 > 0 && theirs.P50 > 0, f.PowerRatio < leastRatio)
}
