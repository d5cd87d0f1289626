package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"duet/appliance/postgres/decide"
	"duet/appliance/site"
)

// againstTools compares what is read here with what PostgreSQL's own programs read of a stopped directory.
func againstTools(t *testing.T, dir string) {
	t.Helper()
	c, err := readControl(dir)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(programs, "pg_controldata"), dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	state := map[ControlState]string{StateShutDown: "shut down", StateShutDownInRecovery: "shut down in recovery", StateInProduction: "in production", StateInArchiveRecovery: "in archive recovery"}
	for _, want := range []string{
		fmt.Sprintf(`Database system identifier: +%d\n`, c.SystemID), fmt.Sprintf(`Database cluster state: +%s\n`, state[c.State]),
		fmt.Sprintf(`Latest checkpoint location: +%v\n`, c.Checkpoint), fmt.Sprintf(`Latest checkpoint's REDO location: +%v\n`, c.Redo),
		fmt.Sprintf(`Latest checkpoint's TimeLineID: +%d\n`, c.Timeline), fmt.Sprintf(`Minimum recovery ending location: +%v\n`, c.MinRecovery),
		fmt.Sprintf(`Min recovery ending loc's timeline: +%d\n`, c.MinRecoveryTLI), fmt.Sprintf(`Bytes per WAL segment: +%d\n`, c.SegmentBytes),
		`wal_log_hints setting: +on\n`, `Data page checksum version: +1\n`,
	} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("%s: %q is not in\n%s", dir, want, out)
		}
	}
	if !c.Checksums || !c.WALLogHints {
		t.Errorf("%s: %+v", dir, c)
	}
	c.MinRecoveryTLI = max(c.MinRecoveryTLI, latestSegment(dir, c))
	end, err := directoryEnd(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	dump := exec.Command(filepath.Join(programs, "pg_waldump"), "--path="+filepath.Join(dir, "pg_wal"), fmt.Sprintf("--timeline=%d", c.LatestTimeline()),
		"--start="+c.Redo.String())
	dump.Env = append(os.Environ(), "LC_ALL=C")
	text, _ := dump.CombinedOutput() // it always ends with an error: the end of the log
	tail := text[max(0, len(text)-2000):]
	last := regexp.MustCompile(`(?s).*lsn: ([0-9A-F]+/[0-9A-F]+),`).FindSubmatch(tail)
	length := regexp.MustCompile(`(?s).*len \(rec/tot\): +\d+/ +(\d+),`).FindSubmatch(tail)
	if last == nil || length == nil {
		t.Fatalf("pg_waldump: %s", tail)
	}
	begin, err := parseLSN(string(last[1]))
	if err != nil {
		t.Fatal(err)
	}
	least := begin + decide.LSN(number(string(length[1]), 10))
	// Page headers inside the record, and alignment, come on top.
	if end < least || end > least+decide.LSN(8+40*(1+number(string(length[1]), 10)/walPage)) {
		if !regexp.MustCompile(`SWITCH`).Match(tail) {
			t.Errorf("%s: the log ends at %v, pg_waldump's last record is at %v and has %s bytes", dir, end, begin, length[1])
		}
	}
	t.Logf("%s, timeline %d: the log ends at %v", state[c.State], c.LatestTimeline(), end)
}

// sampleControl is a control file with a right checksum.
func sampleControl() []byte {
	b := make([]byte, controlFileSize)
	le := binary.LittleEndian
	le.PutUint64(b, 7300000000000000001)
	le.PutUint32(b[8:], controlVersion)
	le.PutUint32(b[16:], uint32(StateInProduction))
	le.PutUint64(b[32:], 0x3000028)
	le.PutUint64(b[40:], 0x3000000)
	le.PutUint32(b[48:], 3)
	le.PutUint32(b[228:], 16<<20)
	le.PutUint32(b[252:], 1)
	le.PutUint32(b[controlCRC:], crc32.Checksum(b[:controlCRC], castagnoli))
	return b
}

