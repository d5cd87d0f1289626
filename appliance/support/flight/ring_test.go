package flight

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"duet/appliance/membership"
)

func until(t *testing.T, what string, ready func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ready() {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
		<-tick.C
	}
}

// Every prefix of a file, as a power cut may leave it, opens: replay goes as far as the frames are whole, and the next
// duetd goes on behind them, in the same file, with the next number.
func TestEveryPrefixOfAFile(t *testing.T) {
	ts, _ := recorded(t)
	files, err := listSegments(ts.folder(membership.B))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, filepath.Base(files[0]))
	reached, last := map[uint64]bool{}, uint64(0)
	for cut := len(whole); cut >= 0; cut -= 1 + cut%29 {
		torn := append(append([]byte{}, whole[:cut]...), make([]byte, cut%3*512)...) // a file system may leave zeroes
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Replay(path, Options{})
		if cut < headerBytes && (errors.Is(err, ErrForeign) || cut > headerBytes-maxText) { // a header may end in zeroes
			continue
		}
		if err != nil || s.Differences != 0 {
			t.Fatalf("%d bytes: %+v %v", cut, s, err)
		}
		reached[s.Last], last = true, max(last, s.Last)
		r := ring{dir: dir, limit: DefaultLimit, open: openFile}
		if _, err := r.begin(); err != nil || s.Last != 0 && r.next != s.Last+1 {
			t.Fatalf("%d bytes: next %d after %d: %v", cut, r.next, s.Last, err)
		}
		r.drop()
	}
	if len(reached) < 20 || last < 100 {
		t.Errorf("%d ends, the last at %d: the cuts prove little", len(reached), last)
	}
}

// A bit that flips anywhere in the frames ends the file there; nothing is misread.
func TestDamage(t *testing.T) {
	ts, _ := recorded(t)
	files, err := listSegments(ts.folder(membership.A))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), filepath.Base(files[0]))
	for at := 0; at < len(whole); at += 41 {
		bad := bytes.Clone(whole)
		bad[at] ^= 1 << (at % 8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Replay(path, Options{})
		if at >= headerBytes && (err != nil || s.Differences != 0 || s.TornBytes == 0) || at < headerBytes && !errors.Is(err, ErrForeign) {
			t.Fatalf("byte %d: %+v %v", at, s, err)
		}
	}
}

// A recording of another build is refused by both names, and what this build recorded after it is replayed.
func TestAnotherBuildIsRefusedByName(t *testing.T) {
	ts, _ := recorded(t)
	dir := ts.folder(membership.A)
	files, err := listSegments(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[16] ^= 0xff
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[12:headerBytes], castagnoli))
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Replay(dir, Options{})
	var schema *SchemaError
	if !errors.As(err, &schema) || !strings.Contains(err.Error(), "recorded by schema "+schema.Schema.String()) ||
		!strings.Contains(err.Error(), "this build is "+ThisSchema.String()) {
		t.Fatalf("%v", err)
	}
	r := Start(ts.cfg[membership.A])
	p := newPair(func(n membership.Node, d decision) {
		if n == membership.A {
			r.Decided(d.before, d.in, d.after, d.effects)
		}
	})
	p.boot(membership.A)
	p.boot(membership.B)
	p.connect()
	p.found()
	finish(r)
	s, err := Replay(dir, Options{})
	if err != nil || !s.Equal || len(s.Refused) != 1 || s.Files != 1 || s.First < 100 {
		t.Errorf("%+v %v", s, err)
	}
}

// brittle is a disk that fails, or hangs, when it is told to.
type brittle struct {
	medium
	disk *disk
	path string
	kept int64 // bytes that a sync has confirmed
}

type disk struct {
	full    atomic.Bool
	sick    atomic.Bool
	forgets atomic.Bool // sick, and what was not synced is gone, as after a failed write-back of the page cache
	mu      sync.Mutex  // held: it hangs
	made    atomic.Int32
}

