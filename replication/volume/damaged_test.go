package volume

import (
	"bytes"
	"errors"
	"log/slog"
	"syscall"
	"testing"

	"duet/replication/block"
	"duet/replication/block/crashdev"
	"duet/replication/control"
	"duet/replication/internal/batch"
	"duet/replication/meta"
	"duet/replication/volume/stage"
)

// medium is what a leg lies on.
type medium struct{ data, meta *crashdev.Device }

// after is the medium after a power cut, with what pick says of what was not durable.
func (m medium) after(pick func(crashdev.Pending) bool) medium {
	return medium{m.data.CutPick(pick), m.meta.CutPick(pick)}
}

func every(crashdev.Pending) bool { return true }
func none(crashdev.Pending) bool  { return false }

// alone opens the leg, which serves by itself.
func (m medium) alone(t *testing.T) *Volume {
	t.Helper()
	md, err := meta.Open(m.meta)
	if err != nil {
		t.Fatal(err)
	}
	v := New(md.Super().Volume, "disk", testBytes, 0, Env{Log: slog.New(slog.DiscardHandler)})
	leg := Leg{Data: block.NewWatch(m.data), Meta: md, Side: block.NewWatch(crashdev.New(block.Unit))}
	if err := v.Attach(leg, meta.ID{3}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	v.Grant(Right{Mode: control.Solo, Epoch: 2, Legs: 1}, 0)
	v.awaitStage(t, stage.Alone)
	return v
}

// gives is what the next daemon gives of a block; nil: it is damaged.
func (m medium) gives(t *testing.T, b int64) []byte {
	t.Helper()
	md, err := meta.Open(m.meta)
	if err == nil {
		err = md.StartLog(m.data, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := block.Alloc(Block)
	bad, err := (&parts{data: block.NewWatch(m.data), meta: md}).read(p, b*Block)
	if err != nil {
		t.Fatal(err)
	}
	if len(bad) > 0 {
		return nil
	}
	return p
}

func (m medium) rot(t *testing.T, b int64) {
	t.Helper()
	p := block.Alloc(Block)
	if err := m.data.ReadAt(p, b*Block); err != nil {
		t.Fatal(err)
	}
	p[77] ^= 0x10
	if err := m.data.WriteAt(p, b*Block, block.Durable); err != nil {
		t.Fatal(err)
	}
}

func filled(with byte) []byte {
	p := block.Alloc(Block)
	for i := range p {
		p[i] = with
	}
	return p
}

// A block that was found damaged stays so over every crash, whatever else is written beside it, until a write of it is durable; what was
// acknowledged is there after every crash. A power cut is tried at each step of both files.
func TestADamagedBlockOverEveryCrash(t *testing.T) {
	const cold, hot = 5, 7 // one that rots while its extent is settled, and one while it is written to
	before, first := newLegIn(t, meta.UpToDate)
	before.Grant(Right{Mode: control.Solo, Epoch: 2, Legs: 1}, 0)
	before.awaitStage(t, stage.Alone)
	for b := range int64(16) {
		if err := before.WriteAt(t.Context(), filled(1), b*Block, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := before.md().CloseLog(); err != nil {
		t.Fatal(err)
	}
	m := first.after(every)
	m.rot(t, cold)
	v := m.alone(t)

	allowed := map[int64][][]byte{cold: {nil}} // nil: damaged
	cuts := 0
	check := func() {
		for _, pick := range []func(crashdev.Pending) bool{every, none, func(p crashdev.Pending) bool { return p.Sector%2 == 0 }} {
			after := m.after(pick)
			for b, legal := range allowed {
				got := after.gives(t, b)
				ok := false
				for _, want := range legal {
					ok = ok || bytes.Equal(got, want)
				}
				if !ok {
					t.Errorf("after %d cuts: block %d gives %.20x", cuts, b, got)
				}
			}
			cuts++
		}
	}
	for _, d := range []*crashdev.Device{m.data, m.meta} {
		d.Hook(func(op crashdev.Op) error {
			if op.Kind != crashdev.Read {
				check()
			}
			return nil
		})
	}
	damaged := func(b int64) {
		t.Helper()
		if err := v.ReadAt(t.Context(), block.Alloc(Block), b*Block); !errors.Is(err, syscall.EIO) {
			t.Fatalf("block %d: %v, want EIO", b, err)
		}
		check()
	}
	write := func(b int64, with byte) {
		t.Helper()
		if err := v.WriteAt(t.Context(), filled(with), b*Block, false); err != nil {
			t.Fatal(err)
		}
	}
	damaged(cold)
	write(6, 2) // from here on no sum of the extent counts after a crash
	if err := v.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.rot(t, hot)
	damaged(hot)
	allowed[hot] = [][]byte{nil}
	check()
	if n := v.Status().DamagedBlocks; n != 2 {
		t.Errorf("%d damaged blocks", n)
	}

	allowed[cold] = [][]byte{nil, filled(3)}
	written := make(chan error, 1)
	var b batch.Batch
	if !v.BeginWrite(t.Context(), &b, filled(3), cold*Block, func(_ *batch.Batch, err error) { written <- err }) {
		t.Fatal("the way is not free")
	}
	b.End()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	allowed[cold] = [][]byte{filled(3)} // acknowledged
	check()
	allowed[hot] = [][]byte{nil, filled(0)}
	if err := v.Zero(t.Context(), hot*Block, Block, false); err != nil {
		t.Fatal(err)
	}
	allowed[hot] = [][]byte{filled(0)}
	check()
	if n := v.Status().DamagedBlocks; n != 0 {
		t.Errorf("%d damaged blocks", n)
	}
	if cuts < 30 {
		t.Errorf("%d cuts", cuts)
	}
}
