package meta

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"duet/replication/block"
	"duet/replication/block/crashdev"
)

// inspect fails the test when anything but a read reaches the device.
func inspect(t testing.TB, dev *crashdev.Device) (*Inspection, error) {
	t.Helper()
	looking := true
	dev.Hook(func(op crashdev.Op) error {
		if looking && op.Kind != crashdev.Read {
			t.Errorf("Inspect does a %s", op.Kind)
		}
		return nil
	})
	defer func() { looking = false }()
	return Inspect(dev)
}

// Whatever a power cut or damage left: Inspect tells what Open and StartLog find, sum by sum.
func TestInspectTellsWhatOpenFinds(t *testing.T) {
	states, lost, bad := map[SumState]int{}, 0, 0
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			r := newLogRig(t, func(s *Superblock) {
				if seed%2 == 0 {
					s.Push(Generation{1, 2})
				}
			})
			for range 20 {
				r.fill(rnd.Int64N(logExtents)*BlocksPerExtent, 3, byte(seed))
				if rnd.IntN(4) == 0 {
					cooled(t, r.m)
				}
			}
			if rnd.IntN(4) == 0 {
				if err := r.m.CloseLog(); err != nil {
					t.Fatal(err)
				}
			}
			dev := r.meta.Cut(seed)
			buf := block.Alloc(BlockBytes)
			if seed%8 == 3 { // an extent beyond the volume: nothing of this log can be believed
				b := logBlock{sequence: r.m.log.sequence + 1, slots: logSlotsMin, updates: []slotUpdate{{0, logExtents + 5}}}
				b.encode(buf, r.m.Super().Leg)
				if err := dev.WriteAt(buf, logOffset+int64(b.sequence%logBlocksDefault)*BlockBytes, block.Durable); err != nil {
					t.Fatal(err)
				}
			}
			if seed%8 == 5 { // so many are hot that there is no room to work
				b := logBlock{sequence: r.m.log.sequence + 1, slots: logSlotsMin}
				for slot := range uint32(logSlotsMin - 7) {
					b.updates = append(b.updates, slotUpdate{slot, 2 * slot})
				}
				b.encode(buf, r.m.Super().Leg)
				if err := dev.WriteAt(buf, logOffset+int64(b.sequence%logBlocksDefault)*BlockBytes, block.Durable); err != nil {
					t.Fatal(err)
				}
			}
			for range rnd.IntN(4) {
				at := mapPageOffset(rnd.Int64N(5)) + BlockBytes*rnd.Int64N(3)
				if rnd.IntN(3) == 0 {
					at = logOffset + BlockBytes*(1+rnd.Int64N(4))
				}
				if err := dev.ReadAt(buf, at); err != nil {
					t.Fatal(err)
				}
				buf[rnd.IntN(len(buf))] ^= 1
				if err := dev.WriteAt(buf, at, block.Durable); err != nil {
					t.Fatal(err)
				}
			}
			i, err := inspect(t, dev)
			if err != nil {
				t.Fatal(err)
			}
			var found [logExtents][BlocksPerExtent]uint32
			for e := range found {
				state, _ := i.Sums(int64(e), &found[e])
				states[state]++
			}
			m := open(t, dev)
			if err := m.StartLog(r.data, nil); err != nil {
				t.Fatal(err)
			}
			hot, known := m.Hot()
			if known != (i.LogLost == "") || known && !slices.Equal(hot, i.Hot) {
				t.Errorf("hot %v, lost %q; opened: %v, known %v", i.Hot, i.LogLost, hot, known)
			}
			if len(i.BadPages) != m.BadPages() || i.Dirty.Count() != m.Dirty().Count() {
				t.Errorf("%d bad pages, %d dirty; opened: %d, %d", len(i.BadPages), i.Dirty.Count(), m.BadPages(), m.Dirty().Count())
			}
			var sums [BlocksPerExtent]uint32
			for e := range found {
				if m.Sums(int64(e)*BlocksPerExtent, sums[:]); sums != found[e] {
					t.Fatalf("extent %d: other sums than the open leg has", e)
				}
			}
			if i.LogLost != "" {
				lost++
			}
			bad += m.BadPages()
		})
	}
	if lost == 0 || bad == 0 || states[SumsKnown] == 0 || states[SumsUnknown] == 0 || states[SumsSuspended] == 0 || states[SumsContradict] == 0 {
		t.Errorf("not everything was seen: %d lost logs, %d bad pages, sum pages %v", lost, bad, states)
	}
}

