package meta

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"duet/replication/block"
	"duet/replication/block/crashdev"
)

// Every subset of sectors of every superblock write that a power cut may leave: the old or the new, never a
// mixture, and never nothing. Rule O8; also with the other slot rotten beforehand the rule must not need it.
func TestSuperblockSurvivesEveryTear(t *testing.T) {
	dev := formatted(t)
	m := open(t, dev)
	cuts := 0
	dev.Hook(func(op crashdev.Op) error {
		if op.Kind != crashdev.Write {
			return nil
		}
		old := m.Super()
		for mask := range 256 {
			after := dev.CutPick(func(p crashdev.Pending) bool { return mask>>p.Sector&1 == 1 })
			m2, err := Open(after)
			if err != nil {
				t.Fatalf("sequence %d, sectors %08b: %v", old.Sequence, mask, err)
			}
			got := m2.Super()
			want := old
			if got.Sequence != old.Sequence {
				want = changed(old)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("sequence %d, sectors %08b: a mixture\n%+v\n%+v", old.Sequence, mask, got, want)
			}
			if mask == 255 && got.Sequence == old.Sequence {
				t.Fatal("a whole write was ignored")
			}
			// Life goes on from there, in the slot that is not the newest.
			if err := m2.Change(func(s *Superblock) { s.SumErrors = 77 }); err != nil || open(t, after).Super().SumErrors != 77 {
				t.Fatal("no change possible after the cut")
			}
			cuts++
		}
		return nil
	})
	for range 4 {
		if err := m.Change(func(s *Superblock) { *s = step(*s) }); err != nil {
			t.Fatal(err)
		}
	}
	if cuts != 4*256 {
		t.Fatalf("%d cuts", cuts)
	}
}

// step changes fields in every sector that has any.
func step(s Superblock) Superblock {
	s.Flags ^= FlagOpen
	s.UncleanOpens++
	s.Push(Generation{s.Current.Epoch + 1, s.Current.Nonce + 7})
	s.WriteErrors++
	s.ReasonText = fmt.Sprintf("reason %d", s.UncleanOpens)
	return s
}

func changed(s Superblock) Superblock {
	s = step(s.clone())
	s.Sequence++
	return s
}

// A power cut at any step of Format leaves no leg or a whole one.
func TestFormatSurvivesEveryCut(t *testing.T) {
	dev := crashdev.New(SizeFor(testVolumeBytes))
	whole, none := 0, 0
	check := func(after *crashdev.Device) {
		m, err := Open(after)
		switch {
		case errors.Is(err, ErrUnformatted), errors.Is(err, ErrNoSuperblock), errors.Is(err, ErrForeign):
			none++
			if err = Format(after, Superblock{Site: id(1), Volume: id(2), VolumeBytes: testVolumeBytes}); err != nil {
				t.Fatalf("cannot be formatted again: %v", err)
			}
		case err != nil:
			t.Fatal(err)
		case m.BadPages() != 0 || m.Dirty().Count() != 0:
			t.Fatal("half a leg")
		default:
			whole++
		}
	}
	dev.Hook(func(op crashdev.Op) error {
		if op.Kind != crashdev.Read {
			for seed := range uint64(4) {
				check(dev.Cut(seed))
			}
		}
		return nil
	})
	if err := Format(dev, Superblock{Site: id(1), Volume: id(2), VolumeBytes: testVolumeBytes}); err != nil {
		t.Fatal(err)
	}
	check(dev.Cut(0))
	if whole == 0 || none == 0 {
		t.Fatalf("%d whole, %d none", whole, none)
	}
}

// Dirty bits under random sets, clears, acks and stores, cut at every store: a block whose bit was set before
// the last store that returned, and not cleared since with cover, is dirty after the cut; a torn page is all dirty.
func TestDirtyMapSurvivesCuts(t *testing.T) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 1))
		dev := formatted(t)
		m := open(t, dev)
		blocks := m.Dirty().Blocks()
		must := map[int64]bool{}    // on disk after the last store
		pending := map[int64]bool{} // acked, not covered
		dev.Hook(func(op crashdev.Op) error {
			if op.Kind == crashdev.Write && op.Off >= groupsOffset {
				for s := range uint64(6) {
					contains(t, open(t, dev.Cut(s)), m.Dirty(), pending, must)
				}
			}
			return nil
		})
		for range 40 {
			from := r.Int64N(blocks)
			n := min(1+r.Int64N(3000), blocks-from)
			switch r.IntN(4) {
			case 0:
				m.Dirty().Set(from, n)
				for b := from; b < from+n; b++ {
					delete(pending, b)
				}
			case 1:
				for b := from; b < from+n; b++ {
					if m.Dirty().Has(b) {
						pending[b] = true
					}
				}
				m.Acked(from, n)
			case 2:
				mark := m.Mark()
				if r.IntN(2) == 0 {
					m.Covered(mark)
					pending = map[int64]bool{}
				}
			case 3:
				if err := m.StoreDirty(); err != nil {
					t.Fatal(err)
				}
				must = map[int64]bool{}
				for b := range blocks {
					if m.Dirty().Has(b) || pending[b] {
						must[b] = true
					}
				}
				contains(t, open(t, dev.CutPick(func(crashdev.Pending) bool { return false })), m.Dirty(), pending, must)
			}
		}
	}
}

