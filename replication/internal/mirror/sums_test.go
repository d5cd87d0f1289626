package mirror

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"duet/replication/block"
	"duet/replication/block/crashdev"
	"duet/replication/control"
	"duet/replication/internal/batch"
	"duet/replication/meta"
	"duet/replication/volume"
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

// A client that leaves while a block is repaired for it never gets the bad bytes as an answer, whichever way its request goes.
func TestAClientLeavesDuringARepair(t *testing.T) {
	p := servedPair(t, testSize)
	a := p.nodes[0]
	a.write(0, 7, 1<<20)
	a.flush()
	id, _ := parseID(testVolume) // a constant
	leaves := func(read func(context.Context) ([]byte, error)) {
		t.Helper()
		a.drive.rot(t, 5)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		a.drive.data[id].Hook(func(op crashdev.Op) error {
			if op.Kind == crashdev.Write && op.Off == 5*block.Unit {
				cancel()
			}
			return nil
		})
		got, err := read(ctx)
		if ctx.Err() == nil {
			t.Fatal("no repair")
		}
		if !errors.Is(err, context.Canceled) && (err != nil || got[5] != 7) {
			t.Errorf("%v, and the block is not as it was written", err)
		}
		if !a.holds(5, 7) {
			t.Error("not repaired")
		}
	}
	leaves(func(ctx context.Context) ([]byte, error) {
		got := block.Alloc(block.Unit)
		return got, a.vol().ReadAt(ctx, got, 5*block.Unit)
	})
	leaves(func(ctx context.Context) (got []byte, err error) {
		answered := make(chan struct{})
		done := func(_ *batch.Batch, p []byte, e error) {
			got, err = p, e
			close(answered)
		}
		var b batch.Batch
		if !a.vol().BeginRead(ctx, &b, 5*block.Unit, block.Unit, done) {
			t.Fatal("the way is not free")
		}
		b.End()
		<-answered
		return got, err
	})
}

// A power cut of both nodes before a repaired block is durable leaves it bad, to be repaired again: what rotted never becomes what counts
// because its extent was being written to.
func TestAPowerCutDuringARepair(t *testing.T) {
	t.Run("in an extent that nobody writes", func(t *testing.T) { powerCutDuringARepair(t, 0) })
	t.Run("in one that is written to", func(t *testing.T) { powerCutDuringARepair(t, 4<<20) })
}

func powerCutDuringARepair(t *testing.T, writes int64) {
	p := servedPair(t, testSize)
	a, b := p.nodes[0], p.nodes[1]
	a.write(writes, 7, 4096)
	a.flush()
	const bad = 1024 + 5
	a.drive.rot(t, bad)
	id, _ := parseID(testVolume) // a constant
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	a.drive.data[id].Hook(func(op crashdev.Op) error {
		if op.Kind == crashdev.Write && op.Off == bad*block.Unit {
			once.Do(func() { close(reached) })
			<-release
			return errMedium
		}
		return nil
	})
	go a.readBlock(bad)
	<-reached
	none := func(crashdev.Pending) bool { return false }
	data, md := a.drive.data[id].CutPick(none), a.drive.meta[id].CutPick(none)
	close(release)
	a.crash()
	a.drive.data[id], a.drive.meta[id] = data, md
	a.boot, a.seq = fmt.Sprintf("%032x", 77), 0
	b.powerCut(2)
	if a.holds(bad, 0) || !b.holds(bad, 0) {
		t.Fatal("not the scene")
	}
	a.start()
	b.start()
	p.resolve(0, 1, 30)
	if got, err := a.readBlock(bad); err != nil || got != 0 {
		t.Errorf("%d, %v", got, err)
	}
	if !b.holds(bad, 0) {
		t.Error("the good block was overwritten by the bad one")
	}
}

