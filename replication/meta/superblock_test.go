package meta

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"reflect"
	"strings"
	"testing"

	"duet/replication/block"
	"duet/replication/block/crashdev"
)

var update = flag.Bool("update", false, "write the golden files anew")

const testVolumeBytes = 300 << 20 // 75 extents, 3 groups, the last short

func id(b byte) ID { return ID(bytes.Repeat([]byte{b}, 16)) }

// full has every field set to something of its own.
func full() Superblock {
	s := Superblock{
		Site: id(0xa1), Volume: id(0xa2), Leg: id(0xa3), Node: 1, State: Inconsistent, Flags: FlagOpen | FlagZeroed,
		VolumeBytes: testVolumeBytes, DataBytes: testVolumeBytes + 4096,
		GrantEpoch: 0x1112131415161718, Legs: 3, Owner: 1,
		Current: Generation{0x21, 0x2223242526272829}, Base: Generation{0x31, 0x3233}, SyncSource: Generation{0x41, 0x4243},
		ResyncCursor: 0x5152, ResyncID: 0x61, ResyncFlags: ResyncByDigest | ResyncUnconfirmed,
		OtherLeg: id(0xa4), ProofRoot: id(0xa5), ProofEpoch: 0x71, ProofTime: 0x72,
		UncleanOpens: 0x73, LegsVersion: 0x74, Boot: id(0xa6), Software: "duet 0.1.0",
		ReadErrors: 0x81, SumErrors: 0x82, WriteErrors: 0x83, SyncErrors: 0x84,
		ReasonCode: 5012, ReasonText: "cable pulled",
	}
	for i := range uint64(HistoryMax) {
		s.History = append(s.History, Generation{0x100 + i, 0x200 + i})
	}
	if err := s.fill(); err != nil {
		panic(err)
	}
	s.Sequence = 0x0102030405060708
	s.LogFirst = 0x91
	return s
}

// The bytes of format 1 are for ever: every later release opens this file.
func TestGoldenSuperblock(t *testing.T) {
	s := full()
	const path = "testdata/superblock-v1.hex"
	got := hex.Dump(encode(&s))
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Fatalf("superblock differs from %s:\n%s", path, got)
	}
	back, err := decode(encode(&s), 0)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*back, s) {
		t.Fatalf("read back\n%+v, wrote\n%+v", *back, s)
	}
}

// TestOffsets compares with the table of replication.md section 4, written down a second time.
func TestOffsets(t *testing.T) {
	s := full()
	p := encode(&s)
	le := binary.LittleEndian
	num := func(off, size int) uint64 {
		var b [8]byte
		copy(b[:], p[off:off+size])
		return le.Uint64(b[:])
	}
	for _, c := range []struct {
		off, size int
		want      uint64
	}{
		{12, 2, 1},
		{14, 2, 0},
		{16, 8, 0x0102030405060708},
		{24, 4, 0},
		{28, 4, 0},
		{80, 1, 1},
		{81, 1, 3},
		{82, 2, 3},
		{84, 4, 4096},
		{88, 4, 1024},
		{92, 4, 28},
		{96, 8, testVolumeBytes},
		{104, 8, testVolumeBytes},
		{112, 8, testVolumeBytes + 4096},
		{120, 8, 0x200000},
		{128, 4, 256},
		{132, 4, 256},
		{136, 8, 0x91},
		{144, 8, 0x800000},
		{152, 8, 3},
		{160, 8, 0x1112131415161718},
		{168, 1, 3},
		{169, 1, 1},
		{176, 8, 0x21},
		{184, 8, 0x2223242526272829},
		{192, 8, 0x31},
		{200, 8, 0x3233},
		{208, 8, 0x41},
		{216, 8, 0x4243},
		{224, 8, 0x5152},
		{232, 4, 0x61},
		{236, 4, 3},
		{272, 8, 0x71},
		{280, 8, 0x72},
		{288, 4, 0x73},
		{292, 4, 16},
		{296, 8, 0x74},
		{320, 8, 0x100},
		{328, 8, 0x200},
		{560, 8, 0x10f},
		{568, 8, 0x20f},
		{624, 4, 0x81},
		{628, 4, 0x82},
		{632, 4, 0x83},
		{636, 4, 0x84},
		{640, 4, 5012},
	} {
		if got := num(c.off, c.size); got != c.want {
			t.Errorf("offset %d: %#x, want %#x", c.off, got, c.want)
		}
	}
	for off, want := range map[int]string{
		0: "DUETLEG\x00", 32: strings.Repeat("\xa1", 16), 48: strings.Repeat("\xa2", 16), 64: strings.Repeat("\xa3", 16),
		170: "\x00\x00\x00\x00\x00\x00", 240: strings.Repeat("\xa4", 16), 256: strings.Repeat("\xa5", 16),
		304: strings.Repeat("\x00", 16), 576: strings.Repeat("\xa6", 16), 592: "duet 0.1.0\x00", 644: "cable pulled\x00",
		768: strings.Repeat("\x00", 4096-768),
	} {
		if got := string(p[off : off+len(want)]); got != want {
			t.Errorf("offset %d: %q, want %q", off, got, want)
		}
	}
	crc := le.Uint32(p[8:])
	le.PutUint32(p[8:], 0)
	if sum := crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)); sum != crc {
		t.Errorf("CRC %#x, want %#x", crc, sum)
	}
}