func TestControl(t *testing.T) {
	b := sampleControl()
	c, err := ParseControl(b)
	if err != nil || c.Timeline != 3 || c.Checkpoint != 0x3000028 || c.Clean() || !c.Checksums {
		t.Fatalf("%+v %v", c, err)
	}
	for i := range controlCRC + 4 {
		bad := append([]byte{}, b...)
		bad[i] ^= 0x10
		if _, err := ParseControl(bad); !errors.Is(err, ErrControl) {
			t.Fatalf("a damaged byte %d is not seen", i)
		}
	}
}

func FuzzParseControl(f *testing.F) {
	f.Add(sampleControl())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseControl(b); err == nil && (c.SegmentBytes < 1<<20 || c.SegmentBytes > 1<<30) {
			t.Fatal("nonsense is believed")
		}
	})
}

func TestParseHistory(t *testing.T) {
	all, err := ParseHistory("# a comment\n\n1\t0/3000060\tno recovery target specified\n2\t1/40\tx\n")
	if err != nil || len(all) != 2 || all[1] != (Ancestor{2, 1<<32 | 0x40}) {
		t.Fatalf("%v %v", all, err)
	}
	for _, bad := range []string{"x", "1", "2 0/1\n1 0/2", "0 0/1", "1 01", "1 0/1/2"} {
		if _, err := ParseHistory(bad); err == nil {
			t.Errorf("%q is a history", bad)
		}
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add("1\t0/3000060\tx\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := ParseHistory(text)
		for i := 1; err == nil && i < len(all); i++ {
			if all[i].Timeline <= all[i-1].Timeline {
				t.Fatal("out of order")
			}
		}
	})
}

// FuzzWALEnd: bytes of a torn disk never panic, never run for ever, and never put the end behind the data.
func FuzzWALEnd(f *testing.F) {
	f.Add(sampleLog(3)[:2*walPage], uint32(walLongHeader))
	f.Fuzz(func(t *testing.T, b []byte, from uint32) {
		const size = 1 << 20
		end, err := walEnd(func(number uint64) ([]byte, error) {
			if number != 0 {
				return nil, fs.ErrNotExist
			}
			return b, nil
		}, decide.LSN(from%size), size)
		if err == nil && (uint64(end) > size || end < decide.LSN(from%size)) {
			t.Fatalf("ends at %v", end)
		}
	})
}

// sampleLog is a segment with a number of records of 3000 bytes, over page boundaries.
func sampleLog(count int) []byte {
	le := binary.LittleEndian
	b := make([]byte, 1<<20)
	at, prev := 0, 0
	room := func(n int, data []byte) {
		for len(data) > 0 {
			if at%walPage == 0 {
				le.PutUint16(b[at:], walPageMagic)
				le.PutUint64(b[at+8:], uint64(at))
				if n != len(data) {
					le.PutUint16(b[at+2:], 1)
				}
				if at == 0 {
					at += walLongHeader
				} else {
					at += walPageHeader
				}
			}
			k := copy(b[at:(at/walPage+1)*walPage], data)
			data, at = data[k:], at+k
		}
	}
	for i := range count {
		r := make([]byte, 3000)
		le.PutUint32(r, uint32(len(r)))
		le.PutUint64(r[8:], uint64(prev))
		r[walRecordHead] = byte(i)
		le.PutUint32(r[20:], crc32.Update(crc32.Checksum(r[walRecordHead:], castagnoli), castagnoli, r[:20]))
		begin := at
		if at%walPage == 0 {
			begin += walPageHeader
			if at == 0 {
				begin = walLongHeader
			}
		}
		room(len(r), r)
		prev, at = begin, (at+7)&^7
	}
	return b
}

