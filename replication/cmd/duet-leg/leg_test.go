package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"duet/replication/block"
	"duet/replication/block/crashdev"
	"duet/replication/meta"
	"duet/replication/pool"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMain lets this binary be the program: as another user, on a read-only mount, to be interrupted.
func TestMain(m *testing.M) {
	if os.Getenv("BE_DUET_LEG") == "" {
		os.Exit(m.Run())
	}
	if dir := os.Getenv("READ_ONLY_MOUNT"); dir != "" {
		err := errors.Join(
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount(dir, dir, "", unix.MS_BIND, ""),
			unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""),
		)
		if err == nil && !errors.Is(os.WriteFile(filepath.Join(dir, "x"), nil, 0o600), unix.EROFS) {
			err = errors.New("the mount can be written")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
	}
	if os.Getenv("AS_NOBODY") != "" {
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

func id(b byte) meta.ID { return meta.ID(bytes.Repeat([]byte{b}, 16)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func call(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	var out, errs bytes.Buffer
	status := run(t.Context(), args, &out, &errs)
	return status, out.String(), errs.String()
}

// newLeg is one that the pool made; nobody has it open.
func newLeg(t *testing.T, size int64) string {
	t.Helper()
	path := t.TempDir()
	d, err := pool.OpenDir(path)
	must(t, err)
	must(t, d.Create(t.Context(), pool.Spec{Site: id(1), Volume: id(2), Node: 1, SizeBytes: size, Software: "test"}, nil))
	must(t, d.Close())
	return filepath.Join(path, id(2).String())
}

// change writes into a file of a leg.
func change(t *testing.T, dir, name string, off int64, text []byte) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(text, off)
	must(t, errors.Join(err, f.Close()))
}

// flip changes one bit.
func flip(t *testing.T, dir, name string, off int64) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
	must(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], off)
	must(t, errors.Join(err, f.Close()))
}

// patch changes a byte of the superblock of a new leg, and its checksum.
func patch(t *testing.T, dir string, off int64, to byte) {
	t.Helper()
	all, err := os.ReadFile(filepath.Join(dir, metaName))
	must(t, err)
	slot := all[slotB:][:meta.BlockBytes]
	slot[off] = to
	clear(slot[8:12])
	binary.LittleEndian.PutUint32(slot[8:], meta.SumOf(slot))
	change(t, dir, metaName, slotB, slot)
}

const (
	slotB     = 0x100000
	groupZero = 0x800000
	groupSize = 0x1D000
)

func TestUsage(t *testing.T) {
	dir := newLeg(t, 8<<20)
	for _, test := range []struct {
		args   []string
		status int
		says   string
	}{
		{nil, 2, "duet-leg dump"},
		{[]string{"help"}, 0, "duet-leg dump"},
		{[]string{"dump", "-h"}, 0, "duet-leg dump"},
		{[]string{"repair", dir}, 2, "no such command"},
		{[]string{"dump"}, 2, "DIR is missing"},
		{[]string{"dump", dir, "more"}, 2, `"more" is too much`},
		{[]string{"dump", "--limit", "1", dir}, 2, "flag provided but not defined"},
		{[]string{"check", "--limit", "-1", dir}, 2, "--limit is negative"},
		{[]string{"dump", dir, "--json"}, 0, `"slots"`},
		{[]string{"check", "--json", dir, "--limit", "3"}, 0, `"complete": true`},
	} {
		status, out, errs := call(t, test.args...)
		if status != test.status || !strings.Contains(out+errs, test.says) {
			t.Errorf("%q: status %d, %s%s", test.args, status, out, errs)
		}
	}
}

// A leg as the pool makes it has nothing wrong, and all of its blocks are checked.
func TestANewLegIsFine(t *testing.T) {
	dir := newLeg(t, 9<<20)
	if status, out, errs := call(t, "dump", dir); status != 0 || errs != "" || !strings.Contains(out, "wrong: 0") {
		t.Errorf("dump: %d\n%s%s", status, out, errs)
	}
	var r checkReport
	status, out, errs := call(t, "check", "--json", dir)
	must(t, json.Unmarshal([]byte(out), &r))
	if status != 0 || errs != "" || !r.Complete || r.Blocks != 9<<8 || r.Checked != r.Blocks || r.Unknown+r.Bad != 0 || r.SumPages.Known != 3 {
		t.Errorf("check: %d, %s%s", status, out, errs)
	}
}

// TestKinds: each kind of damage has its name, its status, a why and a next step.
func TestKinds(t *testing.T) {
	type files struct{ dir, data, meta string }
	for _, test := range []struct {
		name         string
		do           func(t *testing.T, f files)
		dump, check  int
		kind, insist string // insist: what dump tells all the same
	}{
		{"no folder", func(t *testing.T, f files) { must(t, os.RemoveAll(f.dir)) }, 2, 2, "missing-file", ""},
		{"no meta", func(t *testing.T, f files) { must(t, os.Remove(f.meta)) }, 2, 2, "missing-file", ""},
		{"no data", func(t *testing.T, f files) { must(t, os.Remove(f.data)) }, 2, 2, "missing-file", "sum pages"},
		{"data is a folder", func(t *testing.T, f files) { must(t, errors.Join(os.Remove(f.data), os.Mkdir(f.data, 0o700))) }, 2, 2, "not-a-file", "sum pages"},
		{"data is a link", func(t *testing.T, f files) { must(t, errors.Join(os.Remove(f.data), os.Symlink(f.meta, f.data))) }, 2, 2, "not-a-file", "sum pages"},
		{"empty meta", func(t *testing.T, f files) { must(t, os.Truncate(f.meta, 0)) }, 2, 2, "meta-too-small", "damaged"},
		{"meta cut before its slot", func(t *testing.T, f files) { must(t, os.Truncate(f.meta, slotB)) }, 2, 2, "meta-too-small", "damaged"},
		{"meta cut behind its slots", func(t *testing.T, f files) { must(t, os.Truncate(f.meta, groupZero)) }, 2, 2, "meta-too-small", id(2).String()},
		{"meta of zeroes", func(t *testing.T, f files) { change(t, f.dir, metaName, 0, make([]byte, groupZero)) }, 2, 2, "unformatted", "empty"},
		{"foreign", func(t *testing.T, f files) { change(t, f.dir, metaName, slotB, []byte("XFSB")) }, 2, 2, "foreign", `magic "XFSBLEG`},
		{"damaged superblock", func(t *testing.T, f files) { flip(t, f.dir, metaName, slotB+100) }, 2, 2, "no-superblock", "checksum does not match"},
		{"swapped", func(t *testing.T, f files) {
			must(t, errors.Join(os.Rename(f.data, f.data+"x"), os.Rename(f.meta, f.data), os.Rename(f.data+"x", f.meta)))
		}, 2, 2, "swapped-files", ""},
		{"data cut", func(t *testing.T, f files) { must(t, os.Truncate(f.data, 5<<20)) }, 1, 1, "data-too-small", ""},
		{"data cut within a block", func(t *testing.T, f files) { must(t, os.Truncate(f.data, 5<<20+77)) }, 1, 1, "odd-size", ""},
		{"meta with a tail", func(t *testing.T, f files) { must(t, os.Truncate(f.meta, meta.SizeFor(9<<20)+1)) }, 1, 1, "odd-size", ""},
		{"lost log", func(t *testing.T, f files) { patch(t, f.dir, 82, byte(meta.FlagZeroed|meta.FlagLogLost)) }, 1, 1, "log-lost", "hot extents  all"},
		{"map page", func(t *testing.T, f files) { flip(t, f.dir, metaName, groupZero+200) }, 1, 1, "map-page-invalid", "checksum"},
		{"sum page", func(t *testing.T, f files) { flip(t, f.dir, metaName, groupZero+2*meta.BlockBytes+9) }, 1, 1, "sum-page-lost", "lost for extents"},
		{"a slot that tore", func(t *testing.T, f files) { change(t, f.dir, metaName, 0, []byte("DUETLEG\x00 torn")) }, 1, 1, "slot-damaged", "checksum does not match"},
		{"data", func(t *testing.T, f files) { flip(t, f.dir, dataName, 5<<20) }, 0, 1, "bad-blocks", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := files{dir: newLeg(t, 9<<20)}
			f.data, f.meta = filepath.Join(f.dir, dataName), filepath.Join(f.dir, metaName)
			test.do(t, f)
			before := fingerprint(t, f.dir)
			for _, verb := range []string{"dump", "check"} {
				want := map[string]int{"dump": test.dump, "check": test.check}[verb]
				status, out, errs := call(t, verb, f.dir)
				if status != want {
					t.Errorf("%s: status %d, want %d\n%s%s", verb, status, want, out, errs)
				}
				if want != 0 && (!strings.Contains(out+errs, test.kind) || !strings.Contains(out+errs, "why:") || !strings.Contains(out+errs, "next:")) {
					t.Errorf("%s: %s%s", verb, out, errs)
				}
				if verb == "dump" && !strings.Contains(out, test.insist) {
					t.Errorf("dump tells too little:\n%s%s", out, errs)
				}
				_, out, _ = call(t, verb, "--json", f.dir)
				var r struct {
					Problems []problem
					Error    *problem
				}
				must(t, json.Unmarshal([]byte(out), &r))
				found := want == 0 && len(r.Problems) == 0
				for _, p := range r.Problems {
					found = found || want == 1 && p.Kind == test.kind
				}
				if !found && !(want == 2 && r.Error != nil && r.Error.Kind == test.kind) {
					t.Errorf("%s --json: %s", verb, out)
				}
			}
			if after := fingerprint(t, f.dir); after != before {
				t.Errorf("it was changed: %s, was %s", after, before)
			}
		})
	}
}

