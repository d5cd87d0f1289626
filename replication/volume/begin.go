package volume

import (
	"context"
	"sync/atomic"

	"duet/replication/block"
	"duet/replication/internal/batch"
	"duet/replication/link"
	"duet/replication/meta"
	"duet/replication/volume/stage"
)

// Most requests find their way free: nothing overlaps them, the stage admits them, their extents are hot and their sums at hand.
// They need no goroutine: what has begun goes on when the disk or the peer has answered, in the goroutine that hears of it. At
// depth 1 that saves the wake-ups of threads, which were half of the cost of a write, and at depth 32 it makes one call into the
// kernel of many.
//
// Nothing is decided anew here: whatever is not as expected, before or after, goes on in a goroutine of its own on the way of request.go,
// from where it is.

// BeginRead is ReadAt that does not wait: what it needs of the disk goes out when b ends. false: the way is not free, use ReadAt. done is
// called once, perhaps before BeginRead returns, and must not wait. Without an error the buffer, of block.Get, belongs to it.
func (v *Volume) BeginRead(ctx context.Context, b *batch.Batch, off, n int64, done func(*batch.Batch, []byte, error)) bool {
	if n > MaxRequest || v.inRange(off, n) != nil {
		return false
	}
	c := v.locks.try(off/Block, n/Block, false)
	if c == nil {
		return false
	}
	if !v.allowed(stage.AdmitsReads) {
		v.locks.release(c)
		return false
	}
	leg := v.parts.Load()
	leg.data.BeginRead(b, off, int(n), func(b *batch.Batch, p []byte, err error) {
		good := err == nil && leg.fits(p, off)
		v.locks.release(c)
		if good && v.allowed(stage.Reads) {
			v.count.reads.Add(1)
			done(b, p, nil)
			return
		}
		go v.readAgain(ctx, p, off, n, done)
	})
	return true
}

// readAgain reads on the way that waits and heals. p may be nil.
func (v *Volume) readAgain(ctx context.Context, p []byte, off, n int64, done func(*batch.Batch, []byte, error)) {
	if p == nil {
		p = block.Get(int(n))
	}
	err := v.read(ctx, p, off, nil)
	if err != nil {
		block.Put(p)
		p = nil
	}
	var b batch.Batch
	done(&b, p, err)
	b.End()
}

// fits says that every block of p is the one that its sum is of, or has none, as far as that can be told without reading.
func (leg *parts) fits(p []byte, off int64) bool {
	var table [MaxRequest / Block]uint32
	sums := table[:len(p)/Block]
	if leg.meta.Damaged(off/Block, int64(len(sums))) || !leg.meta.TrySums(off/Block, sums) {
		return false
	}
	for i, want := range sums {
		if want != meta.SumUnknown && meta.SumOf(p[i*Block:][:Block]) != want {
			return false
		}
	}
	return true
}

// BeginWrite is WriteAt, without FUA, that does not wait: what it needs of the disk and of the peer goes out when b ends. false: the way is
// not free, use WriteAt. done is called once, perhaps before BeginWrite returns, and must not wait. p is used until then.
func (v *Volume) BeginWrite(ctx context.Context, b *batch.Batch, p []byte, off int64, done func(*batch.Batch, error)) bool {
	n := int64(len(p))
	if n > MaxRequest || v.inRange(off, n) != nil {
		return false
	}
	c := v.locks.try(off/Block, n/Block, true)
	if c == nil {
		return false
	}
	q := &request{off: off, n: n, p: p, sums: sumsOf(p)}
	if !v.begin(q) {
		v.locks.release(c)
		return false
	}
	w := &begun{v: v, ctx: ctx, q: q, c: c, done: done}
	if q.catch || !w.issue(b) {
		go w.finish(v.carry(ctx, q))
	}
	return true
}

// begun is a write that was issued without waiting.
type begun struct {
	v    *Volume
	ctx  context.Context
	q    *request
	c    *claim
	done func(*batch.Batch, error)

	left   atomic.Int32 // legs that have not answered
	failed atomic.Bool  // one of them said no, or will never answer
}

// issue is Volume.issue that does not wait; false: nothing was issued.
func (w *begun) issue(b *batch.Batch) bool {
	q := w.q
	leg := w.v.parts.Load()
	first, last := q.extents()
	if leg.meta.Damaged(q.first(), q.blocks()) || !leg.meta.TryBegin(first, last) {
		return false
	}
	q.hot = leg
	w.left.Store(1)
	if q.both {
		w.left.Store(2)
	}
	leg.data.BeginWrite(b, q.p, q.off, block.Cached, w.localDone) // first: the disk works while the peer is written to
	if q.both && !q.lane.Begin(b, q.frame(), w.peerDone) {
		w.legDone(b, false) // no room, or the lane is dead: both are written again on the way that waits
	}
	return true
}

func (w *begun) peerDone(b *batch.Batch, status uint32, err error) {
	w.legDone(b, w.v.peerWrote(w.q, status, err))
}

func (w *begun) localDone(b *batch.Batch, err error) {
	q := w.q
	switch {
	case err != nil:
		_ = w.v.legError("write", err) //nolint:errcheck // the request is held, not failed
		w.legDone(b, false)
	case q.hot.meta.TrySetSums(q.off/Block, q.sums):
		w.legDone(b, true)
	default:
		go func() {
			q.hot.meta.SetSums(q.off/Block, q.sums)
			var b batch.Batch
			w.legDone(&b, true)
			b.End()
		}()
	}
}