func TestWALEnd(t *testing.T) {
	log := sampleLog(10)
	read := func(number uint64) ([]byte, error) {
		if number != 0 {
			return nil, fs.ErrNotExist
		}
		return log, nil
	}
	end, err := walEnd(read, walLongHeader, 1<<20)
	want := decide.LSN(walLongHeader + 10*3000 + 3*walPageHeader) // three page boundaries are crossed
	if err != nil || end != want {
		t.Fatalf("%v, not %v, %v", end, want, err)
	}
	log[want-100] ^= 1 // the last record is torn
	if end, err := walEnd(read, walLongHeader, 1<<20); err != nil || end >= want || end < want-3100 {
		t.Fatalf("%v %v", end, err)
	}
}

func TestSettings(t *testing.T) {
	text, refused := Settings("# of the site\nwork_mem = 64MB\nshared_buffers='1GB' # a comment\nAutoVacuum on\nrandom_page_cost = 1.1\n"+
		"statement_timeout = 0\nlog_min_duration_statement = -1\nwork_mem = 32MB\ntimezone = 'Europe/Berlin'\n", 48*gib)
	want := "autovacuum = 'on'\nlog_min_duration_statement = '-1'\nrandom_page_cost = '1.1'\nshared_buffers = '1048576kB'\nstatement_timeout = '0ms'\n" +
		"timezone = 'Europe/Berlin'\nwork_mem = '32768kB'\n"
	if refused != nil || text != want {
		t.Fatalf("%v\n%s", refused, text)
	}
	for _, c := range []struct{ line, reason string }{
		{"fsync = off", "without it a power cut loses acknowledged rows"}, {"archive_command = 'x'", "there is no archive"},
		{"shared_preload_libraries = 'x'", "only libraries of the image"}, {"nonsense = 1", "is not a setting of the site"},
		{"synchronous_commit = off", "is one of on, remote_apply"}, {"work_mem = 64", "needs a unit"}, {"work_mem = 1kB", "is from 64kB"},
		{"checkpoint_timeout = 1h", "is from 30000ms to 900000ms"}, {"max_wal_size = 20GB", "is from 65536kB to 12582912kB"}, {"work_mem", "has no value"},
		{"work_mem = '64MB", "the quote is not closed"}, {"work_mem = '64MB' x", "something follows"}, {"= 3", "is not of the form"},
		{"include 'x'", "one file holds all settings"}, {"timezone = 'a\nb'", "the quote is not closed"}, {"random_page_cost = NaN", "is a number from"},
	} {
		_, refused := Settings("autovacuum = on\n"+c.line+"\n", 48*gib)
		if refused == nil || refused[0].Line != 2 || !strings.Contains(refused[0].Reason, c.reason) {
			t.Errorf("%q: %v", c.line, refused)
		}
	}
}

func FuzzSettings(f *testing.F) {
	f.Add("work_mem = 64MB\n")
	f.Fuzz(func(t *testing.T, text string) {
		out, refused := Settings(text, 48*gib)
		if refused != nil {
			return
		}
		again, refused := Settings(out, 48*gib)
		if refused != nil || again != out {
			t.Fatalf("%q became %q, and that %q %v", text, out, again, refused)
		}
	})
}