func TestSizes(t *testing.T) {
	for volume, want := range map[int64]int64{
		4096:        0x800000 + 0x1D000,
		112 << 20:   0x800000 + 0x1D000,
		112<<20 + 1: 0x800000 + 2*0x1D000,
		1 << 40:     0x800000 + 9363*0x1D000,
	} {
		if got := SizeFor(volume); got != want {
			t.Errorf("SizeFor(%d) = %#x, want %#x", volume, got, want)
		}
	}
	if got := crc32.Checksum(make([]byte, BlockBytes), castagnoli); got != zeroSum {
		t.Errorf("sum of a zero block is %#x", got)
	}
	if got := offExtents + ExtentsPerGroup*extentRecord; got != BlockBytes {
		t.Errorf("a map page has %d bytes", got)
	}
}

// formatted makes a device with a fresh leg.
func formatted(t testing.TB) *crashdev.Device {
	t.Helper()
	dev := crashdev.New(SizeFor(testVolumeBytes))
	if err := Format(dev, Superblock{Site: id(1), Volume: id(2), VolumeBytes: testVolumeBytes}); err != nil {
		t.Fatal(err)
	}
	return dev
}

func open(t testing.TB, dev block.Device) *Meta {
	t.Helper()
	m, err := Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestFormatThenOpen(t *testing.T) {
	dev := formatted(t)
	m := open(t, dev.CutPick(func(crashdev.Pending) bool { return false })) // all of it is durable
	s := m.Super()
	if s.State != New || s.Leg.IsZero() || s.Incompatible != 0 || s.Groups != 3 || m.Unclean() ||
		m.ReadOnly() || m.BadPages() != 0 || m.Dirty().Count() != 0 || m.Dirty().Blocks() != testVolumeBytes/4096 {
		t.Fatalf("%+v", s)
	}
	if err := Format(dev, s); !errors.Is(err, ErrFormatted) {
		t.Fatalf("formatted twice: %v", err)
	}
	other := open(t, formatted(t)).Super()
	if other.Leg == s.Leg {
		t.Fatal("two legs with one id")
	}
}

func TestFormatRefuses(t *testing.T) {
	good := Superblock{Site: id(1), Volume: id(2), VolumeBytes: 1 << 20}
	for name, c := range map[string]struct {
		change func(*Superblock)
		size   int64
	}{
		"no volume id":  {func(s *Superblock) { s.Volume = ID{} }, SizeFor(1 << 20)},
		"odd size":      {func(s *Superblock) { s.VolumeBytes = 4097 }, SizeFor(1 << 20)},
		"no size":       {func(s *Superblock) { s.VolumeBytes = 0 }, SizeFor(1 << 20)},
		"third node":    {func(s *Superblock) { s.Node = 2 }, SizeFor(1 << 20)},
		"huge":          {func(s *Superblock) { s.VolumeBytes = 1 << 63 }, SizeFor(1 << 20)},
		"small meta":    {func(*Superblock) {}, SizeFor(1<<20) - 4096},
		"state unknown": {func(s *Superblock) { s.State = 7 }, SizeFor(1 << 20)},
		"software":      {func(s *Superblock) { s.Software = strings.Repeat("x", 33) }, SizeFor(1 << 20)},
	} {
		s := good
		c.change(&s)
		dev := crashdev.New(c.size)
		if err := Format(dev, s); err == nil {
			t.Errorf("%s: formatted", name)
		}
		if _, err := Open(dev); !errors.Is(err, ErrUnformatted) {
			t.Errorf("%s: something was written: %v", name, err)
		}
	}
}

// patch writes a superblock with a change that only another release would make.
func patch(t *testing.T, dev block.Device, change func(*Superblock)) {
	t.Helper()
	s, err := readSlots(dev)
	if err != nil {
		t.Fatal(err)
	}
	change(s)
	s.Sequence++
	if err := writeSlot(dev, s); err != nil {
		t.Fatal(err)
	}
}

func scribble(t *testing.T, dev block.Device, off int64, text string) {
	t.Helper()
	p := block.Alloc(block.Unit)
	copy(p, text)
	if err := dev.WriteAt(p, off, block.Durable); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, d block.Device)
		want  error
	}{
		"foreign": {func(t *testing.T, d block.Device) {
			scribble(t, d, 0, "XFSB")
			scribble(t, d, slotDistance, "XFSB")
		}, ErrForeign},
		"empty": {func(t *testing.T, d block.Device) { scribble(t, d, slotDistance, "") }, ErrUnformatted},
		"damaged": {func(t *testing.T, d block.Device) {
			scribble(t, d, slotDistance, superMagic)
		}, ErrNoSuperblock},
		"newer major": {func(t *testing.T, d block.Device) {
			patch(t, d, func(s *Superblock) { s.FormatMajor = 2 })
		}, ErrNewerFormat},
		"major zero": {func(t *testing.T, d block.Device) {
			patch(t, d, func(s *Superblock) { s.FormatMajor = 0 })
		}, ErrNewerFormat},
		"unknown feature": {func(t *testing.T, d block.Device) {
			patch(t, d, func(s *Superblock) { s.Incompatible |= 1 << 31 })
		}, ErrUnknownFeature},
		"no activity log": {func(t *testing.T, d block.Device) {
			patch(t, d, func(s *Superblock) { s.Incompatible = FeatureNoActivityLog })
		}, ErrUnknownFeature},
		"no sums": {func(t *testing.T, d block.Device) {
			patch(t, d, func(s *Superblock) { s.Incompatible = FeatureNoSums })
		}, ErrUnknownFeature},
		"more groups than room": {func(t *testing.T, d block.Device) {
			patch(t, d, func(s *Superblock) { s.MetaBytes += 112 << 20; s.Groups++ })
		}, ErrSize},
		"nonsense inside": {func(t *testing.T, d block.Device) {
			patch(t, d, func(s *Superblock) { s.State = 9 })
		}, ErrNoSuperblock},
	} {
		dev := formatted(t)
		c.spoil(t, dev)
		if m, err := Open(dev); !errors.Is(err, c.want) {
			t.Errorf("%s: %v %v, want %v", name, m, err, c.want)
		}
	}
}

