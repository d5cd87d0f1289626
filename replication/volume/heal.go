package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"duet/replication/block"
	"duet/replication/link"
	"duet/replication/meta"
	"duet/replication/volume/stage"
)

// A leg keeps a checksum of each of its blocks (package meta), and every block that is read from it is compared with its
// sum before it is used. One that does not fit, or cannot be read, is fetched from the other leg, whatever that leg is at
// the moment: what has the sum that is expected here is the block that was acknowledged (replication.md 9.3).
//
// What is bad is listed durably (meta.DamagedBlock) before anything is done about it: a crash makes the sums of what is hot unknown, and
// without the list it would count as good from then on, here and, over a copy, on the other leg. A block that is listed and has no sum in
// the table is bad, unless it has the one of the list. It leaves the list when it is good, durably, before that is acknowledged; so a crash
// at any point leaves it bad, or good.

const (
	// readErrorsMax is how many blocks a leg may fail to read within readErrorsFor before it is taken out, if the other leg
	// counts, too.
	readErrorsMax = 16
	readErrorsFor = time.Hour
	// damagedMax bounds how many damaged blocks are told one by one.
	damagedMax = 1024
)

// errDamaged: no leg has the block as it was acknowledged. It is the one error of a medium that a client gets.
var errDamaged = fmt.Errorf("a block is damaged on every leg: %w", syscall.EIO)

// errUnsure: the other leg has the block, and cannot say whether it is the one that was written.
var errUnsure = errors.New("the other leg has no checksum of the block")

// badBlock is one that a leg cannot give.
type badBlock struct {
	n          int64 // its number
	unreadable bool  // else it contradicts its sum
}

// read reads a range of the leg, whose place in the overlap lock the caller has, and compares it with its sums. bad are the
// blocks of p that say nothing. An error means that the leg says nothing any more.
func (leg *parts) read(p []byte, off int64) (bad []badBlock, err error) {
	switch err = leg.data.ReadAt(p, off); {
	case errors.Is(err, block.ErrDead), errors.Is(err, block.ErrClosed), errors.Is(err, block.ErrInvalid):
		return nil, err
	case err != nil:
		return leg.readEach(p, off), nil
	}
	listed := leg.meta.Damaged(off/Block, int64(len(p)/Block))
	var table [MaxRequest / Block]uint32
	for len(p) > 0 {
		sums := table[:min(len(table), len(p)/Block)]
		leg.meta.Sums(off/Block, sums)
		for i, want := range sums {
			if n := off/Block + int64(i); !leg.good(p[i*Block:][:Block], n, want) {
				bad = append(bad, badBlock{n: n})
			} else if listed {
				if err := leg.unlist(n); err != nil { // it was a bad moment of the drive
					return nil, err
				}
			}
		}
		p, off = p[len(sums)*Block:], off+int64(len(sums)*Block)
	}
	return bad, nil
}

// good says that what was read of a block is what its sum is of, or that it has none and nothing else speaks against it.
func (leg *parts) good(p []byte, n int64, want uint32) bool {
	if want == meta.SumUnknown && !leg.meta.Damaged(n, 1) {
		return true
	}
	if want == meta.SumUnknown {
		want = leg.meta.Expected(n)
	}
	return meta.SumOf(p) == want
}

// unlist takes a block from the list of damaged ones: what was read of it is good. It may have been written just before a crash of the
// daemon, and be durable only after a sync.
func (leg *parts) unlist(n int64) error {
	if !leg.meta.Damaged(n, 1) {
		return nil
	}
	if err := leg.data.Sync(); err != nil {
		return err
	}
	return leg.meta.Undamaged(n, 1)
}