func (d *disk) open(path string, flag int) (medium, error) {
	if flag&os.O_CREATE != 0 && d.full.Load() {
		return nil, syscall.ENOSPC
	}
	d.made.Add(1)
	f, err := openFile(path, flag)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &brittle{f, d, path, st.Size()}, nil
}

// Write writes half when the disk is full, as write(2) does.
func (b *brittle) Write(p []byte) (int, error) {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	if b.disk.full.Load() {
		n, _ := b.medium.Write(p[:len(p)/2])
		return n, syscall.ENOSPC
	}
	return b.medium.Write(p)
}

func (b *brittle) Sync() error {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	if b.disk.forgets.Load() {
		return errors.Join(syscall.EIO, os.Truncate(b.path, b.kept))
	}
	if b.disk.sick.Load() {
		return syscall.EIO
	}
	if err := b.medium.Sync(); err != nil {
		return err
	}
	st, err := os.Stat(b.path)
	if err == nil {
		b.kept = st.Size()
	}
	return err
}

// A full or broken disk stops the recording with one fault; nobody waits; and when a new file can be made it goes on,
// says how many entries are missing, and replays on both sides of the gap.
func TestABrokenDiskIsOneFault(t *testing.T) {
	for name, fail := range map[string]func(*disk) *atomic.Bool{
		"full": func(d *disk) *atomic.Bool { return &d.full }, "sick": func(d *disk) *atomic.Bool { return &d.sick },
		"forgetful": func(d *disk) *atomic.Bool { return &d.forgets },
	} {
		t.Run(name, func(t *testing.T) {
			var d disk
			var broken, mended atomic.Int32
			dir := t.TempDir()
			r := Start(Config{
				Dir: dir, Limit: DefaultLimit, BootID: "x", Log: slog.New(slog.DiscardHandler), open: d.open, retry: time.Nanosecond,
				Broken: func(error) { broken.Add(1) }, Mended: func() { mended.Add(1) },
			})
			defer finish(r)
			var told atomic.Uint64
			p := newPair(func(n membership.Node, x decision) {
				if n == membership.A {
					r.Decided(x.before, x.in, x.after, x.effects)
					told.Add(1)
				}
			})
			p.boot(membership.A)
			p.boot(membership.B)
			p.connect()
			p.found()
			until(t, "the founding is recorded", func() bool { return r.Status().Sequence > told.Load() })
			fail(&d).Store(true)
			p.cut()
			until(t, "the fault", func() bool { return broken.Load() == 1 && !r.Status().Recording })
			p.pass(5 * second)
			fail(&d).Store(false)
			until(t, "the end of the fault", func() bool { p.pass(second); return mended.Load() == 1 })
			p.connect()
			p.pass(second)
			finish(r)
			if broken.Load() != 1 || !r.Status().Recording {
				t.Errorf("%d faults", broken.Load())
			}
			s, err := Replay(dir, Options{})
			if err != nil || s.Differences != 0 || s.Files < 2 {
				t.Errorf("told %d: %+v %v", told.Load(), s, err)
			}
			if all := s.Inputs + s.Lost; all < told.Load() || name != "forgetful" && all != told.Load() { // it may lose snapshots too
				t.Errorf("told %d, %d are there or counted: %+v", told.Load(), all, s)
			}
			if name != "sick" && (s.Gaps == 0 || s.Lost == 0) { // what only was not synced can still be read
				t.Errorf("nothing is missing: %+v", s)
			}
		})
	}
}

// A disk that is full when a file begins costs no file: each retry has a new name.
func TestAFullDiskLeavesNoEmptyFiles(t *testing.T) {
	r := ring{dir: t.TempDir(), limit: DefaultLimit, open: func(path string, flag int) (medium, error) {
		f, err := openFile(path, flag)
		d := &disk{}
		d.full.Store(true)
		return &brittle{medium: f, disk: d, path: path}, err
	}}
	for range 5 {
		if _, err := r.begin(); err != nil {
			t.Fatal(err)
		}
		if err := r.roll(); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		r.drop()
	}
	if files, err := listSegments(r.dir); err != nil || len(files) != 0 {
		t.Errorf("%v %v", files, err)
	}
}

