package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 3, 12, 3, 12, 0, 0, time.UTC)

func entry(i int) Entry {
	return Entry{
		What: "fence", Node: "b", By: "core", At: start.Add(time.Duration(i) * time.Second), Epoch: uint64(i), Run: uint64(i), Verdict: "confirmed",
		Decided: "bmc", Evidence: map[string]string{"bmc": "confirmed"}, Why: "read off", Raw: strings.Repeat("ab", 32),
	}
}

func open(t *testing.T, path string) *Ledger {
	t.Helper()
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func record(t *testing.T, l *Ledger, e Entry) {
	t.Helper()
	if err := l.Record(e); err != nil {
		t.Fatal(err)
	}
}

func TestSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fence")
	l := open(t, path)
	for i := range 3 {
		record(t, l, entry(i))
	}
	l.Close()
	again := open(t, path)
	got := again.Entries(2)
	if len(got) != 2 || got[0].Epoch != 2 || got[1].Epoch != 1 || got[0].Evidence["bmc"] != "confirmed" || !got[0].At.Equal(start.Add(2*time.Second)) {
		t.Errorf("%+v", got)
	}
}

// Whatever a crash leaves of the last line, the lines before it are there, and new ones follow whole.
func TestEveryCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fence")
	l := open(t, path)
	record(t, l, entry(0))
	record(t, l, entry(1))
	l.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first := strings.Index(string(whole), "\n") + 1
	for cut := first; cut <= len(whole); cut++ {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, path)
		want := 1
		if cut == len(whole) {
			want = 2
		}
		record(t, l, entry(9))
		l.Close()
		if got := open(t, path).Entries(9); len(got) != want+1 || got[0].Epoch != 9 || got[len(got)-1].Epoch != 0 {
			t.Fatalf("cut at %d: %d entries", cut, len(got))
		}
	}
}

func TestStaysBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fence")
	l := open(t, path)
	l.mu.Lock()
	l.entries = nil
	l.mu.Unlock()
	for i := range 1500 { // about 400 bytes each
		record(t, l, entry(i))
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > sizeLimit || info.Size() < sizeLimit/4 {
		t.Errorf("%v bytes, %v", info.Size(), err)
	}
	if got := l.Entries(1); got[0].Epoch != 1499 {
		t.Errorf("the newest is %d", got[0].Epoch)
	}
	if len(l.Entries(5000)) == 1500 {
		t.Error("nothing was dropped")
	}
	e := entry(1)
	e.Why = strings.Repeat("x", lineLimit)
	if l.Record(e) == nil {
		t.Error("a huge entry was taken")
	}
}

func TestRepetitions(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "fence"))
	e := entry(0)
	e.Verdict = "unknown"
	for i := range 400 {
		e.At, e.Run = start.Add(time.Duration(i)*2*time.Second), uint64(i)
		record(t, l, e)
	}
	e.Verdict = "confirmed"
	record(t, l, e)
	got := l.Entries(9)
	if len(got) != 3 || got[1].Repeats != 299 || got[0].Repeats != 99 {
		t.Errorf("%d entries, repeats %v", len(got), got)
	}
	test := entry(5)
	test.What = "live-test"
	record(t, l, test)
	record(t, l, test)
	if len(l.Entries(9)) != 5 {
		t.Error("a live test is never a repetition")
	}
}

// An error of write or sync is final; what comes after is kept in memory.
func TestDeadDisk(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "fence"))
	record(t, l, entry(0))
	l.mu.Lock()
	l.file.Close()
	l.mu.Unlock()
	for i := range 3 {
		if err := l.Record(entry(i + 1)); err == nil {
			t.Error("recorded on a dead file")
		}
	}
	if got := l.Entries(9); len(got) != 4 {
		t.Errorf("%d in memory", len(got))
	}
	if _, err := l.Damaged(); err == nil {
		t.Error("nobody is told")
	}
}

// Record returned nil: the line was synced, and so was the folder after a rename. A sync that fails is final.
func TestSyncs(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "fence"))
	var synced []string
	var broken error
	l.sync = func(f *os.File) error {
		synced = append(synced, filepath.Base(f.Name()))
		return broken
	}
	record(t, l, entry(0))
	if len(synced) != 1 {
		t.Errorf("synced %v", synced)
	}
	synced = nil
	l.mu.Lock()
	err := l.rewrite(l.entries)
	l.mu.Unlock()
	if err != nil || len(synced) != 2 || synced[0] != "fence.new" {
		t.Errorf("rewrite synced %v, %v", synced, err)
	}
	broken = os.ErrClosed
	if l.Record(entry(1)) == nil {
		t.Error("a failed sync was taken for a record")
	}
	broken = nil
	if l.Record(entry(2)) == nil {
		t.Error("written again after a failed sync")
	}
}

func FuzzParse(f *testing.F) {
	line, err := format(entry(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add([]byte("00000000 {}\n"))
	f.Add([]byte("zzzzzzzz\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, damaged := parse(data)
		if len(entries)+damaged > len(data) {
			t.Fatalf("%d entries, %d damaged of %d bytes", len(entries), damaged, len(data))
		}
		for _, e := range entries {
			if _, err := format(e); err != nil && !strings.Contains(err.Error(), "allowed") {
				t.Fatal(fmt.Errorf("what was read cannot be written: %w", err))
			}
		}
	})
}