// A newer minor version is read; its unknown read-only-compatible feature makes the leg read-only.
func TestCompatibleNewer(t *testing.T) {
	dev := formatted(t)
	patch(t, dev, func(s *Superblock) { s.FormatMinor = 7; s.ReadOnlyCompatible = 4 })
	m := open(t, dev)
	if !m.ReadOnly() {
		t.Fatal("not read-only")
	}
	before := dev.Contents()
	if err := m.Change(func(*Superblock) {}); !errors.Is(err, ErrReadOnly) {
		t.Fatal(err)
	}
	if err := m.StoreDirty(0); !errors.Is(err, ErrReadOnly) {
		t.Fatal(err)
	}
	if !bytes.Equal(before, dev.Contents()) {
		t.Fatal("written")
	}
}

func TestChangeAlternatesAndKeeps(t *testing.T) {
	dev := formatted(t)
	m := open(t, dev)
	var offs []int64
	dev.Hook(func(op crashdev.Op) error {
		if op.Kind == crashdev.Write {
			if op.Durability != block.Durable {
				t.Error("not durable")
			}
			offs = append(offs, op.Off)
		}
		return nil
	})
	for i := range 3 {
		if err := m.Change(func(s *Superblock) { s.UncleanOpens = uint32(i + 1); s.Flags |= FlagOpen }); err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprint(offs) != fmt.Sprint([]int64{0, slotDistance, 0}) {
		t.Fatalf("slots written: %v", offs)
	}
	again := open(t, dev)
	if s := again.Super(); s.UncleanOpens != 3 || s.Sequence != 4 || !again.Unclean() {
		t.Fatalf("%+v", s)
	}
}

func TestChangeRefusesAndTrims(t *testing.T) {
	dev := formatted(t)
	m := open(t, dev)
	if err := m.Change(func(s *Superblock) { s.Legs = 4 }); err == nil {
		t.Fatal("a third leg")
	}
	for name, f := range map[string]func(*Superblock){
		"leg":      func(s *Superblock) { s.Leg = id(9) },
		"sequence": func(s *Superblock) { s.Sequence += 2 },
		"size":     func(s *Superblock) { s.VolumeBytes += 4096 },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("change of %s did not panic", name)
				}
			}()
			_ = m.Change(f)
		}()
	}
	err := m.Change(func(s *Superblock) {
		s.ReasonText = strings.Repeat("ä", 100)
		s.Software = strings.Repeat("v", 40)
		for i := range uint64(20) {
			s.Push(Generation{i + 1, i})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, dev).Super()
	if s.ReasonText != strings.Repeat("ä", 62) || len(s.Software) != 32 || len(s.History) != HistoryMax ||
		s.Current != (Generation{20, 19}) || s.History[0] != (Generation{19, 18}) {
		t.Fatalf("%+v", s)
	}
}

// After a failed write the value in RAM is the last durable one and nothing more is written.
func TestChangeFailsWithItsDevice(t *testing.T) {
	for _, kind := range []crashdev.Kind{crashdev.Write} {
		dev := formatted(t)
		m := open(t, dev)
		dev.FailNth(1, kind, errors.New("boom"))
		for range 2 {
			if err := m.Change(func(s *Superblock) { s.UncleanOpens++ }); !errors.Is(err, block.ErrDead) {
				t.Fatal(err)
			}
		}
		if m.Super().UncleanOpens != 0 {
			t.Fatal("RAM is ahead of the disk")
		}
		if err := m.StoreDirty(0); !errors.Is(err, block.ErrDead) {
			t.Fatal(err)
		}
	}
}

// Superblocks are independent copies.
func TestSuperIsACopy(t *testing.T) {
	m := open(t, formatted(t))
	if err := m.Change(func(s *Superblock) { s.Push(Generation{1, 1}); s.Push(Generation{2, 2}) }); err != nil {
		t.Fatal(err)
	}
	s := m.Super()
	s.History[0].Epoch = 99
	if m.Super().History[0].Epoch == 99 {
		t.Fatal("shared history")
	}
}

func FuzzSuperblock(f *testing.F) {
	s := full()
	f.Add(encode(&s)[:offDamaged], true)
	s = listed()
	f.Add(encode(&s)[:endOfFields], true)
	f.Add([]byte(superMagic), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, in []byte, mend bool) {
		p := make([]byte, BlockBytes)
		copy(p, in)
		if mend {
			copy(p, superMagic)
			binary.LittleEndian.PutUint32(p[offCRC:], crcOf(p, offCRC))
		}
		got, err := decode(p, int(p[offSequence]&1))
		if err != nil {
			return
		}
		if err = usable(got, 1<<62); err != nil {
			return
		}
		again, err := decode(encode(got), int(got.Sequence&1))
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("%+v became %+v (%v)", got, again, err)
		}
	})
}

const endOfFields = 2824
