package main

import (
	"context"
	"math"
	"slices"
)

// figures is the JSON line.
type figures struct {
	Bench         string         `json:"bench"`
	Commit        string         `json:"commit"`
	Machine       map[string]any `json:"machine"`
	Lane          string         `json:"lane"`
	Seed          uint64         `json:"seed"`
	Rounds        int            `json:"rounds"`
	Seconds       float64        `json:"seconds"`
	LegMiB        int            `json:"leg_mib"`
	Nice          int            `json:"nice"`
	ForeignLoad   float64        `json:"foreign_load"` // processors that other processes used, mean
	ForeignMax    float64        `json:"foreign_load_max"`
	Steal         float64        `json:"steal"`      // processors that the hypervisor took, mean
	RawSpread     float64        `json:"raw_spread"` // highest less lowest over median, the widest of all jobs
	Quiet         bool           `json:"quiet"`      // may be published
	Rows          []row          `json:"rows"`
	TargetsMissed []string       `json:"targets_missed"`
	GoalsMissed   []string       `json:"goals_missed"`
	GatesFailed   []string       `json:"gates_failed,omitempty"`
}

// row is one subject under one job: ratios within the round, latencies of all rounds together.
type row struct {
	Job       string  `json:"job"`
	Subject   string  `json:"subject"`
	PerSecond float64 `json:"per_second"` // median; of raw-two, mean of a file
	OfRaw     *spread `json:"of_raw,omitempty"`
	OfClear   *spread `json:"of_clear,omitempty"`       // duet-tls's only
	OfUnix    *spread `json:"of_quorum_unix,omitempty"` // duet's only, as those below
	OfTCP     *spread `json:"of_quorum_tcp,omitempty"`
	CPUOfUnix *spread `json:"cpu_of_quorum_unix,omitempty"` // of the servers, an operation
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	P999      float64 `json:"p99_9_us"`
	Max       float64 `json:"max_us"`
	FlushP50  float64 `json:"fsync_p50_us,omitempty"`
	FlushP99  float64 `json:"fsync_p99_us,omitempty"`
	ClientCPU float64 `json:"client_cpu_us"` // an operation; with its fsync, if the job has them
	ServerCPU float64 `json:"server_cpu_us"` // of all servers together
	Plateau   bool    `json:"plateau"`
}

// spread is a ratio over the rounds.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(values []float64) spread {
	return spread{rounded(median(values)), rounded(slices.Min(values)), rounded(slices.Max(values))}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// rounded keeps three digits.
func rounded(x float64) float64 {
	if x == 0 || math.IsInf(x, 0) || math.IsNaN(x) {
		return 0
	}
	unit := math.Pow(10, math.Floor(math.Log10(math.Abs(x)))-2)
	if unit >= 1 {
		return math.Round(x)
	}
	return math.Round(x/unit) / math.Round(1/unit)
}

// ratios divides round by round; nil when there is nothing to divide by.
func ratios(of, by []cell, value func(cell) float64) []float64 {
	var all []float64
	for i := range min(len(of), len(by)) {
		if below := value(by[i]); below > 0 {
			all = append(all, value(of[i])/below)
		}
	}
	return all
}

func optional(values []float64) *spread {
	if len(values) == 0 {
		return nil
	}
	s := spreadOf(values)
	return &s
}

func perSecond(c cell) float64 { return c.perSecond }
func serverCPU(c cell) float64 { return c.perOperation(c.servers) }
func clientCPU(c cell) float64 { return c.perOperation(c.cpu) }

func values(some []cell, value func(cell) float64) []float64 {
	var all []float64
	for _, c := range some {
		all = append(all, value(c))
	}
	return all
}

func newFigures(ctx context.Context, o options) *figures {
	return &figures{
		Bench: "mirror", Commit: commit(ctx), Machine: machine(o.inside), Lane: "TCP over a veth, clear; duet-tls: TLS 1.3", Seed: o.seed,
		Rounds: o.rounds, Seconds: o.length.Seconds(), LegMiB: o.mib, Nice: niceness(),
		TargetsMissed: []string{}, GoalsMissed: []string{},
	}
}

// The limits of a quiet machine.
const (
	quietSpread  = 0.25
	quietForeign = 0.5
)