// Blocks beyond the end of data are bad, without a line for each; those before it are checked.
func TestACutDataFile(t *testing.T) {
	dir := newLeg(t, 9<<20)
	must(t, os.Truncate(filepath.Join(dir, dataName), 5<<20+77))
	var r checkReport
	_, out, _ := call(t, "check", "--json", dir)
	must(t, json.Unmarshal([]byte(out), &r))
	if r.Missing != 4<<8 || r.Bad != r.Missing || r.Checked != 5<<8 || len(r.BadBlocks)+int(r.NotListed) != 0 || !r.Complete {
		t.Error(out)
	}
}

// A leg in the folder of another volume.
func TestTheFolderOfAnotherVolume(t *testing.T) {
	dir := newLeg(t, 8<<20)
	other := filepath.Join(filepath.Dir(dir), id(3).String())
	must(t, os.Rename(dir, other))
	if status, out, _ := call(t, "dump", other); status != 1 || !strings.Contains(out, "other-volume") {
		t.Errorf("%d\n%s", status, out)
	}
}

// What another release wrote is refused, and what can be told of it is told.
func TestOtherReleases(t *testing.T) {
	for _, test := range []struct {
		off  int64
		bit  byte
		kind string
		says string
	}{
		{12, 2, "newer-format", "format 2.0"},
		{26, 1, "unknown-feature", "features 0x10000"},
	} {
		dir := newLeg(t, 8<<20)
		patch(t, dir, test.off, test.bit)
		status, out, errs := call(t, "dump", dir)
		if status != 2 || !strings.Contains(errs, test.kind) || !strings.Contains(out, test.says) {
			t.Errorf("%s: %d\n%s%s", test.kind, status, out, errs)
		}
	}
}