// contains checks the map found after a cut: what was on disk and still has to be. (A bit that was cleared for
// good may be gone as soon as its page is written.)
func contains(t *testing.T, found *Meta, now *Bitmap, pending, must map[int64]bool) {
	t.Helper()
	for b := range must {
		if (now.Has(b) || pending[b]) && !found.Dirty().Has(b) {
			t.Fatalf("block %d was lost from the map", b)
		}
	}
}

// Every damaged byte of a map page makes its extents dirty, and the next store mends it.
func TestBadPageCountsAsAllDirty(t *testing.T) {
	dev := formatted(t)
	buf := block.Alloc(block.Unit)
	r := rand.New(rand.NewPCG(5, 5))
	for _, at := range append(r.Perm(block.Unit)[:200], 0, 3, 4, 7, 8, 16, 24, 28, 4095) {
		d := dev.Cut(1)
		if err := d.ReadAt(buf, mapPageOffset(1)); err != nil {
			t.Fatal(err)
		}
		buf[at] ^= 0x10
		if err := d.WriteAt(buf, mapPageOffset(1), block.Durable); err != nil {
			t.Fatal(err)
		}
		m := open(t, d)
		if m.BadPages() != 1 || m.Dirty().Count() != blocksPerGroup || !m.Dirty().Has(blocksPerGroup) || m.Dirty().Has(0) {
			t.Fatalf("byte %d: %d bad pages, %d dirty", at, m.BadPages(), m.Dirty().Count())
		}
		if err := m.StoreDirty(); err != nil {
			t.Fatal(err)
		}
		if m := open(t, d); m.BadPages() != 0 || m.Dirty().Count() != blocksPerGroup {
			t.Fatal("not mended")
		}
	}
}

// A page of another leg, of another group, or that cannot be read is no better than a damaged one.
func TestForeignPageCountsAsAllDirty(t *testing.T) {
	other, dev := formatted(t), formatted(t)
	buf := block.Alloc(block.Unit)
	copyPage := func(from *crashdev.Device, a, b int64) {
		if err := from.ReadAt(buf, mapPageOffset(a)); err != nil {
			t.Fatal(err)
		}
		if err := dev.WriteAt(buf, mapPageOffset(b), block.Durable); err != nil {
			t.Fatal(err)
		}
	}
	copyPage(other, 0, 0)
	copyPage(dev, 1, 2)
	dev.Hook(func(op crashdev.Op) error {
		if op.Kind == crashdev.Read && op.Off == mapPageOffset(1) {
			return errors.New("medium error")
		}
		return nil
	})
	if m := open(t, dev); m.BadPages() != 3 || m.Dirty().Count() != m.Dirty().Blocks() {
		t.Fatalf("%d bad pages, %d of %d dirty", m.BadPages(), m.Dirty().Count(), m.Dirty().Blocks())
	}
}

// What a later release wrote into a record besides the sums is kept.
func TestRecordsAreKept(t *testing.T) {
	dev := formatted(t)
	m := open(t, dev)
	m.sums.records[ExtentsPerGroup+3].Store(packRecord(sumRecord{crc: 0xdead, flags: 0xabc04}))
	m.pages[1].leaves[3] = 42
	if err := m.StoreDirty(ExtentsPerGroup); err != nil {
		t.Fatal(err)
	}
	m = open(t, dev)
	m.Dirty().Set(blocksPerGroup, 1)
	if err := m.StoreDirty(); err != nil {
		t.Fatal(err)
	}
	m = open(t, dev)
	crc, flags := unpackRecord(m.sums.records[ExtentsPerGroup+3].Load())
	if crc != 0xdead || flags != 0xabc04 || m.pages[1].leaves[3] != 42 || m.pages[1].sequence != 3 {
		t.Fatalf("%#x %#x %+v", crc, flags, m.pages[1])
	}
}

// A superblock that a killed daemon left in the drive's cache can be read. What Open has told once must not be taken back
// by a power cut: the next daemon has acted on it.
func TestOpenMakesDurableWhatItTells(t *testing.T) {
	dev := formatted(t)
	ahead := dev.CutPick(func(crashdev.Pending) bool { return true })
	if err := open(t, ahead).Change(changedTo(7)); err != nil {
		t.Fatal(err)
	}
	next := open(t, ahead).Super()
	at := slotOffset(next.Sequence)
	slot := block.Alloc(BlockBytes)
	copy(slot, ahead.Contents()[at:at+BlockBytes])
	if err := dev.WriteAt(slot, at, block.Cached); err != nil { // and the daemon dies before it is durable
		t.Fatal(err)
	}
	told := open(t, dev).Super()
	if told.Sequence != next.Sequence {
		t.Fatalf("read sequence %d, want %d", told.Sequence, next.Sequence)
	}
	after := dev.CutPick(func(crashdev.Pending) bool { return false })
	if got := open(t, after).Super(); got.Sequence != told.Sequence {
		t.Errorf("sequence %d was told, the power cut took it back to %d", told.Sequence, got.Sequence)
	}
}

func changedTo(sumErrors uint32) func(*Superblock) {
	return func(s *Superblock) { s.SumErrors = sumErrors }
}