// readEach reads block by block, where a larger read failed.
func (leg *parts) readEach(p []byte, off int64) (bad []badBlock) {
	for i := int64(0); i < int64(len(p)); i += Block {
		b := badBlock{n: (off + i) / Block}
		if err := leg.data.ReadAt(p[i:i+Block], off+i); err != nil {
			b.unreadable = true
		} else if leg.good(p[i:i+Block], b.n, leg.sum(b.n)) {
			continue
		}
		bad = append(bad, b)
	}
	return bad
}

func (leg *parts) sum(b int64) uint32 {
	var one [1]uint32
	leg.meta.Sums(b, one[:])
	return one[0]
}

// unsure says that the sum of one of these blocks is not known.
func (leg *parts) unsure(off, n int64) bool {
	var table [MaxRequest / Block]uint32
	sums := table[:n/Block]
	leg.meta.Sums(off/Block, sums)
	return slices.Contains(sums, meta.SumUnknown)
}

// learn fills in the sums that are unknown from what was read, which is what the legs are compared by. bad says nothing, nor do the
// blocks that have a bit in differ, which may be nil.
func (leg *parts) learn(p []byte, off int64, bad []badBlock, differ []byte) error {
	sums := sumsOf(p)
	for _, b := range bad {
		sums[b.n-off/Block] = meta.SumUnknown
	}
	for i := range sums {
		if differ != nil && hasBit(differ, int64(i)) {
			sums[i] = meta.SumUnknown
		}
	}
	if !leg.meta.Learn(off/Block, sums) || leg.meta.ReadOnly() {
		return nil
	}
	first, last := extentsOf(off, int64(len(p)))
	for e := first; e <= last; e++ {
		if err := leg.meta.StoreSums(e); err != nil {
			return err
		}
	}
	return nil
}

// sumsOf are the sums of whole blocks.
func sumsOf(p []byte) []uint32 {
	sums := make([]uint32, len(p)/Block)
	for i := range sums {
		sums[i] = meta.SumOf(p[i*Block:][:Block])
	}
	return sums
}

// zeroSums are those of zeroes; they are never changed.
var zeroSums = func() (sums [MaxRequest / Block]uint32) {
	for i := range sums {
		sums[i] = meta.SumOfZero
	}
	return sums
}()

// healAll heals one after another; errDamaged: not all of them. Another error is of the leg, or the end of ctx.
func (v *Volume) healAll(ctx context.Context, bad []badBlock) error {
	var damaged error
	for _, b := range bad {
		err := v.heal(ctx, b)
		if err != nil && !errors.Is(err, errDamaged) {
			return err
		}
		damaged = errors.Join(damaged, err)
	}
	return damaged
}

// heal makes a block good again that this leg could not give. nil: look again. errDamaged: nobody has it.
//
// Whoever carries out the requests may repair. Once that is the other node its writes have the place in the order of the lane, so a
// repair that waits for it with the block locked here would wait for a write that waits for the repair.
func (v *Volume) heal(ctx context.Context, b badBlock) error {
	c, err := v.locks.lock(ctx, b.n, 1, true)
	if err != nil {
		return err
	}
	held := true
	release := func() {
		if held {
			v.locks.release(c)
			held = false
		}
	}
	defer release()
	mine, end, err := v.whileMine(ctx)
	if err != nil {
		return nil //nolint:nilerr // look again: it is the other node's now
	}
	defer end()
	leg := v.parts.Load()
	buf := block.Get(Block)
	defer block.Put(buf)
	bad, err := leg.read(buf, b.n*Block)
	switch {
	case err != nil:
		return v.legError("read", err)
	case len(bad) == 0: // somebody was quicker, or it was a bad moment of the drive
		return v.unlist(leg, b.n)
	}
	b = bad[0]
	if err := v.list(leg, b); err != nil {
		return err
	}
	if b.unreadable && v.tooManyReadErrors() {
		return v.legError("read", fmt.Errorf("more than %d blocks could not be read within %v", readErrorsMax, readErrorsFor))
	}
	unknown := leg.sum(b.n) == meta.SumUnknown
	v.mu.Lock()
	lane, linked, both := v.lane, v.facts.Linked, v.facts.Self && v.facts.Peer
	either := both && (unknown || v.suspectSum(b.n)) // replication.md 10.1: either version is right
	v.mu.Unlock()
	if lane == nil || !linked {
		if !both {
			return v.noteDamaged(b)
		}
		release()
		return v.wait(ctx, func() bool { return v.facts.Linked || !v.facts.Peer })
	}
	good, err := v.fetch(mine, lane, b.n, 0)
	if good != nil {
		defer block.Put(good)
	}
	switch {
	case errors.Is(err, link.ErrLost):
		release()
		return v.wait(ctx, func() bool { return v.lane != lane })
	case errors.Is(err, errDamaged):
		return v.noteDamaged(b)
	case err != nil:
		return ctx.Err() // nil: it is the other node's now
	case meta.SumOf(good) == leg.meta.Expected(b.n):
	case both && !b.unreadable && bytes.Equal(buf, good):
		v.env.Log.Warn("a checksum was wrong: both legs have the same block", "volume", v.ID, "block", b.n)
		return v.trust(leg, b, good)
	case either:
		v.env.Log.Warn("a bad block without a sum that counts is the other leg's now", "volume", v.ID, "block", b.n)
	default:
		return v.noteDamaged(b)
	}
	return v.repair(leg, b, good)
}