// Who has it open is named, and a leg that is read is not opened by a daemon.
func TestInUse(t *testing.T) {
	dir := newLeg(t, 8<<20)
	for _, name := range []string{dataName, metaName} {
		f, err := block.OpenFile(filepath.Join(dir, name))
		must(t, err)
		for _, verb := range []string{"dump", "check"} {
			status, out, errs := call(t, verb, dir)
			if status != 2 || !strings.Contains(errs, "in-use") || !strings.Contains(errs, "duet-mirrord") || !strings.Contains(errs, name+" open") {
				t.Errorf("%s, %s open: %d\n%s%s", verb, name, status, out, errs)
			}
			if _, err := os.Stat("/proc/locks"); err == nil && !strings.Contains(errs, fmt.Sprintf("(process %d)", os.Getpid())) {
				t.Errorf("who has it open is not told: %s", errs)
			}
			if strings.Contains(out, "superblock") {
				t.Errorf("it tells of a leg that changes:\n%s", out)
			}
		}
		must(t, f.Close())
	}
	l, failure := openLeg(dir)
	if failure != nil {
		t.Fatal(failure)
	}
	defer l.Close()
	for _, name := range []string{dataName, metaName} {
		if _, err := block.OpenFile(filepath.Join(dir, name)); !errors.Is(err, block.ErrLocked) {
			t.Errorf("a daemon opens %s meanwhile: %v", name, err)
		}
	}
	if status, _, errs := call(t, "check", dir); status != 0 {
		t.Errorf("a second reader: %d, %s", status, errs)
	}
}