// legDone: the last one concludes.
func (w *begun) legDone(b *batch.Batch, ok bool) {
	if !ok {
		w.failed.Store(true)
	}
	if w.left.Add(-1) > 0 {
		return
	}
	v, q := w.v, w.q
	done := !w.failed.Load()
	if done && v.replies(q) {
		v.end(q, false)
		v.locks.release(w.c)
		v.count.writes.Add(1)
		w.done(b, nil)
		return
	}
	go func() { w.finish(v.carryOn(w.ctx, q, done)) }()
}

// finish concludes on the way that waits.
func (w *begun) finish(d verdict) {
	answered, err := w.v.conclude(w.ctx, w.q, w.c, d)
	switch {
	case answered:
		w.v.count.writes.Add(1)
	case err == nil:
		err = w.v.run(w.ctx, w.q)
	}
	var b batch.Batch
	w.done(&b, err)
	b.End()
}

// replies is mayReply for who does not hold mu.
func (v *Volume) replies(q *request) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mayReply(q)
}

// beginApply begins a write of the coordinator, or of its copy, that has its place c; false: it is to be carried out on the way that
// waits. The answer goes out with the batch that hears of the disk.
func (v *Volume) beginApply(l *link.Lane, f *link.Frame, c *claim) bool {
	if f.Type != link.Write && f.Type != link.Resync || f.Flags&link.FUA != 0 || !c.held() {
		return false
	}
	leg := v.parts.Load()
	off, n := int64(f.Offset), int64(f.Length)
	first, last := extentsOf(off, n)
	if leg.meta.Damaged(off/Block, n/Block) || !leg.meta.TryBegin(first, last) {
		return false
	}
	v.wg.Add(1)
	finish := func(b *batch.Batch, status uint32) {
		leg.meta.End(first, last)
		v.leaves.touch(off, n)
		v.locks.release(c)
		_ = drop(f, nil) //nolint:errcheck // always nil
		l.BeginAck(b, f.Request, status)
		v.wg.Done()
	}
	leg.data.BeginWrite(l.Reading(), f.Payload, off, block.Cached, func(b *batch.Batch, err error) {
		switch {
		case err != nil:
			_ = v.legError("write", err) //nolint:errcheck // told by the status
			finish(b, statusFailed)
		case leg.meta.TrySetSums(off/Block, f.Sums):
			finish(b, statusDone)
		default:
			go func() {
				leg.meta.SetSums(off/Block, f.Sums)
				var b batch.Batch
				finish(&b, statusDone)
				b.End()
			}()
		}
	})
	return true
}

// BeginFlush is Flush that does not wait: what it needs of the disk and of the peer goes out when b ends. false: the way is not free,
// or another flush is under way that this one would share; use Flush. done is called once, perhaps before BeginFlush returns,
// and must not wait.
func (v *Volume) BeginFlush(ctx context.Context, b *batch.Batch, done func(*batch.Batch, error)) bool {
	v.mu.Lock()
	if v.closed || v.flushing != nil || v.nextFlush != nil || !stage.Admits(v.facts) || !v.live() {
		v.mu.Unlock()
		return false
	}
	w := &begunFlush{v: v, ctx: ctx, done: done}
	v.flushing = &flushBatch{} // nobody waits for this one: who comes meanwhile waits for the next
	lane, both, leg := v.lane, stage.Of(v.facts) == stage.Paired, v.parts.Load()
	v.mu.Unlock()
	w.left.Store(1)
	if both {
		w.left.Store(2)
		w.flushPeer(b, lane)
	}
	leg.data.BeginSync(b, func(b *batch.Batch, err error) {
		if err != nil {
			_ = v.legError("sync", err) //nolint:errcheck // the request is held, not failed
		}
		w.legDone(b, err == nil)
	})
	return true
}

// begunFlush is a flush that was issued without waiting.
type begunFlush struct {
	v    *Volume
	ctx  context.Context
	done func(*batch.Batch, error)

	left   atomic.Int32 // legs that have not answered
	failed atomic.Bool
}

// flushPeer is Volume.flushPeer that does not wait.
func (w *begunFlush) flushPeer(b *batch.Batch, lane *link.Lane) {
	v := w.v
	if !v.peerFlush.TryLock() {
		w.legDone(b, false)
		return
	}
	c := v.cover()
	told := func(b *batch.Batch, status uint32, err error) {
		synced := v.covered(c, v.peerSynced(status, err))
		v.peerFlush.Unlock()
		w.legDone(b, synced)
	}
	if !lane.Begin(b, c.frame(), told) {
		told(b, 0, link.ErrLost)
	}
}

// legDone: the last one concludes. What did not go as expected is done again on the way that waits: a flush may be repeated.
func (w *begunFlush) legDone(b *batch.Batch, ok bool) {
	if !ok {
		w.failed.Store(true)
	}
	if w.left.Add(-1) > 0 {
		return
	}
	v := w.v
	v.mu.Lock()
	v.endFlush()
	// The sync is true for ever, but the right to say so may have ended.
	may := !v.closed && stage.Replies(v.facts) && v.live()
	v.mu.Unlock()
	if may && !w.failed.Load() {
		v.count.flushes.Add(1)
		w.done(b, nil)
		return
	}
	go func() {
		err := v.flush(w.ctx, nil)
		var b batch.Batch
		w.done(&b, err)
		b.End()
	}()
}

// beginSync begins a sync that the other node asked for. The answer goes out with the batch that hears of the disk.
func (v *Volume) beginSync(l *link.Lane, request uint32) {
	v.wg.Add(1)
	v.disk().BeginSync(l.Reading(), func(b *batch.Batch, err error) {
		status := uint32(statusDone)
		if err != nil {
			_ = v.legError("sync", err) //nolint:errcheck // told by the status
			status = statusFailed
		}
		l.BeginAck(b, request, status)
		v.wg.Done()
	})
}