func (f *figures) take(todo []job, all []cells) {
	var foreign, steal, span float64
	for i, j := range todo {
		some := all[i]
		for _, name := range append([]string{raw}, subjectNames...) {
			if len(some[name]) == 0 {
				continue
			}
			r := rowOf(j, name, some)
			f.Rows = append(f.Rows, r)
			for _, c := range some[name] {
				foreign += c.foreign * c.span.Seconds()
				steal += c.steal * c.span.Seconds()
				span += c.span.Seconds()
				f.ForeignMax = max(f.ForeignMax, rounded(c.foreign))
			}
			switch name {
			case duetTLS:
				f.TargetsMissed = append(f.TargetsMissed, j.judgeTLS(r, f.row(j, duet))...)
			case duet:
				missed, goal := j.judge(r)
				f.TargetsMissed = append(f.TargetsMissed, missed...)
				f.GoalsMissed = append(f.GoalsMissed, goal...)
			}
		}
		if s := spreadOf(values(some[raw], perSecond)); s.Median > 0 {
			f.RawSpread = max(f.RawSpread, rounded((s.Max-s.Min)/s.Median))
		}
	}
	f.ForeignLoad, f.Steal = rounded(foreign/span), rounded(steal/span)
	f.Quiet = f.Rounds > 1 && f.RawSpread <= quietSpread && f.ForeignLoad <= quietForeign
}

func rowOf(j job, name string, some cells) row {
	mine := some[name]
	var latency, flush histogram
	for _, c := range mine {
		latency.add(c.latency)
		flush.add(c.flush)
	}
	r := row{
		Job: j.Name, Subject: name, PerSecond: rounded(median(values(mine, perSecond))),
		P50: rounded(micros(latency.percentile(500))), P99: rounded(micros(latency.percentile(990))),
		P999: rounded(micros(latency.percentile(999))), Max: rounded(micros(latency.max)),
		FlushP50: rounded(micros(flush.percentile(500))), FlushP99: rounded(micros(flush.percentile(990))),
		ClientCPU: rounded(median(values(mine, clientCPU))), ServerCPU: rounded(median(values(mine, serverCPU))),
		Plateau: latency.plateau().seen() || flush.plateau().seen(),
	}
	if name != raw {
		r.OfRaw = optional(ratios(mine, some[raw], perSecond))
	}
	switch name {
	case duetTLS:
		r.OfClear = optional(ratios(mine, some[duet], perSecond))
	case duet:
		r.OfUnix = optional(ratios(mine, some[quorumUnix], perSecond))
		r.OfTCP = optional(ratios(mine, some[quorumTCP], perSecond))
		r.CPUOfUnix = optional(ratios(mine, some[quorumUnix], serverCPU))
	}
	return r
}

// judge names what duet's row missed: of raw by the job's name alone, everything else with its kind.
func (j job) judge(r row) (missed, goals []string) {
	below := func(got *spread, want float64) bool { return got != nil && want > 0 && got.Median < want }
	above := func(got, want float64) bool { return want > 0 && got > want }
	for _, check := range []struct {
		kind   string
		missed bool
	}{
		{"", below(r.OfRaw, j.Floor)},
		{"/quorum-unix", below(r.OfUnix, j.UnixTimes)},
		{"/quorum-tcp", below(r.OfTCP, j.TCPTimes)},
		{"/cpu", above(r.ServerCPU, j.CPUMicros)},
		{"/tail", above(r.P99, j.TailTimes*r.P50) && j.TailTimes > 0},
		{"/plateau", r.Plateau},
	} {
		if check.missed {
			missed = append(missed, j.Name+check.kind)
		}
	}
	if below(r.OfRaw, j.Goal) {
		goals = append(goals, j.Name)
	}
	return missed, goals
}

// judgeTLS names what encryption cost more than it may.
func (j job) judgeTLS(r, clear row) (missed []string) {
	if r.OfClear == nil {
		return nil
	}
	if r.OfClear.Median < j.TLSTimes || j.TLSMicros > 0 && r.P50-clear.P50 > j.TLSMicros {
		missed = append(missed, j.Name+"/tls")
	}
	return missed
}

// gates are what must not become worse, on any machine, however busy: each fails only if every round says so.
//
// The first is CPU per mirrored write, in that of QEMU's quorum over a unix socket under the same load a moment before
// or after. A slow processor, a busy neighbour or a hypervisor that steals makes both dearer; what is left is our own
// path. Its best round counts against job.GateCPU, which is 1.3 times the ratio that was usual when it was set.
//
// The second is the heap of operations at 40 ms.
func gates(todo []job, all []cells, say func(string, ...any)) []string {
	var failed []string
	for i, j := range todo {
		some := all[i]
		if cpu := ratios(some[duetTLS], some[quorumUnix], serverCPU); len(cpu) > 0 && j.GateCPU > 0 {
			say("gate %s/cpu: %.2f of quorum's at best, limit %.2f", j.Name, slices.Min(cpu), j.GateCPU)
			if slices.Min(cpu) > j.GateCPU {
				failed = append(failed, j.Name+"/cpu")
			}
		}
		heaped := 0
		for _, c := range some[duetTLS] {
			if c.latency.plateau().heaped(j.Depth) || c.flush.plateau().heaped(j.Depth) {
				heaped++
			}
		}
		say("gate %s/plateau: in %d of %d rounds", j.Name, heaped, len(some[duetTLS]))
		if heaped > 0 && heaped == len(some[duetTLS]) {
			failed = append(failed, j.Name+"/plateau")
		}
	}
	return failed
}
