package mirror

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"

	"duet/replication/block"
	"duet/replication/block/crashdev"
	"duet/replication/control"
)

// rot changes a bit of a block on the medium, behind the daemon's back.
func (d *drive) rot(t *testing.T, b int64) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	id, _ := parseID(testVolume) // a constant
	p := block.Alloc(block.Unit)
	if err := d.data[id].ReadAt(p, b*block.Unit); err != nil {
		t.Fatal(err)
	}
	p[b%block.Unit] ^= 0x10
	if err := d.data[id].WriteAt(p, b*block.Unit, block.Durable); err != nil {
		t.Fatal(err)
	}
}

// unreadable makes a block fail to be read until it is written again, as a pending sector does. reads is how often it failed.
func (d *drive) unreadable(b int64) (reads *atomic.Int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id, _ := parseID(testVolume) // a constant
	reads = new(atomic.Int64)
	var mended atomic.Bool
	at := b * block.Unit
	d.data[id].Hook(func(op crashdev.Op) error {
		switch {
		case at < op.Off || at >= op.Off+int64(op.Len) || mended.Load():
		case op.Kind == crashdev.Write:
			mended.Store(true)
		case op.Kind == crashdev.Read:
			reads.Add(1)
			return errMedium
		}
		return nil
	})
	return reads
}

// holds says whether a block on the medium of a node's leg is full of a byte.
func (h *host) holds(b int64, with byte) bool {
	h.t.Helper()
	p := h.drive.contents()[b*block.Unit:][:block.Unit]
	return p[0] == with && p[b%block.Unit] == with && p[len(p)-1] == with
}

func (h *host) readBlock(b int64) (byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p := block.Alloc(block.Unit)
	err := h.vol().ReadAt(ctx, p, b*block.Unit)
	return p[b%block.Unit], err
}

// Proves: replication.md P5, 9.3: a block that rotted on the coordinator's leg, or cannot be read, is answered from the other leg
// and repaired, whichever node's client asks; the leg stays.
func TestABadBlockIsRepaired(t *testing.T) {
	p := servedPair(t, testSize)
	a, b := p.nodes[0], p.nodes[1]
	a.write(0, 7, 1<<20)
	a.flush()
	for i, reader := range []*host{a, b} {
		rotten, dead := int64(10+i), int64(20+i)
		a.drive.rot(t, rotten)
		failed := a.drive.unreadable(dead)
		for _, blk := range []int64{rotten, dead} {
			if got, err := reader.readBlock(blk); err != nil || got != 7 {
				t.Errorf("node %c reads %d of block %d: %v", 'a'+i, got, blk, err)
			}
			if !a.holds(blk, 7) {
				t.Errorf("block %d was not repaired", blk)
			}
		}
		if failed.Load() == 0 {
			t.Error("the bad block was not read")
		}
		if got := reader.read(0, 1<<20); got[0] != 7 || got[rotten*4096+rotten] != 7 {
			t.Error("a large read")
		}
	}
	st := a.vol().Status()
	if st.RepairedBlocks != 4 || st.DamagedBlocks != 0 || st.Stage != "paired" {
		t.Errorf("%+v", st)
	}
	if s := a.vol().Status(); s.LegState != "uptodate" {
		t.Errorf("the leg is %s", s.LegState)
	}
	p.sameLegs()
}

// A rotten block that is known as such costs an error for itself and nothing else, on the node that coordinates and on the
// other one, until it is written whole.
func TestABlockDamagedOnBothLegs(t *testing.T) {
	p := servedPair(t, testSize)
	a, b := p.nodes[0], p.nodes[1]
	a.write(0, 7, 1<<20)
	a.flush()
	a.drive.rot(t, 5)
	b.drive.rot(t, 5)
	for _, h := range p.nodes {
		if _, err := h.readBlock(5); !errors.Is(err, syscall.EIO) {
			t.Errorf("node %c: %v, want EIO", 'a'+h.node, err)
		}
		if got, err := h.readBlock(6); err != nil || got != 7 {
			t.Errorf("node %c: the next block: %d, %v", 'a'+h.node, got, err)
		}
	}
	a.awaitEvent("the fault", func(e control.Event) bool { return e.Fault != nil && e.Fault.Code == "REPL-2011" })
	if st := a.vol().Status(); st.DamagedBlocks != 1 || st.Stage != "paired" {
		t.Errorf("%+v", st)
	}
	b.write(5*4096, 9, 4096)
	if got, err := a.readBlock(5); err != nil || got != 9 {
		t.Errorf("after a write: %d, %v", got, err)
	}
	if st := a.vol().Status(); st.DamagedBlocks != 0 {
		t.Errorf("%+v", st)
	}
	p.sameLegs()
}

