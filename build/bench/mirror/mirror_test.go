package main

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

func TestParseFio(t *testing.T) {
	const report = `fio: connected to NBD server
{"fio version": "fio-3.33", "jobs": [
 {"jobname": "load0", "error": 0, "job_runtime": 1000, "usr_cpu": 3.1, "sys_cpu": 2.9,
  "read": {"total_ios": 0, "iops": 0, "lat_ns": {"max": 0}},
  "write": {"total_ios": 3, "iops": 3.5, "lat_ns": {"max": 40000001, "percentile": {"50.000000": 9984}, "bins": {"9984": 2, "40108032": 1}}},
  "sync": {"total_ios": 2, "lat_ns": {"max": 77, "bins": {"77": 2}}}},
 {"jobname": "load1", "error": 0, "job_runtime": 1000, "usr_cpu": 1, "sys_cpu": 1,
  "read": {"total_ios": 0, "iops": 0, "lat_ns": {"max": 0}},
  "write": {"total_ios": 1, "iops": 1.5, "lat_ns": {"max": 5, "bins": {"9984": 1}}},
  "sync": {"total_ios": 0, "lat_ns": {}}}]}`
	l, err := parseFio([]byte(report))
	if err != nil {
		t.Fatal(err)
	}
	if l.ops != 4 || l.perSecond != 5 || l.cpu != 80*ms || l.latency.max != 40000001 || l.latency.bins[9984] != 3 || l.latency.total() != 4 || l.flush.total() != 2 {
		t.Errorf("%+v", l)
	}
	for name, out := range map[string]string{
		"empty": "", "greeting only": "fio: connected to NBD server\n", "cut short": report[:200],
		"error":   `{"jobs": [{"error": 5, "write": {"total_ios": 1, "iops": 1}}]}`,
		"nothing": `{"jobs": [{"error": 0}]}`,
		"bin":     `{"jobs": [{"error": 0, "write": {"total_ios": 1, "lat_ns": {"bins": {"x": 1}}}}]}`,
	} {
		if _, err := parseFio([]byte(out)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestPercentile(t *testing.T) {
	h := histogram{bins: map[time.Duration]uint64{1: 50, 2: 49, 101: 1}, max: 100}
	for permille, want := range map[uint64]time.Duration{500: 1, 501: 2, 990: 2, 999: 100, 1000: 100} {
		if got := h.percentile(permille); got != want {
			t.Errorf("%d: %v, want %v", permille, got, want)
		}
	}
	if got := (histogram{}).percentile(500); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestPlateau(t *testing.T) {
	type bins = map[time.Duration]uint64
	for _, c := range []struct {
		name         string
		bins         bins
		depth        int
		seen, heaped bool
	}{
		{"nothing", nil, 1, false, false},
		{"fast", bins{ms: 100_000}, 1, false, false},
		{"one in 10,000", bins{ms: 99_990, 42 * ms: 10}, 1, false, false},
		{"more", bins{ms: 99_980, 42 * ms: 20}, 1, true, true},
		{"two acknowledgements", bins{ms: 1000, 45 * ms: 5, 88 * ms: 15}, 1, true, false}, // too few at 40 ms for the gate
		{"a few of few", bins{ms: 1000, 42 * ms: 3}, 1, true, false},
		{"one stall at depth 32", bins{ms: 20_000, 42 * ms: 32}, 32, true, false},
		// Both recorded on a busy machine: QEMU's quorum over TCP, and the mirror.
		{"heap at depth 32, late timers", bins{4 * ms: 4000, 44 * ms: 55, 46 * ms: 109, 48 * ms: 90, 50 * ms: 54, 52 * ms: 28, 89 * ms: 70, 95 * ms: 27}, 32, true, true},
		{"thinning tail at depth 32", bins{4 * ms: 6500, 20 * ms: 65, 24 * ms: 55, 28 * ms: 28, 32 * ms: 30, 36 * ms: 15, 40 * ms: 8, 44 * ms: 11, 49 * ms: 4, 53 * ms: 5}, 32, true, false},
		{"slow disk", bins{10 * ms: 100, 42 * ms: 20}, 1, false, false},
		{"every second one", bins{10 * ms: 40, 44 * ms: 60}, 32, true, true},
	} {
		p := histogram{bins: c.bins, max: time.Second}.plateau()
		if p.seen() != c.seen || p.heaped(c.depth) != c.heaped {
			t.Errorf("%s: seen %v, heaped %v: %+v", c.name, p.seen(), p.heaped(c.depth), p)
		}
	}
}

func TestSpread(t *testing.T) {
	if got, want := spreadOf([]float64{0.3, 0.1, 0.2, 0.4}), (spread{0.25, 0.1, 0.4}); got != want {
		t.Errorf("%v", got)
	}
	for in, want := range map[float64]float64{0: 0, 0.123456: 0.123, 12.3456: 12.3, 123456: 123456, 0.000456789: 0.000457, -1.23456: -1.23} {
		if got := rounded(in); got != want {
			t.Errorf("rounded(%v) = %v, want %v", in, got, want)
		}
	}
}

// rounds are cells that differ in what counts only.
func rounds(perSecond []float64, cpuMicros float64, latency histogram) []cell {
	var all []cell
	for _, p := range perSecond {
		c := cell{span: time.Second, servers: time.Duration(cpuMicros * 1000 * float64(time.Microsecond))}
		c.ops, c.perSecond, c.latency = 1000, p, latency
		all = append(all, c)
	}
	return all
}

var flat = histogram{bins: map[time.Duration]uint64{100 * time.Microsecond: 1000}, max: ms}

// A machine that is half as fast in one round moves no ratio.
func TestRatiosAreWithinTheRound(t *testing.T) {
	some := cells{
		raw: rounds([]float64{1000, 500, 2000}, 0, flat), duet: rounds([]float64{400, 200, 800}, 200, flat),
		quorumUnix: rounds([]float64{200, 100, 400}, 100, flat),
	}
	r := rowOf(job{Name: "j"}, duet, some)
	if *r.OfRaw != (spread{0.4, 0.4, 0.4}) || *r.OfUnix != (spread{2, 2, 2}) || *r.CPUOfUnix != (spread{2, 2, 2}) || r.OfTCP != nil {
		t.Errorf("%+v", r)
	}
	if r.PerSecond != 400 || r.ServerCPU != 200 || r.P50 != 100 {
		t.Errorf("%+v", r)
	}
	if r := rowOf(job{}, raw, some); r.OfRaw != nil || r.CPUOfUnix != nil {
		t.Errorf("raw to itself: %+v", r)
	}
}

func TestVerdict(t *testing.T) {
	j := job{Name: "j", Floor: 0.35, Goal: 0.45, CPUMicros: 190, TailTimes: 3, UnixTimes: 1.1, TCPTimes: 5}
	at := func(x float64) *spread { return &spread{Median: x} }
	good := row{OfRaw: at(0.5), OfUnix: at(1.2), OfTCP: at(6), P50: 100, P99: 250, ServerCPU: 150}
	for _, c := range []struct {
		name   string
		change func(*row)
		missed []string
		goals  []string
	}{
		{"good", func(*row) {}, nil, nil},
		{"goal", func(r *row) { r.OfRaw = at(0.4) }, nil, []string{"j"}},
		{"floor", func(r *row) { r.OfRaw = at(0.3) }, []string{"j"}, []string{"j"}},
		{"peers", func(r *row) { r.OfUnix, r.OfTCP = at(1), at(4) }, []string{"j/quorum-unix", "j/quorum-tcp"}, nil},
		{"no peers", func(r *row) { r.OfUnix, r.OfTCP = nil, nil }, nil, nil},
		{"rest", func(r *row) { r.ServerCPU, r.P99, r.Plateau = 191, 301, true }, []string{"j/cpu", "j/tail", "j/plateau"}, nil},
	} {
		r := good
		c.change(&r)
		missed, goals := j.judge(r)
		if !slices.Equal(missed, c.missed) || !slices.Equal(goals, c.goals) {
			t.Errorf("%s: missed %v, goals %v", c.name, missed, goals)
		}
	}
	if missed, goals := (job{Name: "no target"}).judge(row{OfRaw: at(0.01), P50: 1, P99: 100, ServerCPU: 1000}); missed != nil || goals != nil {
		t.Errorf("without a target: %v, %v", missed, goals)
	}
}

func TestQuiet(t *testing.T) {
	for _, c := range []struct {
		name    string
		raw     []float64
		foreign float64
		quiet   bool
	}{
		{"quiet", []float64{1000, 1100, 1200}, 0.4, true},
		{"spreads", []float64{1000, 1100, 1300}, 0.4, false},
		{"busy", []float64{1000, 1100, 1200}, 0.6, false},
		{"one round", []float64{1000}, 0, false},
	} {
		some := cells{raw: rounds(c.raw, 0, flat)}
		for i := range some[raw] {
			some[raw][i].foreign = c.foreign
		}
		f := &figures{Rounds: len(c.raw)}
		if f.take([]job{{Name: "j"}}, []cells{some}); f.Quiet != c.quiet {
			t.Errorf("%s: %+v", c.name, f)
		}
	}
}

func TestGates(t *testing.T) {
	j := job{Name: "j", Depth: 1, GateCPU: 2}
	heap := histogram{bins: map[time.Duration]uint64{ms: 1000, 42 * ms: 50}}
	two := []float64{1, 1}
	for _, c := range []struct {
		name string
		mine []cell
		want []string
	}{
		{"good", rounds(two, 190, flat), nil},
		{"one dear round", append(rounds(two[:1], 400, flat), rounds(two[:1], 190, flat)...), nil},
		{"dear", rounds(two, 210, flat), []string{"j/cpu"}},
		{"one heap", append(rounds(two[:1], 100, heap), rounds(two[:1], 100, flat)...), nil},
		{"heaps", rounds(two, 100, heap), []string{"j/plateau"}},
	} {
		some := cells{duetTLS: c.mine, quorumUnix: rounds(two, 100, flat)}
		if got := gates([]job{j}, []cells{some}, func(string, ...any) {}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// Encryption has its own limits, in the same round's figures without it.
func TestJudgeTLS(t *testing.T) {
	j := job{Name: "j", TLSTimes: 0.5, TLSMicros: 50}
	for _, c := range []struct {
		of, p50 float64
		missed  bool
	}{{0.6, 140, false}, {0.4, 140, true}, {0.6, 160, true}} {
		got := j.judgeTLS(row{P50: c.p50, OfClear: &spread{Median: c.of}}, row{P50: 100})
		if (len(got) > 0) != c.missed {
			t.Errorf("%+v: %q", c, got)
		}
	}
	if got := j.judgeTLS(row{P50: 1000}, row{}); got != nil {
		t.Errorf("without a clear lane to compare: %q", got)
	}
}

// Every job of the gates has both, and what they need is measured.
func TestGateJobs(t *testing.T) {
	some, err := chosen("", true)
	if err != nil || len(some) != 3 {
		t.Fatal(some, err)
	}
	for _, j := range some {
		if j.GateCPU == 0 {
			t.Errorf("%s has no limit", j.Name)
		}
	}
	if names, err := chosenSubjects("", true); err != nil || !slices.Contains(names, duetTLS) || !slices.Contains(names, quorumUnix) {
		t.Error(names, err)
	}
}

func TestChosen(t *testing.T) {
	if some, err := chosen("write-1m-d4,randread-4k-d1", false); err != nil || len(some) != 2 || some[0].Name != "write-1m-d4" {
		t.Error(some, err)
	}
	if some, err := chosen("", false); err != nil || len(some) != len(jobs) {
		t.Error(some, err)
	}
	if _, err := chosen("nothing", false); err == nil {
		t.Error("an unknown job is taken")
	}
	if _, err := chosenSubjects("nothing", false); err == nil {
		t.Error("an unknown subject is taken")
	}
	for _, args := range [][]string{{"-rounds", "0"}, {"-jobs", "x"}, {"-subjects", "x"}, {"-seconds", "x"}} {
		if status := run(t.Context(), args, io.Discard, io.Discard); status != 2 {
			t.Errorf("%v: status %d", args, status)
		}
	}
}

func TestParseStat(t *testing.T) {
	s, err := parseStat("42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 30 4 20 0 5 0 777 1 1")
	want := procStat{own: 1200 * ms, children: 340 * ms, parent: 7, started: 777}
	if err != nil || s != want {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := parseStat("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 1 0 0 20 0 1 0 1 0 0"); err != nil || !s.kernel {
		t.Errorf("%+v, %v", s, err)
	}
	for _, line := range []string{"", "1 (x) S 1 2", strings.Repeat(") x", 30)} {
		if _, err := parseStat(line); err == nil {
			t.Errorf("%q is taken", line)
		}
	}
}

func TestForeignUse(t *testing.T) {
	proc := func(own, children time.Duration, parent int) procStat {
		return procStat{own: own, children: children, parent: parent}
	}
	before := processes{1: proc(10, 100, 0), 2: proc(50, 0, 1), 3: proc(500, 20, 2), 4: proc(7, 0, 3), 9: proc(1000, 0, 1)}
	for _, c := range []struct {
		name  string
		after processes
		want  time.Duration
	}{
		{"nothing", before, 0},
		{"one works, ours does not count", processes{1: proc(10, 100, 0), 2: proc(55, 0, 1), 3: before[3], 4: before[4], 9: proc(9000, 0, 1)}, 5},
		{"a short life", processes{1: proc(10, 103, 0), 2: before[2], 3: before[3], 4: before[4], 9: before[9]}, 3},
		{"a family ends: only its last moments count", processes{1: before[1], 2: proc(50, 500+20+7+4, 1), 9: before[9]}, 4},
		{"nobody waited", processes{1: before[1], 2: before[2], 9: before[9]}, 0},
		{"the id is used again", processes{1: before[1], 2: before[2], 3: {own: 6, parent: 2, started: 5}, 4: before[4], 9: before[9]}, 6},
	} {
		if got := foreignUse(before, c.after, []int{9}); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	// Nobody used more than was left.
	at := time.Unix(1, 0)
	left := foreignLoad(reading{at: at, all: before}, reading{
		at: at.Add(10), busy: 12, servers: 4,
		all: processes{1: before[1], 2: proc(80, 0, 1), 3: before[3], 4: before[4]},
	}, nil, 3)
	if left != 0.5 {
		t.Errorf("%v", left)
	}
}

func TestParseCPU(t *testing.T) {
	busy, steal, err := parseCPU("cpu  1 2 4 1000 2000 8 16 32 0 0\ncpu0 1\n")
	if err != nil || busy != 31*tick || steal != 32*tick {
		t.Error(busy, steal, err)
	}
	for _, text := range []string{"", "cpu 1 2", "cpu a b c d e f g h"} {
		if _, _, err := parseCPU(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestMountOf(t *testing.T) {
	const text = `22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:26 / /data rw - xfs /dev/vdb rw
31 22 0:27 / /dat rw - tmpfs none rw
32 30 0:28 / /data rw - btrfs /dev/vdc rw
broken`
	for dir, want := range map[string]string{"/data/x": "btrfs /dev/vdc", "/dat": "tmpfs none", "/database": "ext4 /dev/vda"} {
		fs, device := mountOf(text, dir)
		if fs+" "+device != want {
			t.Errorf("%s: %s %s, want %s", dir, fs, device, want)
		}
	}
	if fs, _ := mountOf("", "/"); fs != "unknown" {
		t.Error(fs)
	}
}

func TestReplaceGenerated(t *testing.T) {
	doc := []byte("# Title\n" + beginMark + "\nold\n" + endMark + "\nrest\n")
	got, err := replaceGenerated(doc, "new\n")
	if want := "# Title\n" + beginMark + "\nnew\n" + endMark + "\nrest\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	again, err := replaceGenerated(got, "new\n")
	if err != nil || !bytes.Equal(again, got) {
		t.Errorf("%q, %v", again, err)
	}
	for _, doc := range []string{"", beginMark + "\nno end", endMark} {
		if _, err := replaceGenerated([]byte(doc), ""); err == nil {
			t.Errorf("%q is taken", doc)
		}
	}
}

// Tables name what was missed, and stay whole when a job or a subject was not run.
func TestTables(t *testing.T) {
	j := jobs[0]
	f := &figures{Rounds: 2, Machine: map[string]any{}}
	f.take([]job{j}, []cells{{raw: rounds([]float64{1000, 1000}, 0, flat), duet: rounds([]float64{100, 100}, 500, flat)}})
	text := f.tables([]job{j})
	for _, want := range []string{j.Text, "0.1 (0.1-0.1)", "| - |", "Floors missed: " + j.Name + ", " + j.Name + "/cpu", "Goals missed: " + j.Name} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}