// fingerprint is all that a leg is: bytes, sizes, times, modes and names.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	names, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return "none"
	}
	must(t, err)
	var text strings.Builder
	for _, n := range names {
		path := filepath.Join(dir, n.Name())
		sum := []byte("no file")
		if n.Type().IsRegular() {
			f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOATIME, 0)
			must(t, err)
			h := sha256.New()
			_, err = io.Copy(h, f)
			must(t, errors.Join(err, f.Close()))
			sum = h.Sum(nil)
		}
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		fmt.Fprintf(&text, "%s %x %d %o %v %v %v %d\n", n.Name(), sum, st.Size, st.Mode, st.Atim, st.Mtim, st.Ctim, st.Blocks)
	}
	var st unix.Stat_t
	must(t, unix.Stat(dir, &st))
	fmt.Fprintf(&text, "%v %v", st.Mtim, st.Ctim)
	return text.String()
}

// process runs the program as a process.
func process(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), "BE_DUET_LEG=1"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Nothing is written where nothing can be: files and folder without write permission, and a read-only mount.
func TestReadOnly(t *testing.T) {
	dir := newLeg(t, 9<<20)
	flip(t, dir, dataName, 5<<20)
	flip(t, dir, metaName, groupZero+200)
	must(t, errors.Join(os.Chmod(filepath.Join(dir, dataName), 0o444), os.Chmod(filepath.Join(dir, metaName), 0o444), os.Chmod(dir, 0o555)))
	for d := filepath.Dir(dir); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	before := fingerprint(t, dir)
	root := os.Getuid() == 0
	for _, way := range []struct {
		env  string
		flag uintptr
		skip bool
	}{
		{"NOTHING=1", 0, false},
		{"AS_NOBODY=1", 0, !root},
		{"READ_ONLY_MOUNT=" + dir, syscall.CLONE_NEWNS, !root},
	} {
		if way.skip {
			t.Log("only root can do", way.env)
			continue
		}
		for _, verb := range []string{"dump", "check"} {
			cmd := process(t, []string{way.env}, verb, dir)
			cmd.SysProcAttr.Cloneflags = way.flag
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "map-page-invalid") {
				t.Errorf("%s %s: %v\n%s", way.env, verb, err, out)
			}
		}
		if way.env != "AS_NOBODY=1" { // who does not own a file cannot keep its access time
			if after := fingerprint(t, dir); after != before {
				t.Errorf("%s: it was changed: %s, was %s", way.env, after, before)
			}
		}
		before = fingerprint(t, dir)
	}
}

// fixedLeg is a leg that is the same each time: in use when the power went, with everything in its superblock, a damaged map
// page, a damaged sum page and two bad blocks.
func fixedLeg(t *testing.T, dir string) {
	t.Helper()
	const size = 30 * meta.ExtentBytes // two groups
	md, data := crashdev.New(meta.SizeFor(size)), crashdev.New(size)
	must(t, meta.Format(md, meta.Superblock{
		Site: id(0xa1), Volume: id(0xa2), Leg: id(0xa3), Node: 1, Flags: meta.FlagZeroed, VolumeBytes: size, DataBytes: size, Software: "duet 0.1.0",
	}))
	m, err := meta.Open(md)
	must(t, err)
	must(t, m.Change(func(s *meta.Superblock) {
		s.State, s.Flags = meta.Outdated, s.Flags|meta.FlagOpen
		s.GrantEpoch, s.Legs, s.Owner, s.LegsVersion = 17, 3, 1, 4
		for g := range uint64(3) {
			s.Push(meta.Generation{Epoch: 10 + g, Nonce: 0xb0 + g})
		}
		s.SyncSource, s.ResyncCursor, s.ResyncID, s.ResyncFlags = meta.Generation{Epoch: 9, Nonce: 0xc0}, 5, 6, meta.ResyncByDigest|meta.ResyncUnconfirmed
		s.OtherLeg, s.ProofRoot, s.ProofEpoch, s.ProofTime = id(0xa4), id(0xa5), 16, 1700000000
		s.UncleanOpens, s.Boot = 2, id(0xa6)
		s.ReadErrors, s.SumErrors, s.WriteErrors, s.SyncErrors = 1, 2, 3, 4
		s.ReasonCode, s.ReasonText = 2021, "write failed\x1b[2J: I/O error"
		s.AddDamaged(3*meta.BlocksPerExtent+2, 0xd4a5bd83)
		s.AddDamaged(3*meta.BlocksPerExtent+3, meta.SumUnknown)
	}))
	must(t, m.StartLog(data, nil))
	buf := block.Alloc(meta.BlockBytes)
	for _, e := range []int64{3, 20} {
		must(t, m.Begin(e, e))
		buf[0] = byte(e)
		must(t, data.WriteAt(buf, e*meta.ExtentBytes, block.Durable))
		m.SetSums(e*meta.BlocksPerExtent, []uint32{meta.SumOf(buf)})
		m.End(e, e)
	}
	m.Dirty().Set(7, 5)
	must(t, m.StoreDirty(0))
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, dataName), nil, 0o600))
	must(t, os.Truncate(filepath.Join(dir, dataName), size))
	must(t, os.WriteFile(filepath.Join(dir, metaName), md.CutPick(func(crashdev.Pending) bool { return true }).Contents(), 0o600))
	flip(t, dir, dataName, 9*meta.ExtentBytes+4096+5)
	flip(t, dir, dataName, 10*meta.ExtentBytes)
	flip(t, dir, metaName, groupZero+groupSize+77)          // map page of group 1
	flip(t, dir, metaName, groupZero+meta.BlockBytes*(1+5)) // sum page of extent 5
}

