package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"duet/replication/block"
	"duet/replication/link"
	"duet/replication/meta"
	"duet/replication/volume/stage"
)

// A scrub reads all of both legs while they are paired, compares them block by block, and repairs what is bad on either
// (replication.md section 11). The node that coordinates the volume does it, a piece at a time, so that a request waits for no
// more than the reading of one piece.

const (
	scrubPiece = 256 << 10 // locked, read on both legs, compared
	// compareLimit is how long an answer about a piece may take; then the pass ends, and the next one begins again.
	compareLimit = 10 * time.Second
)

// ErrNotPaired ends a scrub: this node does not coordinate the volume, or one leg does not count.
var ErrNotPaired = errors.New("the volume is not coordinated here, or its legs are not both in sync")

// Pace says how far a scrub is and waits until it may go on.
type Pace func(ctx context.Context, done int64) error

// Scrub makes one pass. It ends early with ErrNotPaired, with the error of pace, or when ctx ends.
func (v *Volume) Scrub(ctx context.Context, pace Pace) error {
	for off := int64(0); off < v.size; off += scrubPiece {
		if err := pace(ctx, off); err != nil {
			return err
		}
		if err := v.scrubPiece(ctx, off, min(scrubPiece, v.size-off)); err != nil {
			return err
		}
	}
	return nil
}

// PairedHere says that a scrub may begin.
func (v *Volume) PairedHere() bool { return v.allowed(pairedHere) }

// Operations counts what clients have done; it moves while they use the volume.
func (v *Volume) Operations() uint64 {
	return v.count.reads.Load() + v.count.writes.Load() + v.count.flushes.Load()
}

func pairedHere(f stage.Facts) bool { return stage.Of(f) == stage.Paired && stage.Coordinates(f) }

// scrubPiece compares one piece of both legs and settles what is different or bad.
func (v *Volume) scrubPiece(ctx context.Context, off, n int64) error {
	buf := block.Get(int(n))
	defer block.Put(buf)
	differ, bad, err := v.compare(ctx, buf, off, false)
	if err == nil && len(bad) > 0 {
		if err := v.healAll(ctx, bad); err != nil && !errors.Is(err, errDamaged) {
			return err
		}
		differ, _, err = v.compare(ctx, buf, off, true)
	}
	if err != nil {
		return err
	}
	for i := range n / Block {
		if !hasBit(differ, i) {
			continue
		}
		if err := v.settleDifference(ctx, off/Block+i); err != nil {
			return err
		}
	}
	return nil
}

// compare digests a piece of this leg and asks the other node which of its blocks are different there. With bad blocks, which this
// leg cannot give, it does so only if they are known already. A sum that is unknown is learned, on both legs, where they are equal:
// what one leg holds without a sum may be what rotted there.
func (v *Volume) compare(ctx context.Context, buf []byte, off int64, known bool) (differ []byte, bad []badBlock, err error) {
	c, err := v.locks.lock(ctx, off/Block, int64(len(buf))/Block, false)
	if err != nil {
		return nil, nil, err
	}
	lane, err := v.pairedLane()
	if err != nil {
		v.locks.release(c)
		return nil, nil, err
	}
	leg := v.parts.Load()
	bad, err = leg.read(buf, off)
	switch {
	case err != nil:
		err = v.legError("scrub", err)
	case known || len(bad) == 0:
		leg.mark(buf, off, bad)
	}
	if err != nil || len(bad) > 0 && !known {
		v.locks.release(c)
		return nil, bad, err
	}
	answer := make(chan error, 1)
	f := &link.Frame{
		Type: link.Compare, Volume: v.handleNow(), Offset: uint64(off), Length: uint32(len(buf)), Payload: digestsOf(buf),
	}
	differ = make([]byte, (len(buf)/Block+7)/8)
	lane.Ask(f, differ, func(status uint32, err error) {
		if err == nil && status != statusDone {
			err = ErrNotPaired
		}
		answer <- err
	})
	v.locks.release(c) // the lane has it: what is written from here on comes after it there, too
	limit := time.NewTimer(compareLimit)
	defer limit.Stop()
	select {
	case err = <-answer:
	case <-limit.C:
		err = fmt.Errorf("%w: no answer about a piece for %v", ErrNotPaired, compareLimit)
	case <-ctx.Done():
		err = ctx.Err()
	}
	switch {
	case errors.Is(err, link.ErrLost):
		err = ErrNotPaired
	case err == nil:
		err = v.learn(leg, buf, off, bad, differ)
	}
	return differ, bad, err
}

// pairedLane is the way to the other leg, if both are in step and this node coordinates them.
func (v *Volume) pairedLane() (*link.Lane, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed || v.lane == nil || !pairedHere(v.facts) || !v.live() {
		return nil, ErrNotPaired
	}
	return v.lane, nil
}

// settleDifference looks at a block that was different, with nobody writing it, and gives both legs one version. A leg that knows the
// block's sum vouches for what it has; if both do, or neither, this leg's version stands: it is what clients read.
func (v *Volume) settleDifference(ctx context.Context, b int64) error {
	c, err := v.locks.lock(ctx, b, 1, true)
	if err != nil {
		return err
	}
	mine, end, err := v.whileMine(ctx)
	if err != nil {
		v.locks.release(c)
		return ErrNotPaired
	}
	defer end()
	buf := block.Get(Block)
	defer block.Put(buf)
	tell, err := v.judgeDifference(mine, b, buf)
	if mine.Err() != nil && ctx.Err() == nil {
		err = ErrNotPaired
	}
	q := &request{off: b * Block, n: Block, p: buf, sums: sumsOf(buf), fua: true}
	if err != nil || tell == nil || !v.begin(q) {
		v.locks.release(c)
		return err
	}
	if answered, err := v.runLocked(ctx, q, c); err != nil || !answered {
		return errors.Join(ErrNotPaired, err)
	}
	tell()
	return nil
}