// suspectSum says that the known sum of a block may be older than the block. A leg that lost its power may have lost the newest block of
// its activity log: what the log would have named looks settled, with the sums from before. The target's log names it as well, for
// what is written is hot on both. Between two legs that count either version of such a block is right (replication.md 10.1), so one
// that is bad here is the other leg's. The caller holds mu.
func (v *Volume) suspectSum(b int64) bool {
	s := v.copying
	return s != nil && s.keep && v.rebooted && s.named.has(b/meta.BlocksPerExtent)
}

// whileMine is ctx for as long as this node may repair: it carries out the requests, or copies this leg.
func (v *Volume) whileMine(ctx context.Context) (mine context.Context, end context.CancelFunc, err error) {
	over := func() bool { return v.copying == nil && !stage.Reads(v.facts) }
	v.mu.Lock()
	already := over()
	v.mu.Unlock()
	if already {
		return nil, nil, errNotNow
	}
	mine, end = context.WithCancel(ctx)
	go func() {
		if v.until(mine, over) == nil {
			end()
		}
	}()
	return mine, end, nil
}

// wait is until for a client, which has no copy that could be over.
func (v *Volume) wait(ctx context.Context, ready func() bool) error {
	if v.until(ctx, ready) != nil {
		return ctx.Err()
	}
	return nil
}

// repair writes a block anew, durably, and looks whether it stays. A leg that does not keep it is dead.
func (v *Volume) repair(leg *parts, b badBlock, good []byte) error {
	off := b.n * Block
	err := leg.mend(good, off)
	v.leaves.touch(off, Block)
	if err != nil {
		return v.legError("repair", err)
	}
	buf := block.Get(Block)
	defer block.Put(buf)
	if err := leg.data.ReadAt(buf, off); err != nil {
		return v.legError("repair", err)
	}
	if !bytes.Equal(buf, good) {
		return v.legError("repair", fmt.Errorf("block %d does not keep what is written to it", b.n))
	}
	if err := leg.learn(good, off, nil, nil); err != nil {
		return v.legError("repair", err)
	}
	if err := v.unlist(leg, b.n); err != nil {
		return err
	}
	v.count.repaired.Add(1)
	v.env.Log.Warn("a block was repaired from the other leg", "volume", v.ID, "block", b.n, "unreadable", b.unreadable)
	return nil
}