// TestGolden: what dump and check print is for ever, --json above all.
func TestGolden(t *testing.T) {
	dir := t.TempDir()
	fixedLeg(t, filepath.Join(dir, "leg"))
	here, err := os.Getwd()
	must(t, err)
	t.Chdir(dir)
	for name, args := range map[string][]string{
		"dump.txt": {"dump", "leg"}, "dump.json": {"dump", "--json", "leg"},
		"check.txt": {"check", "--limit", "1", "leg"}, "check.json": {"check", "--json", "leg"},
	} {
		path := filepath.Join(here, "testdata", name)
		status, got, errs := call(t, args...)
		if status != 1 || errs != "" {
			t.Errorf("%q: %d, %s", args, status, errs)
		}
		if *update {
			must(t, os.WriteFile(path, []byte(got), 0o644))
		}
		want, err := os.ReadFile(path)
		must(t, err)
		if got != string(want) {
			t.Errorf("%q differs from %s:\n%s", args, path, got)
		}
	}
}

// No false alarm: after a power cut at any moment, and after a clean end, no block of a leg is bad and no sum page is lost.
func TestACrashedLegIsFine(t *testing.T) {
	const extents = 40
	checked, suspended := int64(0), int64(0)
	for seed := range uint64(24) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			md, data := crashdev.New(meta.SizeFor(extents*meta.ExtentBytes)), crashdev.New(extents*meta.ExtentBytes)
			must(t, meta.Format(md, meta.Superblock{
				Site: id(1), Volume: id(2), Flags: meta.FlagZeroed, VolumeBytes: extents * meta.ExtentBytes, LogSlots: 64,
			}))
			m, err := meta.Open(md)
			must(t, err)
			must(t, m.Change(func(s *meta.Superblock) { s.Flags |= meta.FlagOpen }))
			must(t, m.StartLog(data, nil))
			buf := block.Alloc(meta.BlockBytes)
			for range 60 {
				b := rnd.Int64N(extents * meta.BlocksPerExtent)
				buf[0] = byte(rnd.Uint32())
				must(t, m.Begin(b/meta.BlocksPerExtent, b/meta.BlocksPerExtent))
				must(t, data.WriteAt(buf, b*meta.BlockBytes, block.Cached))
				m.SetSums(b, []uint32{meta.SumOf(buf)})
				m.End(b/meta.BlocksPerExtent, b/meta.BlocksPerExtent)
				if rnd.IntN(8) == 0 {
					m.Cool()
				}
			}
			if seed%4 == 0 {
				must(t, m.CloseLog())
			}
			// Meta first: an extent that leaves the log in between is hot in what was cut.
			md, data = md.Cut(seed), data.Cut(seed)
			r := check(t.Context(), &leg{dir: ".", meta: md, data: data}, nil, limitDefault, newProgress(io.Discard, false))
			if len(r.Problems) > 0 || r.Error != nil || r.Bad != 0 || r.Checked+r.Unknown != r.Blocks {
				t.Errorf("%+v", r)
			}
			checked, suspended = checked+r.Checked, suspended+r.SumPages.Suspended
			if seed < 3 {
				dir := filepath.Join(t.TempDir(), "leg")
				must(t, os.Mkdir(dir, 0o700))
				must(t, os.WriteFile(filepath.Join(dir, metaName), md.Contents(), 0o600))
				must(t, os.WriteFile(filepath.Join(dir, dataName), data.Contents(), 0o600))
				if status, out, errs := call(t, "check", dir); status != 0 {
					t.Errorf("as files: %d\n%s%s", status, out, errs)
				}
			}
		})
	}
	if checked == 0 || suspended == 0 {
		t.Errorf("nothing was seen: %d blocks checked, %d sum pages suspended", checked, suspended)
	}
}