// The ring is told, and so is a log that this life of the leg did not lose.
func TestInspectTellsTheLog(t *testing.T) {
	r := newLogRig(t, nil)
	for e := range int64(5) {
		if err := r.write(e); err != nil {
			t.Fatal(err)
		}
	}
	r.meta = r.meta.CutPick(nothing)
	i, err := inspect(t, r.meta)
	if err != nil {
		t.Fatal(err)
	}
	if i.Ring != (Ring{Valid: 5, Empty: logBlocksDefault - 5, First: 1, Last: 5}) || i.Played != 5 || len(i.Hot) != 5 {
		t.Errorf("%+v, %d count, hot %v", i.Ring, i.Played, i.Hot)
	}
	if err := open(t, r.meta).Change(func(s *Superblock) { s.Flags |= FlagLogLost }); err != nil {
		t.Fatal(err)
	}
	if i, err = inspect(t, r.meta); err != nil || i.LogLost == "" || i.Hot != nil {
		t.Errorf("lost %q, hot %v, %v", i.LogLost, i.Hot, err)
	}
	var sums [BlocksPerExtent]uint32
	if state, _ := i.Sums(100, &sums); state != SumsSuspended {
		t.Errorf("a lost log, and the sums of an extent are in state %d", state)
	}
}

// What is found before an error is told with it.
func TestInspectOfWhatCannotBeUsed(t *testing.T) {
	dev := formatted(t)
	patch(t, dev, func(s *Superblock) { s.FormatMajor = 2; s.Sequence = 10 })
	i, err := inspect(t, dev)
	if !errors.Is(err, ErrNewerFormat) || i.Super != nil || !i.Slots[1].Counts || i.Slots[1].FormatMajor != 2 || i.Slots[1].Sequence != 11 {
		t.Errorf("%+v, %v", i, err)
	}
	dev = formatted(t)
	small := crashdev.New(slotDistance + BlockBytes)
	buf := block.Alloc(BlockBytes)
	if err := errors.Join(dev.ReadAt(buf, slotDistance), small.WriteAt(buf, slotDistance, block.Durable)); err != nil {
		t.Fatal(err)
	}
	if i, err = inspect(t, small); !errors.Is(err, ErrSize) || i.Super == nil || i.Super.VolumeBytes != testVolumeBytes {
		t.Errorf("%+v, %v", i, err)
	}
	if i, err = inspect(t, crashdev.New(0)); !errors.Is(err, ErrNoSuperblock) || i.Slots[0].Err == nil {
		t.Errorf("%+v, %v", i, err)
	}
}

// One unreadable sum page takes no other one with it.
func TestInspectBesideAnUnreadablePage(t *testing.T) {
	r := newLogRig(t, nil)
	r.fill(0, 1, 1)
	r.fill(BlocksPerExtent, 1, 1)
	if err := r.m.CloseLog(); err != nil {
		t.Fatal(err)
	}
	r.meta.Hook(func(op crashdev.Op) error {
		if op.Kind == crashdev.Read && op.Off <= sumPageOffset(0) && sumPageOffset(0) < op.Off+op.Len {
			return errors.New("medium error")
		}
		return nil
	})
	i, err := inspect(t, r.meta)
	if err != nil {
		t.Fatal(err)
	}
	var sums [BlocksPerExtent]uint32
	if state, err := i.Sums(0, &sums); state != SumsUnreadable || err == nil {
		t.Errorf("extent 0: %d, %v", state, err)
	}
	if state, err := i.Sums(1, &sums); state != SumsKnown || err != nil || sums[0] == SumUnknown {
		t.Errorf("extent 1: %d, %v", state, err)
	}
}