// list notes durably that a block of this leg is not what was written, and counts it, for people. The caller has a place of it in the
// overlap lock.
func (v *Volume) list(leg *parts, b badBlock) error {
	v.mu.Lock()
	_, told := v.damaged[b.n]
	v.mu.Unlock()
	full := len(leg.meta.Super().Damaged) == meta.DamagedMax
	if leg.meta.Damaged(b.n, 1) || full && told {
		return nil
	}
	sum := leg.sum(b.n)
	err := leg.meta.Change(func(s *meta.Superblock) {
		s.AddDamaged(b.n, sum)
		if b.unreadable {
			s.ReadErrors++
		} else {
			s.SumErrors++
		}
	})
	if err != nil {
		return v.legError("list of damaged blocks", err)
	}
	return nil
}

// trust notes the sum of a block that was not bad.
func (v *Volume) trust(leg *parts, b badBlock, good []byte) error {
	e, _ := extentsOf(b.n*Block, Block)
	if err := leg.meta.Begin(e, e); err != nil {
		return v.legError("activity log", err)
	}
	defer leg.meta.End(e, e)
	leg.meta.SetSums(b.n, sumsOf(good))
	return v.unlist(leg, b.n)
}

// unlist is parts.unlist of what is good and durable.
func (v *Volume) unlist(leg *parts, b int64) error {
	if err := leg.meta.Undamaged(b, 1); err != nil {
		return v.legError("list of damaged blocks", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.undamaged(b, 1)
	return nil
}

// mend writes a block that was bad. What the table says of it already, or says nothing of, makes its extent not hot: a power cut before
// the block is durable would make every sum of the extent unknown, so that what is bad there counts as good. The block contradicts its
// sum, or cannot be read, until it is whole, and nothing else is written meanwhile.
func (leg *parts) mend(good []byte, off int64) error {
	switch sums := sumsOf(good); leg.sum(off / Block) {
	case sums[0], meta.SumUnknown:
		return leg.data.WriteAt(good, off, block.Durable)
	default:
		return leg.put(good, sums, off, Block, block.Durable)
	}
}

// fetch asks for the other leg's block; with the flag Vouched errUnsure says that it has no sum there. The buffer is the caller's.
func (v *Volume) fetch(ctx context.Context, lane *link.Lane, b int64, flags uint8) ([]byte, error) {
	buf := block.Get(Block)
	done := make(chan error, 1)
	f := &link.Frame{Type: link.LegRead, Flags: flags, Volume: v.handleNow(), Offset: uint64(b * Block), Length: Block}
	lane.Ask(f, buf, func(status uint32, err error) {
		switch {
		case err == nil && status == statusUnsure:
			err = errUnsure
		case err == nil && status != statusDone:
			err = errDamaged
		}
		done <- err
	})
	select {
	case err := <-done:
		return buf, err
	case <-ctx.Done():
		go func() { <-done; block.Put(buf) }() // the answer comes, or the lane ends
		return nil, ctx.Err()
	}
}

// giveBlock answers a fetch with what this leg holds, in the order of the lane. A block that contradicts its own sum is not given.
func (v *Volume) giveBlock(l *link.Lane, f *link.Frame, failed bool) error {
	off, n := int64(f.Offset), int64(f.Length)
	if v.inRange(off, n) != nil || n > MaxRequest || f.Request == 0 || len(f.Payload) > 0 {
		return drop(f, fmt.Errorf("%w: range of a read", link.ErrFrame))
	}
	c := v.locks.enqueue(off/Block, n/Block, false)
	v.spawn(func() {
		if !v.granted(c) {
			return
		}
		buf := block.Get(int(n))
		leg := v.parts.Load()
		bad, err := leg.read(buf, off)
		unsure := f.Flags&link.Vouched != 0 && leg.unsure(off, n)
		for _, b := range bad {
			if err == nil && !failed {
				err = v.list(leg, b) // it may be damaged for good
			}
		}
		v.locks.release(c)
		if status := uint32(statusDamaged); failed || err != nil || len(bad) > 0 || unsure {
			if unsure && len(bad) == 0 {
				status = statusUnsure
			}
			block.Put(buf)
			l.Ack(f.Request, status)
			return
		}
		l.Reply(f.Request, buf, func() { block.Put(buf) })
	})
	return nil
}

// noteDamaged tells of a block that no leg has; it is errDamaged. A whole write makes it good.
func (v *Volume) noteDamaged(b badBlock) error {
	v.mu.Lock()
	_, known := v.damaged[b.n]
	known = known || len(v.damaged) >= damagedMax
	if !known {
		v.damaged[b.n] = struct{}{}
	}
	v.mu.Unlock()
	if known {
		return errDamaged
	}
	why := "It contradicts its checksum"
	if b.unreadable {
		why = "The drive cannot read it"
	}
	v.fault("REPL-2011", "A block of a volume is damaged on every leg",
		fmt.Sprintf("Block %d, at byte %d. %s, and the other leg does not have it as it was written.", b.n, b.n*Block, why),
		"Bring the other node back if it is away: its leg may have the block. Else restore what lies there from a backup: a write of the whole block makes it good.")
	return errDamaged
}

// undamaged: the blocks of a write are good again. The caller holds mu.
func (v *Volume) undamaged(first, blocks int64) {
	for b := range v.damaged {
		if b >= first && b < first+blocks {
			delete(v.damaged, b)
		}
	}
}

// tooManyReadErrors counts one more, and says whether the leg is to be taken out for them: never the only one.
func (v *Volume) tooManyReadErrors() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.env.Clock()
	v.readErrors = append(v.readErrors, now)
	for now-v.readErrors[0] > int64(readErrorsFor) {
		v.readErrors = v.readErrors[1:]
	}
	return len(v.readErrors) > readErrorsMax && v.facts.InStep && v.facts.Peer
}

// takeBad takes a block of a copy that is damaged at the source: its sum says what the block was. If this leg has it, it stays
// good, and the source may fetch it; else it is damaged here, too, and both legs say so.
func (v *Volume) takeBad(off int64, sum uint32) uint32 {
	leg := v.parts.Load()
	if err := leg.takeBad(off, sum); err != nil {
		_ = v.legError("a damaged block", err) //nolint:errcheck // told by the status
		return statusFailed
	}
	return statusDone
}

func (leg *parts) takeBad(off int64, sum uint32) error {
	b, e := off/Block, off/meta.ExtentBytes
	buf := block.Get(Block)
	defer block.Put(buf)
	err := leg.data.ReadAt(buf, off)
	has := err == nil && meta.SumOf(buf) == sum
	if dead := errors.Is(err, block.ErrDead) || errors.Is(err, block.ErrClosed); dead {
		return err
	}
	if !has {
		if err := leg.meta.Change(func(s *meta.Superblock) { s.AddDamaged(b, sum) }); err != nil {
			return err
		}
	}
	if err := leg.meta.Begin(e, e); err != nil {
		return err
	}
	defer leg.meta.End(e, e)
	leg.meta.SetSums(b, []uint32{sum})
	if !has {
		return nil
	}
	return leg.unlist(b)
}

// expected is the sum that a damaged block should have. Where nothing says what was there it is one that p, which was read of it, has not,
// and from here on the block's: both legs are to know it as damaged.
func (leg *parts) expected(b int64, p []byte) uint32 {
	if sum := leg.meta.Expected(b); sum != meta.SumUnknown {
		return sum
	}
	sum := meta.Stored(meta.SumOf(p) ^ 1<<31)
	leg.meta.Learn(b, []uint32{sum})
	return sum
}

// badMark stands for a damaged block where blocks are digested: two legs that both know it as damaged are equal.
func badMark(sum uint32) []byte {
	p := make([]byte, Block)
	copy(p, fmt.Sprintf("duet: a damaged block, its sum is %08x", sum))
	return p
}
