package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"duet/build/pgwriter"
)

func TestPercentile(t *testing.T) {
	twenty := []float64{}
	for i := range 20 {
		twenty = append(twenty, float64(20-i))
	}
	for _, c := range []struct {
		values        []float64
		p50, p95, max float64
	}{
		{nil, 0, 0, 0},
		{[]float64{3}, 3, 3, 3},
		{[]float64{5, 1, 2}, 2, 5, 5},
		{[]float64{4, 1, 2, 3}, 2, 4, 4},
		{twenty, 10, 19, 20},
	} {
		if got := [3]float64{percentile(c.values, 50), percentile(c.values, 95), percentile(c.values, 100)}; got != [3]float64{c.p50, c.p95, c.max} {
			t.Errorf("%v: %v, want %v %v %v", c.values, got, c.p50, c.p95, c.max)
		}
	}
}

// A gap counts when any part of it is in the span, whatever the order of the log and whatever was not acknowledged.
func TestLongest(t *testing.T) {
	at := func(ms int64) time.Time { return time.UnixMilli(ms) }
	op := func(ms int64, s pgwriter.State) pgwriter.Op { return pgwriter.Op{End: ms * 1000, State: s} }
	ops := []pgwriter.Op{
		op(100, pgwriter.Acked), op(1000, pgwriter.Acked), op(1010, pgwriter.Acked), op(1500, pgwriter.Unknown),
		op(3020, pgwriter.Acked), op(3010, pgwriter.Acked), op(3500, pgwriter.Acked), op(9000, pgwriter.Acked),
	}
	for _, c := range []struct{ from, to, want int64 }{
		{1200, 3600, 5500}, // the last gap begins in the span
		{1200, 3400, 2000},
		{1005, 1008, 10},
		{3015, 3018, 10},
		{9500, 9900, 0},
		{0, 10000, 5500},
	} {
		if got := longest(ops, at(c.from), at(c.to)); got != time.Duration(c.want)*time.Millisecond {
			t.Errorf("%d to %d: %v, want %d ms", c.from, c.to, got, c.want)
		}
	}
}

// played is a run of all faults on all pairs, with an outage for each pair.
func played(outage map[string]time.Duration) []episode {
	var all []episode
	for _, f := range faults {
		for _, p := range pairNames {
			if d := outage[p]; d > 0 {
				all = append(all, episode{Pair: p, Fault: f.name, Outage: d, InSync: 2 * d})
			}
		}
	}
	return all
}

func TestTargets(t *testing.T) {
	quick := map[string]time.Duration{duetPair: time.Second, patroniUsual: 25 * time.Second, patroniLeast: 15 * time.Second}
	everything := []string{"power-cut", "crash", "switchover", "standby-loss", "standby-crash", targetLost, targetRatio}
	for _, c := range []struct {
		name         string
		episodes     []episode
		missed, open []string
	}{
		{"nothing", nil, nil, everything},
		{"all is well", played(quick), nil, nil},
		{"without the others", played(map[string]time.Duration{duetPair: time.Second}), nil, []string{targetRatio}},
		{"without duet", played(map[string]time.Duration{patroniUsual: time.Second}), nil, everything},
		{"slow", played(map[string]time.Duration{duetPair: 6 * time.Second, patroniUsual: 30 * time.Second}), everything[:5], nil},
		{"one run of many is late", append(played(quick), episode{Pair: duetPair, Fault: "crash", Outage: 4 * time.Second}), []string{"crash"}, nil},
		{"not four times as quick", played(map[string]time.Duration{duetPair: time.Second, patroniUsual: 3 * time.Second}), []string{targetRatio}, nil},
		{"a row is gone", append(played(quick), episode{Pair: duetPair, Fault: "crash", Outage: time.Second, Lost: 1}), []string{targetLost}, nil},
		{"a row is gone elsewhere", append(played(quick), episode{Pair: patroniLeast, Fault: "crash", Outage: time.Second, Lost: 1}), nil, nil},
		{"two primaries", append(played(quick), episode{Pair: duetPair, Fault: "crash", Outage: time.Second, TwoPrimaries: "x"}), []string{targetLost}, nil},
		{"did not come back", append(played(quick), episode{Pair: duetPair, Fault: "switchover", Failure: "x"}), []string{"switchover"}, nil},
	} {
		f := &figures{}
		f.take(options{pairs: pairNames, faults: faultNames()}, c.episodes)
		if !slices.Equal(f.TargetsMissed, c.missed) || !slices.Equal(f.TargetsOpen, c.open) {
			t.Errorf("%s: missed %v, want %v; open %v, want %v", c.name, f.TargetsMissed, c.missed, f.TargetsOpen, c.open)
		}
	}
}