// What is missing behind a failed sync is counted once, however often the next file cannot be made; the numbers go on.
func TestNumbersNeverGoBack(t *testing.T) {
	var d disk
	r := ring{dir: t.TempDir(), limit: DefaultLimit, open: d.open}
	begin := func(missing, next uint64) {
		t.Helper()
		if got, err := r.begin(); err != nil || got != missing || r.next != next {
			t.Fatalf("%d missing, next %d, wanted %d and %d: %v", got, r.next, missing, next, err)
		}
	}
	snap, err := appendSnapshot(nil, &Snapshot{BootID: "x", Now: 5})
	if err != nil {
		t.Fatal(err)
	}
	var fr framer
	write := func() {
		t.Helper()
		if err := r.append(fr.append(nil, r.next, 1, snap), 1); err != nil {
			t.Fatal(err)
		}
	}
	begin(0, 1)
	if err := r.roll(); err != nil {
		t.Fatal(err)
	}
	write()
	if err := r.sync(); err != nil {
		t.Fatal(err)
	}
	write()
	write()
	d.forgets.Store(true)
	if err := r.sync(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	d.forgets.Store(false)
	r.drop()
	begin(2, 4)
	d.full.Store(true)
	if err := r.roll(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	r.drop()
	begin(0, 4)
}

// Before the first decision nothing is in the ring, and people are told so.
func TestTheRingOfARecorderThatHasNotBegunIsEmpty(t *testing.T) {
	r := &Recorder{cfg: Config{Mended: func() {}}, log: slog.New(slog.DiscardHandler)}
	r.try(&tape{}, func() error { return nil }) // the tick of every second
	if s := r.Status(); s.Sequence != 0 {
		t.Errorf("%+v", s)
	}
}

// A disk that hangs does not hold the end of duetd; what it was given is written when it goes on, and then Done says so.
func TestCloseLeavesAHangingDiskToItself(t *testing.T) {
	var d disk
	dir := t.TempDir()
	r := Start(Config{
		Dir: dir, Limit: DefaultLimit, BootID: "x", Log: slog.New(slog.DiscardHandler), open: d.open,
		Broken: func(err error) { t.Error(err) }, Mended: func() {},
	})
	told := uint64(0)
	p := newPair(func(n membership.Node, x decision) {
		if n == membership.A {
			r.Decided(x.before, x.in, x.after, x.effects)
			told++
		}
	})
	p.boot(membership.A)
	until(t, "the boot is recorded", func() bool { return r.Status().Sequence > told })
	d.mu.Lock()
	p.boot(membership.B)
	p.connect()
	p.found()
	r.Close()
	select {
	case <-r.Done():
		t.Error("the disk hangs and everything is written")
	default:
	}
	d.mu.Unlock()
	<-r.Done()
	if s, err := Replay(dir, Options{}); err != nil || !s.Equal || s.Inputs != told || s.Lost != 0 {
		t.Errorf("told %d: %+v %v", told, s, err)
	}
}

// A disk that hangs costs entries and never time: Decided returns while nothing can be written, and what is missing is
// counted exactly.
func TestAHangingDiskCostsEntries(t *testing.T) {
	var d disk
	dir := t.TempDir()
	r := Start(Config{
		Dir: dir, Limit: DefaultLimit, BootID: "x", Log: slog.New(slog.DiscardHandler), open: d.open,
		Broken: func(err error) { t.Error(err) }, Mended: func() {},
	})
	told := uint64(0)
	p := newPair(func(n membership.Node, x decision) {
		if n == membership.A {
			r.Decided(x.before, x.in, x.after, x.effects)
			told++
		}
	})
	p.boot(membership.A)
	p.boot(membership.B)
	p.connect()
	p.found()
	until(t, "the founding is recorded", func() bool { return r.Status().Sequence > told })
	d.mu.Lock()
	for r.Status().Lost < 300 {
		p.pass(10 * second)
	}
	lost := r.Status().Lost
	d.mu.Unlock()
	until(t, "the queue is empty", func() bool { return len(r.queue) == 0 })
	p.pass(second)
	finish(r)
	s, err := Replay(dir, Options{})
	if err != nil || !s.Equal || s.Gaps == 0 || s.Lost < lost || s.Inputs+s.Lost != told || s.Lost != r.Status().Lost {
		t.Errorf("told %d, lost %d (%d): %+v %v", told, lost, r.Status().Lost, s, err)
	}
}

// What was left out before each of two entries is said once each, also when both wait for the same frame.
func TestTwoGapsInOneFrame(t *testing.T) {
	var made []decision
	p := newPair(func(n membership.Node, x decision) {
		if n == membership.A {
			made = append(made, x)
		}
	})
	p.boot(membership.A)
	p.boot(membership.B)
	p.connect()
	p.found()
	p.pass(20 * second)
	dir := t.TempDir()
	tape := &tape{ring: ring{dir: dir, limit: DefaultLimit, open: openFile}}
	calm := slices.IndexFunc(made, func(x decision) bool {
		return isBeat(x.in.Event) && x.before.Mode == x.after.Mode && x.before.Rec == x.after.Rec
	})
	for _, lost := range []uint64{5, 7} {
		x := made[calm]
		if err := tape.take(item{before: &x.before, lost: lost, in: x.in, after: x.after, effects: x.effects}); err != nil {
			t.Fatal(err)
		}
	}
	if len(tape.pending) == 0 {
		t.Fatal("they do not wait for the same frame")
	}
	if err := errors.Join(tape.flush(), tape.ring.file.Close()); err != nil {
		t.Fatal(err)
	}
	s, err := Replay(dir, Options{})
	if err != nil || s.Lost != 12 || s.Inputs != 2 {
		t.Errorf("%+v %v", s, err)
	}
}

// An input that the core could not take is on the disk before the panic goes on, and is the last entry. The core is total:
// no state and event was found that it does not take, so here replay does not meet the same end, and says so.
func TestAPanicOfTheCoreIsRecorded(t *testing.T) {
	dir := t.TempDir()
	r := Start(Config{Dir: dir, Limit: DefaultLimit, BootID: "x", Log: slog.New(slog.DiscardHandler), Broken: func(err error) { t.Error(err) }, Mended: func() {}})
	in := membership.Input{Now: 5, Fresh: 3, Event: membership.Want{Resource: 200}}
	r.Died(membership.State{Mode: membership.Solo}, in)
	finish(r)
	var last Moment
	sum, err := Replay(dir, Options{Each: func(m Moment) { last = m }})
	if err != nil || sum.Inputs != 1 || !last.Died || last.Input != in || !strings.Contains(last.Line(), "Step panicked") {
		t.Errorf("%+v %+v %v", sum, last, err)
	}
	if sum.Equal || !strings.Contains(sum.Difference, "Step panicked here: false, recorded: true") {
		t.Errorf("%+v", sum)
	}
}

// FuzzSegment: any file is read to its last whole frame, or refused.
func FuzzSegment(f *testing.F) {
	var fr framer
	head := header{schema: ThisSchema, first: 1, build: "x"}.append(nil)
	snap, err := appendSnapshot(nil, &Snapshot{BootID: "x", Now: 5})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(fr.append(head, 1, 1, snap))
	f.Add(head)
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "0000000000000001.flight")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := readSegment(path); err == nil && s.valid+s.torn != int64(len(b)) {
			t.Fatalf("%d + %d of %d bytes", s.valid, s.torn, len(b))
		}
		_, _ = Replay(path, Options{})
	})
}