// failing is data of which some blocks cannot be read.
type failing struct {
	block.Source
	bad   map[int64]bool
	reads int
	after func(reads int)
}

func (f *failing) ReadAt(p []byte, off int64) error {
	f.reads++
	if f.after != nil {
		f.after(f.reads)
	}
	for b := range f.bad {
		if off <= b*meta.BlockBytes && b*meta.BlockBytes < off+int64(len(p)) {
			return fmt.Errorf("read data at %d: %w", off, unix.EIO)
		}
	}
	return f.Source.ReadAt(p, off)
}

// A block that cannot be read is bad and takes no other one with it; all are counted, and as many are listed as was asked for.
func TestUnreadableBlocks(t *testing.T) {
	l, failure := openLeg(newLeg(t, 9<<20))
	if failure != nil {
		t.Fatal(failure)
	}
	defer l.Close()
	l.data = &failing{Source: l.data, bad: map[int64]bool{0: true, 300: true, 9<<8 - 1: true}}
	r := check(t.Context(), l, nil, 2, newProgress(io.Discard, false))
	want := []badBlock{{0, 0, whyUnreadable, "input/output error"}, {300, 300 * 4096, whyUnreadable, "input/output error"}}
	if r.Unreadable != 3 || r.Bad != 3 || r.Checked != 9<<8-3 || r.NotListed != 1 || len(r.BadBlocks) != 2 || r.BadBlocks[0] != want[0] || r.BadBlocks[1] != want[1] {
		t.Errorf("%+v", r)
	}
	var text bytes.Buffer
	must(t, r.print(&text))
	if !strings.Contains(text.String(), "block 300 at byte 1228800: unreadable: input/output error\n1 more bad blocks are not listed (--limit 2)\n") {
		t.Error(text.String())
	}
}

// A check that is stopped tells what it has found, and that it is not all.
func TestCancel(t *testing.T) {
	dir := newLeg(t, 9<<20)
	l, failure := openLeg(dir)
	if failure != nil {
		t.Fatal(failure)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	l.data = &failing{Source: l.data, bad: map[int64]bool{1: true}, after: func(reads int) {
		if reads == 5 { // among the blocks of the first piece
			cancel()
		}
	}}
	r := check(ctx, l, nil, limitDefault, newProgress(io.Discard, false))
	if r.Complete || r.Error == nil || r.Error.Kind != "cancelled" || r.Checked != 3 || r.Bad != 1 {
		t.Errorf("%+v", r)
	}
	var out, errs bytes.Buffer
	if status := run(ctx, []string{"check", dir}, &out, &errs); status != 2 || !strings.Contains(out.String(), "incomplete") {
		t.Errorf("%d\n%s%s", status, &out, &errs)
	}
	if status := run(ctx, []string{"dump", dir}, &out, &errs); status != 2 || !strings.Contains(errs.String(), "cancelled") {
		t.Errorf("%d\n%s%s", status, &out, &errs)
	}
}

// Progress once a second, with a rate; nothing unless it is asked for or there is a terminal.
func TestProgress(t *testing.T) {
	if _, _, errs := call(t, "check", newLeg(t, 8<<20)); errs != "" {
		t.Errorf("told unasked: %s", errs)
	}
	if _, _, errs := call(t, "check", "--progress", newLeg(t, 8<<20)); !strings.Contains(errs, "8388608 of 8388608 bytes, 100 %") {
		t.Errorf("not told: %s", errs)
	}
	var out bytes.Buffer
	now := time.Unix(0, 0)
	p := newProgress(&out, true)
	p.now = func() time.Time { return now }
	for done := int64(0); done <= 4<<20; done += 1 << 20 {
		p.at(done, 8<<20)
		now = now.Add(500 * time.Millisecond)
	}
	if want := "2097152 of 8388608 bytes, 25 %, 2 MiB/s\n4194304 of 8388608 bytes, 50 %, 2 MiB/s\n"; out.String() != want {
		t.Errorf("got %q", out.String())
	}
	out.Reset()
	p.terminal = true
	p.end(8 << 20)
	if !strings.HasPrefix(out.String(), "\r8388608 of 8388608 bytes, 100 %") || !strings.HasSuffix(out.String(), "\x1b[K\n") {
		t.Errorf("%q", out.String())
	}
}