func TestTables(t *testing.T) {
	f := &figures{}
	all := append(played(map[string]time.Duration{duetPair: time.Second, patroniUsual: 25 * time.Second}),
		episode{Pair: patroniLeast, Fault: "power-cut", Failure: "never came"})
	f.take(options{pairs: pairNames, faults: faultNames()}, all)
	text, err := replaceGenerated([]byte("a\n"+beginMark+"\nold\n"+endMark+"\nb\n"), f.tables())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"a\n" + beginMark, endMark + "\nb\n",
		"| power cut of the primary's node | duet | 1.00 | 1.00 | 1.00 | 5 | 1.00 | - | 2 | 0 |",
		"| power cut of the primary's node | patroni-minimum | 0.00 | 0.00 | 0.00 | - |  | - | 0 | 0, 1 did not come back |",
		"one part in 25.0", "Did not come back: patroni-minimum/power-cut: never came.",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "old") {
		t.Error("the old table is still there")
	}
	if _, err := replaceGenerated([]byte("no marks"), "x"); err == nil {
		t.Error("a document without marks was written")
	}
}

// The configuration is the reviewed file with every place filled, and says what makes the comparison a fair one.
func TestPatroniConfiguration(t *testing.T) {
	text, err := patroniNode{"a", addressA, etcdAddress, patroniFolder, databaseWord, timing{20, 1, 3}}.render()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\nscope: " + patroniSite + "\nname: a\n", "  host: " + etcdAddress + "\n",
		"    ttl: 20\n    loop_wait: 1\n    retry_timeout: 3\n", "    synchronous_mode: true\n", "        shared_buffers: 16MB\n",
		"  data_dir: /data/", "  connect_address: " + addressA + ":5432\n", "      password: " + databaseWord + "\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "{{") || strings.Contains(text, "<no value>") || strings.Contains(text, "\t") {
		t.Errorf("not filled:\n%s", text)
	}
	if strings.Contains(text, "fsync") || strings.Contains(text, "synchronous_commit") {
		t.Error("durability is PostgreSQL's own")
	}
}

func TestRoles(t *testing.T) {
	c := cluster{[]member{{"a", "leader", "running"}, {"b", "sync_standby", "running"}}}
	if p, s, err := c.roles(); p != "a" || s != "b" || err != nil {
		t.Error(p, s, err)
	}
	for _, bad := range []string{"starting", "stopped", ""} {
		c.Members[1].State = bad
		if _, _, err := c.roles(); err == nil {
			t.Errorf("a standby that is %q", bad)
		}
	}
	c.Members[1] = member{"b", "replica", "running"}
	if _, _, err := c.roles(); err == nil {
		t.Error("a standby that Patroni would not promote")
	}
}

// What others use is seen, and a machine that dies makes nothing foreign.
func TestMeter(t *testing.T) {
	if mean, most := summary([]float64{0, 0, 1, 1}, 2); mean != 0.5 || most != 1 {
		t.Error(mean, most)
	}
	if mean, most := summary([]float64{1}, 60); mean != 1 || most != 1 {
		t.Error(mean, most)
	}
	parent, used, err := parseStat("12 (a) b) S 7 12 12 0 -1 4194560 100 0 0 0 5 6 7 8 20 0 1 0 100")
	if err != nil || parent != 7 || used != 260*time.Millisecond {
		t.Error(parent, used, err)
	}
	if _, _, err := parseStat("12 (a"); err == nil {
		t.Error("half a line")
	}
}

func TestOptions(t *testing.T) {
	o := options{runs: 1}
	if err := o.fill("patroni-default,duet", "crash"); err != nil || !slices.Equal(o.pairs, []string{duetPair, patroniUsual}) || o.seed == 0 {
		t.Error(o, err)
	}
	for _, bad := range [][2]string{{"mysql", "crash"}, {duetPair, "flood"}, {"", ""}} {
		if err := (&options{runs: 1}).fill(bad[0], bad[1]); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

// The log is read piece by piece, and a line that is being written is read when it is whole.
func TestOps(t *testing.T) {
	w := &writers{file: filepath.Join(t.TempDir(), "log")}
	write := func(text string) {
		f, err := os.OpenFile(w.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = f.WriteString(text)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		text string
		want int
	}{
		{"", 0},
		{`{"w":0,"n":1,"start_us":1,"end_us":2,"state":"acked"}` + "\n" + `{"w":0,"n":2,"start`, 1},
		{`_us":3,"end_us":4,"state":"acked"}` + "\n", 2},
		{"", 2},
	} {
		write(c.text)
		ops, err := w.ops()
		if err != nil || len(ops) != c.want {
			t.Fatalf("%d lines, %v; want %d", len(ops), err, c.want)
		}
	}
	if w.told[1].N != 2 {
		t.Errorf("%+v", w.told)
	}
}