// Alone there is nobody to ask.
func TestABadBlockOfANodeAlone(t *testing.T) {
	p := servedPair(t, testSize)
	a := p.nodes[0]
	a.write(0, 7, 1<<20)
	a.flush()
	p.nodes[1].crash()
	a.solo(2)
	a.awaitStage("alone")
	a.drive.rot(t, 5)
	a.drive.unreadable(6)
	far := int64(testSize/block.Unit - 1) // where nothing was ever written, so nothing is compared but by the proof
	a.drive.rot(t, far)
	for blk := range int64(8) {
		got, err := a.readBlock(blk)
		switch bad := blk == 5 || blk == 6; {
		case bad && !errors.Is(err, syscall.EIO):
			t.Errorf("block %d: %d, %v, want EIO", blk, got, err)
		case !bad && (err != nil || got != 7):
			t.Errorf("block %d: %d, %v", blk, got, err)
		}
	}
	if st := a.vol().Status(); st.DamagedBlocks != 2 || st.Stage != "alone" {
		t.Errorf("%+v", st)
	}
	// The other leg has both; it comes back, and they are fetched from it.
	p.nodes[1].start()
	p.rejoin(0, 3, 12)
	for blk := int64(5); blk < 7; blk++ {
		if got, err := a.readBlock(blk); err != nil || got != 7 {
			t.Errorf("block %d after the other node is back: %d, %v", blk, got, err)
		}
	}
	if !a.holds(far, 0) {
		t.Error("what only the proof read was not repaired")
	}
	if n := p.differences.Load(); n != 0 {
		t.Errorf("%d proofs found a difference", n)
	}
	p.sameLegs()
}

// stubborn is a drive that loses what is written to one block, without an error.
type stubborn struct {
	block.Device
	at    int64
	loses atomic.Bool
}

func (d *stubborn) WriteAt(p []byte, off int64, how block.Durability) error {
	if off == d.at && d.loses.Load() {
		return nil
	}
	return d.Device.WriteAt(p, off, how)
}

// A repair that the drive does not keep is the end of the leg.
func TestARepairThatIsLost(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes[0], p.nodes[1]
	var bad *stubborn
	a.drive.wrap = func(d block.Device) block.Device {
		bad = &stubborn{Device: d, at: 5 * block.Unit}
		return bad
	}
	a.start()
	b.start()
	p.serve(1, 11)
	p.allPaired()
	a.write(0, 7, 1<<20)
	bad.loses.Store(true)
	a.drive.rot(t, 5)
	answer := make(chan error, 1)
	go func() {
		got, err := a.readBlock(5)
		if got != 7 {
			err = errors.Join(err, errMedium)
		}
		answer <- err
	}()
	a.awaitEvent("leg failed", func(e control.Event) bool { return e.LegFailed != nil })
	p.paired(1, 11, 0, 2, 2, 1, 0)
	if err := <-answer; err != nil {
		t.Errorf("over the other leg: %v", err)
	}
}

// A block that rotted at the source of a copy and must be sent: the target has not got it either. Both legs know it as damaged,
// and the copy ends, proved.
func TestACopyOfADamagedBlock(t *testing.T) {
	p := servedPair(t, testSize)
	a := p.nodes[0]
	a.write(0, 7, 1<<20)
	a.flush()
	p.nodes[1].crash()
	a.solo(2)
	a.awaitStage("alone")
	a.write(0, 8, 64<<10) // the other leg lacks these
	a.flush()
	a.drive.rot(t, 5)
	a.drive.rot(t, 6)
	a.drive.rot(t, 15)
	p.nodes[1].start()
	p.rejoin(0, 3, 12)
	for blk := range int64(16) {
		for _, h := range p.nodes {
			got, err := h.readBlock(blk)
			switch bad := blk == 5 || blk == 6 || blk == 15; {
			case bad && !errors.Is(err, syscall.EIO):
				t.Errorf("node %c, block %d: %d, %v, want EIO", 'a'+h.node, blk, got, err)
			case !bad && (err != nil || got != 8):
				t.Errorf("node %c, block %d: %d, %v", 'a'+h.node, blk, got, err)
			}
		}
	}
	if n := p.differences.Load(); n != 0 {
		t.Errorf("%d proofs found a difference", n)
	}
	// And with the ownership they go where they go.
	p.paired(5, 12, 1, 3, 0, 1, 0)
	if got, err := p.nodes[1].readBlock(5); !errors.Is(err, syscall.EIO) {
		t.Errorf("at the new owner: %d, %v, want EIO", got, err)
	}
	a.write(0, 9, 64<<10)
	for _, h := range p.nodes {
		if got, err := h.readBlock(5); err != nil || got != 9 {
			t.Errorf("node %c after a write: %d, %v", 'a'+h.node, got, err)
		}
	}
	p.sameLegs()
}

// A drive of which more and more cannot be read is taken out, if the other leg counts.
func TestTooManyReadErrors(t *testing.T) {
	p := servedPair(t, testSize)
	a := p.nodes[0]
	a.write(0, 7, 1<<20)
	for blk := range int64(20) {
		a.drive.unreadable(blk)
	}
	go func() {
		for blk := range int64(20) {
			if _, err := a.readBlock(blk); err != nil {
				return
			}
		}
	}()
	a.awaitEvent("leg failed", func(e control.Event) bool { return e.LegFailed != nil })
	if n := a.vol().Status().RepairedBlocks; n != 16 {
		t.Errorf("%d blocks were repaired before", n)
	}
	p.paired(1, 11, 0, 2, 2, 1, 0)
	if got, err := a.readBlock(19); err != nil || got != 7 {
		t.Errorf("over the other leg: %d, %v", got, err)
	}
}