// judgeDifference reads a block of this leg. If it is to be written to the other one, tell is to be called when that is done; where the
// other one's stands, it has been written here. The caller has its place.
func (v *Volume) judgeDifference(ctx context.Context, b int64, buf []byte) (tell func(), err error) {
	lane, err := v.pairedLane()
	if err != nil {
		return nil, err
	}
	bad, err := v.parts.Load().read(buf, b*Block)
	switch {
	case err != nil:
		return nil, v.legError("scrub", err)
	case len(bad) > 0:
		return nil, nil // damaged, as was told; if the other leg had it, it would have been healed
	}
	theirs, err := v.fetch(ctx, lane, b, 0)
	if theirs != nil {
		defer block.Put(theirs)
	}
	switch {
	case errors.Is(err, errDamaged):
		return func() { v.repairedThere(b, "a block was bad on the other leg and is repaired") }, nil
	case errors.Is(err, link.ErrLost):
		return nil, ErrNotPaired
	case err != nil:
		return nil, err
	case bytes.Equal(buf, theirs):
		return nil, nil
	}
	return v.judgeVersions(ctx, lane, b, buf, theirs)
}

// judgeVersions decides between two versions of a block, neither of which contradicts a sum.
func (v *Volume) judgeVersions(ctx context.Context, lane *link.Lane, b int64, mine, theirs []byte) (tell func(), err error) {
	again, err := v.fetch(ctx, lane, b, link.Vouched) // nobody writes it meanwhile
	if again != nil {
		block.Put(again)
	}
	leg := v.parts.Load()
	sure, theySure := !leg.unsure(b*Block, Block), err == nil
	mySum, theirSum := meta.SumOf(mine), meta.SumOf(theirs)
	switch {
	case errors.Is(err, link.ErrLost):
		return nil, ErrNotPaired
	case err != nil && !errors.Is(err, errUnsure):
		return nil, err
	case sure && !theySure:
		return func() {
			v.repairedThere(b, "a block without a checksum was different on the other leg and is repaired")
		}, nil
	case theySure && !sure:
		v.env.Log.Warn("a block without a checksum is different here, and the other leg has one", "volume", v.ID, "block", b, "mine", mySum, "theirs", theirSum)
		return nil, v.repair(leg, badBlock{n: b}, theirs)
	}
	return func() { v.differed(b, mySum, theirSum, sure) }, nil
}

// repairedThere counts a block of the other leg that is good again.
func (v *Volume) repairedThere(b int64, what string) {
	v.count.repairedPeer.Add(1)
	v.env.Log.Warn(what, "volume", v.ID, "block", b)
}

// differed tells of two legs of which both vouched for different content, or neither did: a bug, or a drive that lost a write and its
// sum together.
func (v *Volume) differed(b int64, mine, theirs uint32, vouched bool) {
	v.count.differed.Add(1)
	why := "each leg has its own for good"
	if !vouched {
		why = "neither leg has a checksum of the block that counts"
	}
	v.fault("REPL-2006", "The legs of a volume were different without a sign of it",
		fmt.Sprintf("Block %d, at byte %d: sum %08x here, %08x on the other leg, and %s.", b, b*Block, mine, theirs, why),
		"The version of the node that serves the volume was written to both. Export a support bundle: this must not happen.")
}

// compareBlocks answers which blocks of a piece are different on this leg, in the order of the lane.
func (v *Volume) compareBlocks(l *link.Lane, f *link.Frame, failed bool) error {
	off, n := int64(f.Offset), int64(f.Length)
	if v.inRange(off, n) != nil || n > MaxRequest || int64(len(f.Payload)) != n/Block*digestBytes || f.Request == 0 {
		return drop(f, fmt.Errorf("%w: range of a comparison", link.ErrFrame))
	}
	c := v.locks.enqueue(off/Block, n/Block, false)
	v.spawn(func() {
		if !v.granted(c) {
			_ = drop(f, nil) //nolint:errcheck // always nil
			return
		}
		buf := block.Get(int(n))
		defer block.Put(buf)
		bits, err := []byte(nil), errDeadLeg
		if !failed {
			bits, err = v.compareWith(buf, off, f.Payload)
		}
		v.locks.release(c)
		_ = drop(f, nil) //nolint:errcheck // always nil
		if err != nil {
			l.Ack(f.Request, statusFailed)
			return
		}
		l.Reply(f.Request, bits, func() {})
	})
	return nil
}

// compareWith reads a piece of this leg and says which of its blocks have other digests than these.
func (v *Volume) compareWith(buf []byte, off int64, digests []byte) (differ []byte, err error) {
	leg := v.parts.Load()
	bad, err := leg.read(buf, off)
	if err != nil {
		return nil, v.legError("read for a comparison", err)
	}
	v.count.digest.Add(int64(len(buf)))
	leg.mark(buf, off, bad)
	differ = differing(digestsOf(buf), digests)
	return differ, v.learn(leg, buf, off, bad, differ)
}