// loseNewest damages the newest block of a leg's activity log.
func (d *drive) loseNewest(t *testing.T) {
	t.Helper()
	id, _ := parseID(testVolume) // a constant
	md := d.meta[id]
	buf := block.Alloc(block.Unit)
	const ring, blocks = 2 << 20, 256
	at, newest := int64(-1), uint64(0)
	for i := range int64(blocks) {
		if err := md.ReadAt(buf, ring+i*block.Unit); err != nil {
			t.Fatal(err)
		}
		if s := binary.LittleEndian.Uint64(buf[8:]); string(buf[:4]) == "DAL1" && s > newest {
			at, newest = ring+i*block.Unit, s
		}
	}
	if err := md.ReadAt(buf, at); err != nil {
		t.Fatal(err)
	}
	buf[700] ^= 1
	if err := md.WriteAt(buf, at, block.Durable); err != nil {
		t.Fatal(err)
	}
}

// Proves: replication.md section 6: a newest block of the log that rotted looks torn, so a copy unites both logs. What the lost block named
// has sums from before it was written; no block of it is given up for them, on either leg.
func TestTheNewestBlockOfTheLogIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(h *host)
		torn bool // a block of a's leg: a write that was under way
	}{
		"both lose their power":                    {end: func(h *host) { h.powerCut(uint64(h.node)) }},
		"both lose their power, one block is torn": {end: func(h *host) { h.powerCut(uint64(h.node)) }, torn: true},
		"both daemons are killed":                  {end: func(h *host) { h.crash(); h.seq = 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			p := servedPair(t, testSize)
			a, b := p.nodes[0], p.nodes[1]
			a.write(0, 7, 4096)
			a.write(4<<20, 7, 64<<10) // in a block of the log of its own
			a.flush()
			for _, h := range p.nodes {
				c.end(h)
			}
			a.drive.loseNewest(t)
			if c.torn {
				a.drive.rot(t, 1024+3)
			}
			a.start()
			b.start()
			p.resolve(0, 1, 30)
			for _, h := range p.nodes {
				for blk := int64(1024); blk < 1024+16; blk++ {
					if got, err := h.readBlock(blk); err != nil || got != 7 {
						t.Errorf("node %c, block %d: %d, %v", 'a'+h.node, blk, got, err)
					}
				}
			}
			p.sameLegs()
			if st := a.vol().Status(); st.DamagedBlocks != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
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
	for _, h := range p.nodes {
		if st := h.vol().Status(); st.DamagedBlocks != 1 || st.Stage != "paired" {
			t.Errorf("%+v", st)
		}
	}
	b.write(5*4096, 9, 4096)
	if got, err := a.readBlock(5); err != nil || got != 9 {
		t.Errorf("after a write: %d, %v", got, err)
	}
	for _, h := range p.nodes {
		if st := h.vol().Status(); st.DamagedBlocks != 0 {
			t.Errorf("%+v", st)
		}
	}
	p.sameLegs()
}

// What is damaged on both legs is so after a power cut of both nodes, too, although their extent was being written to.
func TestABlockDamagedOnBothLegsAndAPowerCut(t *testing.T) {
	p := servedPair(t, testSize)
	a, b := p.nodes[0], p.nodes[1]
	a.write(0, 7, 1<<20)
	a.flush()
	a.drive.rot(t, 5)
	b.drive.rot(t, 5)
	if _, err := a.readBlock(5); !errors.Is(err, syscall.EIO) {
		t.Fatalf("%v, want EIO", err)
	}
	a.write(6*block.Unit, 8, block.Unit)
	a.flush()
	for i, h := range p.nodes {
		h.powerCut(uint64(i))
	}
	for _, h := range p.nodes {
		h.start()
	}
	p.resolve(0, 1, 30)
	for _, h := range p.nodes {
		if got, err := h.readBlock(5); !errors.Is(err, syscall.EIO) {
			t.Errorf("node %c: %d, %v, want EIO", 'a'+h.node, got, err)
		}
		if got, err := h.readBlock(6); err != nil || got != 8 {
			t.Errorf("node %c: the next block: %d, %v", 'a'+h.node, got, err)
		}
	}
	a.write(5*block.Unit, 9, block.Unit)
	for _, h := range p.nodes {
		if got, err := h.readBlock(5); err != nil || got != 9 {
			t.Errorf("node %c after a write: %d, %v", 'a'+h.node, got, err)
		}
	}
	p.sameLegs()
}

// A block that is damaged at a node alone stays so over a power cut, with the sum that it should have: when the other node is back, its
// block is recognized.
func TestADamagedBlockOfANodeAloneAndAPowerCut(t *testing.T) {
	p := servedPair(t, testSize)
	a := p.nodes[0]
	a.write(0, 7, 1<<20)
	a.flush()
	p.nodes[1].crash()
	a.solo(2)
	a.awaitStage("alone")
	a.drive.rot(t, 5)
	if _, err := a.readBlock(5); !errors.Is(err, syscall.EIO) {
		t.Fatalf("%v, want EIO", err)
	}
	a.write(6*block.Unit, 8, block.Unit)
	a.flush()
	a.powerCut(3)
	a.start()
	a.solo(2)
	a.awaitStage("alone")
	if st := a.vol().Status(); st.DamagedBlocks != 1 {
		t.Errorf("%+v", st)
	}
	if got, err := a.readBlock(5); !errors.Is(err, syscall.EIO) {
		t.Errorf("%d, %v, want EIO", got, err)
	}
	p.nodes[1].start()
	p.rejoin(0, 3, 12)
	for _, h := range p.nodes {
		if got, err := h.readBlock(5); err != nil || got != 7 {
			t.Errorf("node %c: %d, %v", 'a'+h.node, got, err)
		}
	}
	if st := a.vol().Status(); st.DamagedBlocks != 0 || st.RepairedBlocks != 1 {
		t.Errorf("%+v", st)
	}
	p.sameLegs()
}

// A block that the drive cannot read, and of which a power cut left no sum, costs no leg: the other leg that counts has it.
func TestAnUnreadableBlockAfterAPowerCut(t *testing.T) {
	p := servedPair(t, testSize)
	for _, bad := range p.nodes {
		p.nodes[0].write(0, 7, 1<<20)
		p.nodes[0].flush()
		for i, h := range p.nodes {
			h.powerCut(uint64(i))
		}
		bad.drive.unreadable(5)
		for _, h := range p.nodes {
			h.start()
		}
		p.resolve(0, uint64(1+2*bad.node), 30+uint64(bad.node))
		for _, h := range p.nodes {
			if got, err := h.readBlock(5); err != nil || got != 7 {
				t.Errorf("bad at node %c, read at node %c: %d, %v", 'a'+bad.node, 'a'+h.node, got, err)
			}
			if st := h.vol().Status(); st.LegState != "uptodate" || st.DamagedBlocks != 0 {
				t.Errorf("%+v", st)
			}
		}
		p.sameLegs()
	}
}

// The same where both legs are in sync, and only the page of sums was lost.
func TestAnUnreadableBlockWithoutASum(t *testing.T) {
	p := servedPair(t, testSize)
	a := p.nodes[0]
	a.write(4<<20, 7, 1<<20)
	a.flush()
	if err := a.m.Close(); err != nil {
		t.Fatal(err)
	}
	a.drive.detach()
	a.drive.loseSums(t)
	a.start()
	p.paired(1, 11, 0, 3, 0, 0)
	a.awaitStage("paired")
	const bad = 1024 + 5
	failed := a.drive.unreadable(bad)
	if got, err := a.readBlock(bad); err != nil || got != 7 || failed.Load() == 0 {
		t.Errorf("%d, %v after %d errors", got, err, failed.Load())
	}
	if st := a.vol().Status(); st.RepairedBlocks != 1 || st.DamagedBlocks != 0 {
		t.Errorf("%+v", st)
	}
	a.drive.rot(t, bad) // from here on its sum is known
	if got, err := a.readBlock(bad); err != nil || got != 7 {
		t.Errorf("after the repair: %d, %v", got, err)
	}
}

// The same at a node alone costs that block, and the copy to the node that comes back tells it so.
func TestAnUnreadableBlockOfANodeAloneAfterAPowerCut(t *testing.T) {
	p := servedPair(t, testSize)
	a := p.nodes[0]
	a.write(0, 7, 1<<20)
	a.flush()
	p.nodes[1].crash()
	a.solo(2)
	a.awaitStage("alone")
	a.write(0, 8, 64<<10)
	a.flush()
	a.powerCut(1)
	a.drive.unreadable(5)
	a.start()
	a.solo(2)
	a.awaitStage("alone")
	if _, err := a.readBlock(5); !errors.Is(err, syscall.EIO) {
		t.Errorf("%v, want EIO", err)
	}
	p.nodes[1].start()
	p.rejoin(0, 3, 12)
	for _, h := range p.nodes {
		if st := h.vol().Status(); st.LegState != "uptodate" || st.DamagedBlocks != 1 {
			t.Errorf("%+v", st)
		}
		for blk := range int64(16) {
			got, err := h.readBlock(blk)
			if blk == 5 && !errors.Is(err, syscall.EIO) || blk != 5 && (err != nil || got != 8) {
				t.Errorf("node %c, block %d: %d, %v", 'a'+h.node, blk, got, err)
			}
		}
	}
	a.write(0, 9, 64<<10)
	for _, h := range p.nodes {
		if got, err := h.readBlock(5); err != nil || got != 9 {
			t.Errorf("node %c after a write: %d, %v", 'a'+h.node, got, err)
		}
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

// scrubbed orders a scrub until one has made a whole pass.
func (h *host) scrubbed(t *testing.T) control.VolumeStatus {
	t.Helper()
	status := func() control.VolumeStatus { return h.m.Status().Volumes[0] }
	before := status().Scrub.Passes
	await(t, "a whole pass", func() bool {
		s := status().Scrub
		if !s.Running && !s.Ordered && s.Passes == before {
			_ = h.m.Scrub(testVolume) //nolint:errcheck // refused, or cut short, until the end of an earlier lane is known here
		}
		return !s.Running && s.Passes > before
	})
	if s := status().Scrub; s.Passes != before+1 || s.Why != "" || s.DoneBytes != testSize || s.Ended == 0 {
		t.Fatalf("%+v", s)
	}
	return status()
}

// Proves: replication.md section 11: every flip on either leg is found and repaired, under load; what is bad on both is told and
// stays; what differs without a sign of it is told, and the coordinator's version stands.
func TestScrub(t *testing.T) {
	p := servedPair(t, testSize)
	a, b := p.nodes[0], p.nodes[1]
	a.write(4<<20, 7, 1<<20)
	a.flush()
	writers, end := p.load(0, 1)
	p.progress(writers)
	const base = 1024 // blocks of the second extent, which nobody writes
	for i := range int64(5) {
		a.drive.rot(t, base+10*i)
		b.drive.rot(t, base+10*i+1)
	}
	a.drive.unreadable(base + 100)
	b.drive.unreadable(base + 101)
	a.drive.rot(t, base+200)
	b.drive.rot(t, base+200)
	st := a.scrubbed(t)
	end()
	if st.RepairedBlocks != 6 || st.Scrub.PeerRepaired != 6 || st.Scrub.Different != 0 || st.DamagedBlocks != 1 || st.Stage != "paired" {
		t.Errorf("%+v", st)
	}
	for _, blk := range []int64{0, 1, 40, 41, 100, 101} {
		for _, h := range p.nodes {
			if !h.holds(base+blk, 7) {
				t.Errorf("block %d of node %c was not repaired", blk, 'a'+h.node)
			}
		}
	}
	for i, w := range writers {
		w.check(t, "after the scrub", p.nodes[i].read)
	}
	if err := b.m.Scrub(testVolume); err == nil {
		t.Error("a node that does not coordinate the volume scrubs it")
	}
	// The second pass has nothing to do.
	if again := a.scrubbed(t); again.RepairedBlocks != 6 || again.Scrub.PeerRepaired != 6 || again.Scrub.Different != 0 {
		t.Errorf("%+v", again)
	}
}

// swap writes a block and notes its sum, while no daemon has the leg: a leg that vouches for what it should not hold.
func (h *host) swap(b int64, with byte) {
	h.t.Helper()
	id, _ := parseID(testVolume) // a constant
	e := b / meta.BlocksPerExtent
	p := fill(block.Unit, with)
	m, err := meta.Open(h.drive.meta[id])
	if err == nil {
		err = m.StartLog(h.drive.data[id], nil)
	}
	if err == nil {
		err = m.Change(func(s *meta.Superblock) { s.Flags |= meta.FlagOpen })
	}
	if err == nil {
		err = m.Begin(e, e)
	}
	if err == nil {
		err = h.drive.data[id].WriteAt(p, b*block.Unit, block.Durable)
		m.SetSums(b, []uint32{meta.SumOf(p)})
		m.End(e, e)
	}
	if err == nil {
		err = m.CloseLog()
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// Two legs that both vouch for their own: the coordinator's version stands, and it is told.
func TestScrubFindsADifference(t *testing.T) {
	p := servedPair(t, testSize)
	a, b := p.nodes[0], p.nodes[1]
	a.write(4<<20, 7, 1<<20)
	a.flush()
	if err := b.m.Close(); err != nil {
		t.Fatal(err)
	}
	b.drive.detach()
	b.swap(1025, 9)
	b.start()
	p.paired(1, 11, 0, 3, 0, 1)
	a.awaitStage("paired")
	st := a.scrubbed(t)
	if st.RepairedBlocks != 0 || st.Scrub.PeerRepaired != 0 || st.Scrub.Different != 1 || st.DamagedBlocks != 0 {
		t.Errorf("%+v", st)
	}
	a.awaitEvent("the difference", func(e control.Event) bool { return e.Fault != nil && e.Fault.Code == "REPL-2006" })
	p.sameLegs()
	if !b.holds(1025, 7) {
		t.Error("the coordinator's version did not stand")
	}
}

// loseSums damages the page of sums of the second extent, so that none of them is known.
func (d *drive) loseSums(t *testing.T) {
	t.Helper()
	id, _ := parseID(testVolume) // a constant
	buf := block.Alloc(block.Unit)
	const at = 0x800000 + 2*block.Unit
	if err := d.meta[id].ReadAt(buf, at); err != nil {
		t.Fatal(err)
	}
	buf[4000] ^= 1
	if err := d.meta[id].WriteAt(buf, at, block.Durable); err != nil {
		t.Fatal(err)
	}
}

// Proves: replication.md section 11. A leg that has lost a block's sum does not vouch for the block: where the other leg does, its version
// stands, whoever serves the volume. Where neither does, or both, the version stands that clients read, and that is told.
func TestScrubBelievesWhoKnows(t *testing.T) {
	for name, c := range map[string]struct {
		lost           []control.Node // whose sums
		rotten         control.Node
		stands         control.Node
		repaired, peer int64
		different      int64
	}{
		"the node that serves lost its sums": {lost: []control.Node{0}, rotten: 0, stands: 1, repaired: 1},
		"the other node lost its sums":       {lost: []control.Node{1}, rotten: 1, stands: 0, peer: 1},
		"both did":                           {lost: []control.Node{0, 1}, rotten: 1, stands: 0, different: 1},
		"both did, and what is read is bad":  {lost: []control.Node{0, 1}, rotten: 0, stands: 0, different: 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := servedPair(t, testSize)
			a := p.nodes[0]
			a.write(4<<20, 7, 1<<20)
			a.flush()
			for _, h := range p.nodes {
				if err := h.m.Close(); err != nil {
					t.Fatal(err)
				}
				h.drive.detach()
			}
			for _, n := range c.lost {
				p.nodes[n].drive.loseSums(t)
			}
			const blk = 1024 + 5
			p.nodes[c.rotten].drive.rot(t, blk)
			stands := p.nodes[c.stands].drive.contents()[blk*block.Unit:][:block.Unit]
			for _, h := range p.nodes {
				h.start()
			}
			p.paired(1, 11, 0, 3, 0, 0, 1)
			a.awaitStage("paired")
			st := a.scrubbed(t)
			if st.RepairedBlocks != c.repaired || st.Scrub.PeerRepaired != c.peer || st.Scrub.Different != c.different {
				t.Errorf("%+v", st)
			}
			if !bytes.Equal(a.drive.contents()[blk*block.Unit:][:block.Unit], stands) {
				t.Errorf("the version of node %c does not stand", 'a'+c.stands)
			}
			p.sameLegs()
			if c.different > 0 {
				e := a.awaitEvent("the difference", func(e control.Event) bool { return e.Fault != nil && e.Fault.Code == "REPL-2006" })
				if !strings.Contains(e.Fault.Why, "neither leg has a checksum") {
					t.Error(e.Fault.Why)
				}
			}
			if again := a.scrubbed(t); again.Scrub.Different != c.different || again.RepairedBlocks != c.repaired {
				t.Errorf("the next pass: %+v", again)
			}
		})
	}
}

// A scrub that loses the other node ends early, costs nobody anything, and is due again.
func TestScrubIsCutShort(t *testing.T) {
	p := servedPair(t, testSize)
	a, b := p.nodes[0], p.nodes[1]
	stop := make(chan struct{})
	reads := b.drive.hang(stop)
	if err := a.m.Scrub(testVolume); err != nil {
		t.Fatal(err)
	}
	if err := a.m.Scrub(testVolume); err == nil {
		t.Error("ordered twice")
	}
	await(t, "the scrub at the other node", func() bool { return reads.Load() > 0 })
	b.m.link.Lane().Close(errMedium)
	await(t, "the end of the scrub", func() bool { s := a.m.Status().Volumes[0].Scrub; return !s.Running && !s.Ordered })
	close(stop)
	if s := a.m.Status().Volumes[0].Scrub; s.Passes != 0 || s.Why == "" {
		t.Errorf("%+v", s)
	}
	a.awaitStage("paired")
	a.scrubbed(t)
}

// hang makes reads hang until stop; it counts them.
func (d *drive) hang(stop <-chan struct{}) *atomic.Int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	reads := new(atomic.Int64)
	for _, data := range d.data {
		data.Hook(func(op crashdev.Op) error {
			if op.Kind == crashdev.Read {
				reads.Add(1)
				<-stop
			}
			return nil
		})
	}
	return reads
}

// A daemon that is stopped during a scrub closes no leg before the scrub has ended, so what it repairs is neither half done nor an error
// of the leg.
func TestAScrubEndsBeforeItsLegIsClosed(t *testing.T) {
	p := servedPair(t, testSize)
	a := p.nodes[0]
	a.write(0, 7, 4096)
	a.flush()
	a.drive.rot(t, 1024+5)
	id, _ := parseID(testVolume) // a constant
	repairing, closing := make(chan struct{}), make(chan struct{})
	var once, closed sync.Once
	a.drive.data[id].Hook(func(op crashdev.Op) error {
		switch {
		case op.Kind == crashdev.Write && op.Off == (1024+5)*block.Unit:
			once.Do(func() { close(repairing) })
			<-a.m.ctx.Done()
			select { // nothing tells that the leg is not closed meanwhile
			case <-closing:
			case <-time.After(50 * time.Millisecond):
			}
		case op.Kind == crashdev.Sync && a.m.ctx.Err() != nil:
			closed.Do(func() { close(closing) })
			select {
			case <-a.m.scrubsOver:
			default:
				t.Error("a leg is closed while it is scrubbed")
			}
		}
		return nil
	})
	if err := a.m.Scrub(testVolume); err != nil {
		t.Fatal(err)
	}
	<-repairing
	if err := a.m.Close(); err != nil {
		t.Fatal(err)
	}
	a.drive.detach()
	m, err := meta.Open(a.drive.meta[id])
	if err != nil {
		t.Fatal(err)
	}
	if s := m.Super(); s.State != meta.UpToDate || s.Flags&meta.FlagOpen != 0 {
		t.Errorf("the leg is %s, flags %x: %s", s.State, s.Flags, s.ReasonText)
	}
	if !a.holds(1024+5, 0) {
		t.Error("not repaired")
	}
}

// A repair gives its place up when the volume goes to the other node, whose write may be what the block is waiting for there.
func TestARepairGivesWayToTheNewOwner(t *testing.T) {
	p := servedPair(t, testSize)
	a, b := p.nodes[0], p.nodes[1]
	a.write(0, 7, 1<<20)
	a.flush()
	a.drive.rot(t, 5)
	id, _ := parseID(testVolume) // a constant
	reached, release := make(chan struct{}), make(chan struct{})
	var reads atomic.Int64
	a.drive.data[id].Hook(func(op crashdev.Op) error {
		if op.Kind == crashdev.Read && op.Off == 5*block.Unit && reads.Add(1) == 2 { // the one of the repair
			close(reached)
			<-release
		}
		return nil
	})
	type answer struct {
		got byte
		err error
	}
	read, wrote := make(chan answer, 1), make(chan error, 1)
	go func() {
		got, err := a.readBlock(5)
		read <- answer{got, err}
	}()
	<-reached
	p.paired(1, 11, 1, 3, 0, 1, 0)
	go func() { wrote <- b.vol().WriteAt(context.Background(), fill(block.Unit, 9), 5*block.Unit, false) }()
	await(t, "the write in flight", func() bool { l, _ := b.vol().Record(); return l.InFlightBlocks == 1 })
	close(release)
	for range 2 {
		select {
		case err := <-wrote:
			if err != nil {
				t.Error(err)
			}
		case r := <-read:
			if r.err != nil || r.got != 7 && r.got != 9 {
				t.Errorf("the read: %d, %v", r.got, r.err)
			}
		case <-time.After(patience):
			t.Fatal("both nodes wait for each other")
		}
	}
	p.settled()
}

// A volume is scrubbed by itself, once it was due.
func TestScrubsByItself(t *testing.T) {
	var ahead atomic.Int64
	p := newPair(t)
	p.clock = func() int64 { return volume.Boottime() + ahead.Load() }
	for _, h := range p.nodes {
		h.start()
	}
	p.serve(1, 11)
	p.allPaired()
	a := p.nodes[0]
	look := func() { // as the tickers do, sooner
		for _, h := range p.nodes {
			select {
			case h.m.scrubAsked <- struct{}{}:
			default:
			}
		}
	}
	passes := func() int { return a.m.Status().Volumes[0].Scrub.Passes }
	began := p.clock()
	for i, wait := range []time.Duration{scrubFirst, scrubEvery} {
		if e := a.m.scrubDue(began); e != nil {
			t.Fatalf("due too early, after %d passes", i)
		}
		ahead.Add(int64(wait))
		p.paired(1, 11, 0, 3, 0, 0, 1)
		look()
		await(t, "a pass", func() bool { return passes() == i+1 && !a.m.Status().Volumes[0].Scrub.Running })
	}
	b := p.nodes[1]
	if s := b.m.Status().Volumes[0].Scrub; s.Passes != 0 || s.Why != "" {
		t.Errorf("the other node: %+v", s)
	}
	p.paired(1, 11, 1, 3, 0, 1, 0) // for b it is due since its first hour
	look()
	await(t, "a pass at the new owner", func() bool { return b.m.Status().Volumes[0].Scrub.Passes == 1 })
}

// zeroCRC is a block whose CRC32C is 0, which is no sum in a table.
func zeroCRC() []byte {
	p := fill(block.Unit, 7)
	copy(p[block.Unit-4:], []byte{0x76, 0xeb, 0x41, 0x54})
	return p
}

// A block whose checksum is 0 is a block like any other on every way it may go: written, forwarded, copied, fetched for a repair.
func TestABlockWhoseSumIsZero(t *testing.T) {
	p := servedPair(t, testSize)
	a, b := p.nodes[0], p.nodes[1]
	write := func(h *host, blk int64) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.vol().WriteAt(ctx, zeroCRC(), blk*block.Unit, false); err != nil {
			t.Fatalf("node %c: %v", 'a'+h.node, err)
		}
	}
	write(a, 1)
	write(b, 2)
	a.drive.rot(t, 1)
	for _, h := range p.nodes {
		if got, err := h.readBlock(1); err != nil || got != 7 {
			t.Errorf("node %c reads %d, %v", 'a'+h.node, got, err)
		}
	}
	b.crash()
	a.solo(2)
	write(a, 3)
	b.start()
	p.rejoin(0, 3, 12)
	p.sameLegs()
	for {
		select {
		case e := <-a.events:
			if e.Link != nil && !e.Link.Up && e.Link.Session == 12 {
				t.Error("the lane of the second session went down")
			}
			continue
		default:
		}
		break
	}
}