func TestRules(t *testing.T) {
	c := Config{Networks: []string{"192.0.2.1/32"}, Rules: []Rule{{[]string{"198.51.100.0/24"}, []string{"app"}, []string{"shop", "stock"}, "scram"}}}
	text, err := c.hba()
	want := "local all postgres peer map=duet\nhost replication duet_repl 192.0.2.1/32 scram-sha-256\nhost postgres duet_repl 192.0.2.1/32 scram-sha-256\n" +
		"host \"shop\",\"stock\" \"app\" 198.51.100.0/24 scram-sha-256\nhost all all all reject\nlocal all all reject\n"
	if err != nil || text != want {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, r := range []Rule{
		{[]string{"0.0.0.0/0"}, []string{"app"}, []string{"app"}, "trust"}, {[]string{"0.0.0.0/0"}, []string{"postgres"}, []string{"app"}, "scram"},
		{[]string{"0.0.0.0/0"}, []string{"duet_repl"}, []string{"app"}, "scram"}, {[]string{"0.0.0.0/0"}, []string{"a\nlocal"}, []string{"app"}, "scram"},
		{[]string{"0.0.0.0/0"}, []string{"+admins"}, []string{"app"}, "scram"}, {[]string{"0.0.0.0/0"}, []string{"all"}, []string{"app"}, "scram"},
	} {
		c.Rules = []Rule{r}
		if _, err := c.hba(); !errors.Is(err, ErrRule) {
			t.Errorf("%+v is let in", r)
		}
	}
}

// That a server takes it for the password is shown by every real test of this package; here only its form.
func TestVerifierForm(t *testing.T) {
	v, err := verifierWith("pencil", []byte("0123456789abcdef"))
	if err != nil || !regexp.MustCompile(`^SCRAM-SHA-256\$4096:[A-Za-z0-9+/=]{24}\$[A-Za-z0-9+/=]{44}:[A-Za-z0-9+/=]{44}$`).MatchString(v) {
		t.Fatalf("%s %v", v, err)
	}
	if text := fmt.Sprintf("%v %+v", Config{Secret: "hidden"}.Secret, site.Secret("hidden")); strings.Contains(text, "hidden") {
		t.Fatal(text)
	}
}

// What is marked is removed by the next try, what `current` leads to never is, and a switch is one rename.
func TestLayout(t *testing.T) {
	l := layout{root: t.TempDir()}
	one, err := l.fresh(markCreating)
	if err != nil || filepath.Base(one) != "main.1" {
		t.Fatalf("%s %v", one, err)
	}
	if err := errors.Join(os.Mkdir(one, 0o700), l.switchTo(one), l.unmark(one, markCreating)); err != nil {
		t.Fatal(err)
	}
	two, err := l.fresh(markUnfinished)
	if err != nil || l.active() != one {
		t.Fatalf("%s %v", l.active(), err)
	}
	if err := os.Mkdir(two, 0o700); err != nil {
		t.Fatal(err)
	}
	three, err := l.fresh(markUnfinished) // the try before was interrupted
	if err != nil || filepath.Base(three) != "main.3" && filepath.Base(three) != "main.2" {
		t.Fatalf("%s %v", three, err)
	}
	if _, err := os.Stat(two); err == nil && two != three {
		t.Fatal("an unfinished directory is kept")
	}
	if _, err := os.Stat(one); err != nil {
		t.Fatal("the active directory is gone")
	}
	if err := errors.Join(os.MkdirAll(three, 0o700), l.unmark(three, markUnfinished), l.switchTo(three)); err != nil || l.active() != three {
		t.Fatalf("%s %v", l.active(), err)
	}
}

func TestCopyDir(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	if err := errors.Join(os.MkdirAll(filepath.Join(from, "base", "1"), 0o700), os.WriteFile(filepath.Join(from, "base", "1", "x"), []byte("rows"), 0o600),
		os.WriteFile(filepath.Join(from, "postmaster.pid"), []byte("1"), 0o600), os.Symlink("../elsewhere", filepath.Join(from, "link"))); err != nil {
		t.Fatal(err)
	}
	var sum int64
	if err := copyDir(t.Context(), from, to, os.Getuid(), os.Getgid(), func(n int64) { sum += n }); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(to, "base", "1", "x"))
	link, _ := os.Readlink(filepath.Join(to, "link"))
	if err != nil || string(got) != "rows" || sum != 4 || link != "../elsewhere" {
		t.Fatalf("%q %q %d %v", got, link, sum, err)
	}
	if _, err := os.Stat(filepath.Join(to, "postmaster.pid")); err == nil {
		t.Fatal("the lock of another server was copied")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := copyDir(ctx, from, to+"2", os.Getuid(), os.Getgid(), func(int64) {}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
