package meta

import (
	"encoding/hex"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"testing"

	"duet/replication/block/crashdev"
)

// listed is full with a list of damaged blocks.
func listed() Superblock {
	s := full()
	s.AddDamaged(0x1234, 0xc1c2c3c4)
	s.AddDamaged(5, SumUnknown)
	return s
}

// The list lies in bytes that format 1.0 reserved: what was written without it is as it was, and a release that does not know it reads the
// rest of what was written with it.
func TestGoldenDamaged(t *testing.T) {
	s := listed()
	p := encode(&s)
	const path = "testdata/superblock-v1-damaged.hex"
	got := hex.Dump(p)
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
	back, err := decode(p, 0)
	if err != nil || !reflect.DeepEqual(*back, s) {
		t.Fatalf("read back\n%+v, %v, wrote\n%+v", back, err, s)
	}
	without := full()
	if !slices.Equal(p[12:offDamaged], encode(&without)[12:offDamaged]) {
		t.Error("the list changes what is before it")
	}
	for off, want := range map[int][]byte{
		768: {2, 0, 0, 0, 0, 0, 0, 0},
		776: {5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		792: {0x34, 0x12, 0, 0, 0, 0, 0, 0, 0xc4, 0xc3, 0xc2, 0xc1, 0, 0, 0, 0},
		808: make([]byte, BlockBytes-808),
	} {
		if got := p[off:][:len(want)]; !slices.Equal(got, want) {
			t.Errorf("offset %d: %x, want %x", off, got, want)
		}
	}
	many := p
	many[offDamaged] = DamagedMax + 1
	sum := crcOf(many, offCRC)
	many[8], many[9], many[10], many[11] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
	if _, err := decode(many, 0); err == nil {
		t.Error("a list that is too long is read")
	}
}

// The list against a set, and what is found of it after a power cut at any moment: what it was before the change that was under way, or after.
func TestDamagedSurvivesCuts(t *testing.T) {
	dev := formatted(t)
	m := open(t, dev)
	now, next := map[uint64]uint32{}, map[uint64]uint32{}
	set := func(s Superblock) map[uint64]uint32 {
		out := map[uint64]uint32{}
		for _, d := range s.Damaged {
			out[d.Block] = d.Sum
		}
		return out
	}
	dev.Hook(func(op crashdev.Op) error {
		for seed := range uint64(4) {
			if found := set(open(t, dev.Cut(seed)).Super()); op.Kind == crashdev.Write && !reflect.DeepEqual(found, now) && !reflect.DeepEqual(found, next) {
				t.Fatalf("found %v, was %v, is to be %v", found, now, next)
			}
		}
		return nil
	})
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		b, n := r.Int64N(200), 1+r.Int64N(8)
		next = set(m.Super())
		if r.IntN(4) == 0 {
			for k := b; k < b+n; k++ {
				delete(next, uint64(k))
			}
			if err := m.Undamaged(b, n); err != nil {
				t.Fatal(err)
			}
		} else {
			sum := r.Uint32N(3)
			old, there := next[uint64(b)]
			switch {
			case there && sum == SumUnknown:
				next[uint64(b)] = old
			case there, len(next) < DamagedMax:
				next[uint64(b)] = sum
			}
			if err := m.Change(func(s *Superblock) { s.AddDamaged(b, sum) }); err != nil {
				t.Fatal(err)
			}
		}
		if now = set(m.Super()); !reflect.DeepEqual(now, next) {
			t.Fatalf("%v, want %v", now, next)
		}
		for k := range int64(210) {
			if _, there := now[uint64(k)]; m.Damaged(k, 1) != there || m.Expected(k) != now[uint64(k)] {
				t.Fatalf("block %d: %v, %x", k, m.Damaged(k, 1), m.Expected(k))
			}
		}
	}
	if err := m.Change(func(s *Superblock) { s.AddDamaged(testVolumeBytes/BlockBytes, 1) }); err == nil {
		t.Error("a block beyond the volume is listed")
	}
}
