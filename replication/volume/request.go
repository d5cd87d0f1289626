package volume

import (
	"context"
	"errors"
	"syscall"
	"time"

	"duet/replication/block"
	"duet/replication/link"
	"duet/replication/meta"
	"duet/replication/volume/stage"
)

// request is one write or zeroing of a client, while its range is locked.
type request struct {
	zero   bool
	off, n int64
	p      []byte
	sums   []uint32 // of its blocks
	fua    bool
	from   *link.Lane // forwarded by the other node; nil: of a client here
	issued bool       // at least once: its blocks may differ between the legs

	hot *parts // the leg in whose activity log its extents are, from before its first issue to its reply

	lane   *link.Lane // of the present plan; nil: own leg only
	handle uint32     // the volume's name on it
	both   bool       // the reply needs the peer too
	catch  bool       // the peer is a target: send, but do not wait
}

func (q *request) first() int64  { return q.off / Block }
func (q *request) blocks() int64 { return q.n / Block }

// extents are the first and the last that it writes to.
func (q *request) extents() (first, last int64) { return extentsOf(q.off, q.n) }

func extentsOf(off, n int64) (first, last int64) {
	return off / meta.ExtentBytes, (off + n - 1) / meta.ExtentBytes
}

// verdict says how a request goes on when its issue ended.
type verdict uint8

const (
	reply    verdict = iota // complete: answer it
	again                   // issue it again under the same lock
	giveBack                // free its range and wait like a new request
	gone                    // the daemon stops
	detach                  // the client is gone, the write is not
)

// durability of a client's write.
func durability(fua bool) block.Durability {
	if fua {
		return block.Durable
	}
	return block.Cached
}

// inRange is EINVAL for what no leg could do; it is the only error a client ever gets (replication.md P6).
func (v *Volume) inRange(off, n int64) error {
	if off < 0 || n <= 0 || off%Block != 0 || n%Block != 0 || off+n > v.size || off+n < off {
		return syscall.EINVAL
	}
	return nil
}

// ReadAt reads from this leg, when it may be read, or has the other node read.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := v.inRange(off, int64(len(p))); err != nil {
		return err
	}
	return v.read(ctx, p, off, nil)
}

func (v *Volume) read(ctx context.Context, p []byte, off int64, from *link.Lane) error {
	for {
		here, err := v.turn(ctx, from, stage.AdmitsReads)
		if err != nil {
			return err
		}
		if !here {
			f := &link.Frame{Type: link.ProxyRead, Offset: uint64(off), Length: uint32(len(p))}
			if done, err := v.forward(ctx, f, p); done || err != nil {
				return err
			}
			continue
		}
		c, err := v.locks.lock(ctx, off/Block, int64(len(p))/Block, false)
		if err != nil {
			return err
		}
		var bad []badBlock
		if v.allowed(stage.Reads) {
			bad, err = v.parts.Load().read(p, off)
		} else {
			err = errNotNow
		}
		v.locks.release(c)
		switch {
		case errors.Is(err, errNotNow):
		case err != nil:
			_ = v.legError("read", err) //nolint:errcheck // the request is held, not failed
		case len(bad) > 0:
			if err = v.healAll(ctx, bad); errors.Is(err, errDamaged) {
				return err
			}
			if ctx.Err() != nil {
				return ctx.Err() // whatever became of the block: p still holds what is bad
			}
		case v.allowed(stage.Reads):
			v.count.reads.Add(1)
			return nil
		}
	}
}

var errNotNow = errors.New("the grant changed meanwhile")

// WriteAt writes p on every leg that counts. p is not used after it returned.
func (v *Volume) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if err := v.inRange(off, int64(len(p))); err != nil {
		return err
	}
	return v.run(ctx, &request{off: off, n: int64(len(p)), p: p, sums: sumsOf(p), fua: fua})
}

// Zero is a write of zeroes, in pieces that lock and travel like writes.
func (v *Volume) Zero(ctx context.Context, off, n int64, fua bool) error {
	if err := v.inRange(off, n); err != nil {
		return err
	}
	for n > 0 {
		piece := min(n, MaxRequest)
		if err := v.run(ctx, &request{zero: true, off: off, n: piece, sums: zeroSums[:piece/Block], fua: fua}); err != nil {
			return err
		}
		off, n = off+piece, n-piece
	}
	return nil
}

// Trim changes nothing, on both legs alike: holes would let the legs read differently (replication.md 9.4).
func (v *Volume) Trim(_ context.Context, off, n int64) error { return v.inRange(off, n) }

// run carries a request to its reply, or to the end of its client.
func (v *Volume) run(ctx context.Context, q *request) error {
	for {
		here, err := v.turn(ctx, q.from, stage.Admits)
		if err != nil {
			return err
		}
		if !here {
			if done, err := v.forwardWrite(ctx, q); done || err != nil {
				return err
			}
			continue
		}
		c, err := v.locks.lock(ctx, q.first(), q.blocks(), true)
		if err != nil {
			return err
		}
		if !v.begin(q) {
			v.locks.release(c)
			continue
		}
		answered, err := v.runLocked(ctx, q, c)
		if answered {
			v.count.writes.Add(1)
		}
		if answered || err != nil {
			return err
		}
	}
}

// runLocked carries a request that has begun and has its place c. It is answered, or failed with its client or the daemon, or
// neither: then it waits like a new one.
func (v *Volume) runLocked(ctx context.Context, q *request, c *claim) (answered bool, err error) {
	return v.conclude(ctx, q, c, v.carry(ctx, q))
}

// conclude does what a verdict says.
func (v *Volume) conclude(ctx context.Context, q *request, c *claim, d verdict) (answered bool, err error) {
	switch d {
	case reply:
		v.end(q, false)
		v.locks.release(c)
		return true, nil
	case giveBack:
		v.end(q, true)
		v.locks.release(c)
	case detach:
		v.outlive(q, c)
		return false, ctx.Err()
	case gone:
		// Neither lock nor place among the active ones is given back: nothing may pass this write, and the
		// leg must not be closed as clean.
		return false, ErrClosed
	case again:
	}
	return false, nil
}

// outlive goes on with a write whose client is gone: its blocks may differ between the legs until both have it.
func (v *Volume) outlive(q *request, c *claim) {
	if q.p != nil {
		own := block.Get(len(q.p))
		copy(own, q.p)
		q.p = own
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	v.wg.Go(func() {
		verdict := v.carry(v.ctx, q)
		if verdict == gone || verdict == detach {
			return
		}
		v.end(q, verdict == giveBack)
		v.locks.release(c)
		if q.p != nil {
			block.Put(q.p)
		}
	})
}

// carry issues a request until a verdict other than "again". Its extents are hot on this leg before anything is sent: until
// both legs have it, what a crash leaves different is named by this log (O1; replication.md 9.1).
func (v *Volume) carry(ctx context.Context, q *request) verdict {
	return v.carryOn(ctx, q, v.heat(q) && v.issue(q))
}

// carryOn is carry of a request that was issued; done says how that ended.
func (v *Volume) carryOn(ctx context.Context, q *request, done bool) verdict {
	for {
		if d := v.settle(ctx, q, done); d != again {
			return d
		}
		done = v.heat(q) && v.issue(q)
	}
}

// heat says whether the extents of a request are hot; a log that failed is the leg's failure.
func (v *Volume) heat(q *request) bool {
	leg := v.parts.Load()
	if q.hot == leg {
		return true
	}
	first, last := q.extents()
	if err := leg.meta.Begin(first, last); err != nil {
		_ = v.legError("activity log", err) //nolint:errcheck // the request is held, not failed
		return false
	}
	q.hot = leg
	return true
}

// cool ends what heat began. What may differ between the legs, and nobody will repeat, stays named until they are reconciled.
func (q *request) cool(differs bool) {
	if q.hot == nil {
		return
	}
	first, last := q.extents()
	if differs {
		q.hot.meta.Pin(first, last)
	}
	q.hot.meta.End(first, last)
	q.hot = nil
}

// begin makes q active and plans it, if writes may be issued now.
func (v *Volume) begin(q *request) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed || !stage.Admits(v.facts) || !v.live() || q.from != nil && q.from != v.lane {
		return false
	}
	v.active[q] = struct{}{}
	v.plan(q)
	return true
}

// end forgets q. suspect says that nobody will repeat it now, so its blocks may differ between the legs.
func (v *Volume) end(q *request, suspect bool) {
	v.leaves.touch(q.off, q.n)
	q.cool(suspect && q.issued)
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.active, q)
	v.undamaged(q.first(), q.blocks())
	if suspect && q.issued {
		v.suspect.Set(q.first(), q.blocks())
	}
	if v.waiters > 0 && len(v.active) == 0 {
		v.wake()
	}
}

// plan is the row of replication.md 9.1 for the present stage. The caller holds mu.
func (v *Volume) plan(q *request) {
	v.leaves.touch(q.off, q.n)
	q.issued = true
	q.lane, q.both, q.catch = nil, false, false
	switch stage.Of(v.facts) {
	case stage.Paired:
		q.lane, q.handle, q.both = v.lane, v.handle, true
	case stage.Catching:
		v.md().Dirty().Set(q.first(), q.blocks())
		q.lane, q.handle, q.catch = v.lane, v.handle, true
	case stage.Alone, stage.Exchanging:
		v.md().Dirty().Set(q.first(), q.blocks())
	case stage.Creating, stage.Failed, stage.Held, stage.Preparing, stage.Reconciling, stage.Target, stage.Remote:
		panic("a write was planned in stage " + stage.Of(v.facts).String())
	}
}

// issue writes on every leg of the plan and says whether the reply may be given as far as the legs go.
func (v *Volume) issue(q *request) bool {
	var peer chan bool
	if q.lane != nil {
		f := q.frame()
		if q.both {
			peer = make(chan bool, 1)
			q.lane.Send(f, func(status uint32, err error) { peer <- v.peerWrote(q, status, err) })
		} else {
			v.sendCatching(q, f)
		}
	}
	err := q.hot.write(q.p, q.sums, q.off, q.n, durability(q.fua))
	peerDone := true
	if peer != nil {
		peerDone = <-peer
	}
	if err != nil {
		_ = v.legError("write", err) //nolint:errcheck // the request is held, not failed
		return false
	}
	return peerDone
}

// frame is what the peer gets of a request.
func (q *request) frame() *link.Frame {
	f := &link.Frame{Type: link.Write, Volume: q.handle, Offset: uint64(q.off), Length: uint32(q.n), Payload: q.p, Sums: q.sums}
	if q.zero {
		f.Type, f.Sums = link.Zero, nil
	}
	if q.fua {
		f.Flags |= link.FUA
	}
	return f
}

// write writes p, or zeroes, to extents that are hot, and notes their sums. A damaged block is good from here on, and no crash may bring back
// what was there before and count it as good, so it is durable before it leaves the list.
func (leg *parts) write(p []byte, sums []uint32, off, n int64, d block.Durability) (err error) {
	if leg.meta.Damaged(off/Block, n/Block) {
		d = block.Durable
	}
	if p == nil {
		err = leg.data.Zero(off, n, d)
	} else {
		err = leg.data.WriteAt(p, off, d)
	}
	if err != nil {
		return err
	}
	leg.meta.SetSums(off/Block, sums)
	return leg.meta.Undamaged(off/Block, n/Block)
}

// put writes what does not come from a client here, when the activity log of this leg has its extents (O1).
func (leg *parts) put(p []byte, sums []uint32, off, n int64, d block.Durability) error {
	first, last := extentsOf(off, n)
	if err := leg.meta.Begin(first, last); err != nil {
		return err
	}
	defer leg.meta.End(first, last)
	return leg.write(p, sums, off, n, d)
}

// peerWrote takes the peer's answer to a paired write.
func (v *Volume) peerWrote(q *request, status uint32, err error) bool {
	if err != nil {
		return false
	}
	if status != 0 {
		v.peerFailed("write")
		return false
	}
	if !q.fua {
		v.unsynced.Set(q.first(), q.blocks())
		v.sinceFlush.Add(q.n)
	}
	return true
}

// peerFailed: the other leg is dead. It says so itself with a fault; here the volume is held until R23.
func (v *Volume) peerFailed(what string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.env.Log.Error("the other leg failed", "volume", v.ID, "what", what)
	v.facts.InStep = false
	v.wake()
}

// settle waits until the fate of an issued request is clear. done says that all legs of its plan have it.
func (v *Volume) settle(ctx context.Context, q *request, done bool) verdict {
	for {
		v.mu.Lock()
		d, decided := v.judge(q, done)
		if decided {
			v.mu.Unlock()
			return d
		}
		changed := v.changed
		v.waiters++
		v.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			d, decided = detach, true
		}
		v.leaveWait()
		if decided {
			return d
		}
	}
}

// judge is settle's decision under the present facts. The caller holds mu.
func (v *Volume) judge(q *request, done bool) (verdict, bool) {
	f := v.facts
	switch {
	case done && v.mayReply(q):
		return reply, true
	case v.closed:
		return gone, true
	case f.Failed && f.Self:
		return again, false // held with its lock: the leg may hold half of it
	case !stage.KeepsLocks(f):
		return giveBack, true
	case !done && stage.Writes(f) && v.live():
		v.plan(q)
		return again, true
	case done && !q.both && stage.Of(f) == stage.Paired && v.live():
		v.plan(q)
		return again, true
	}
	return again, false
}

// mayReply says that a request which all legs of its plan have is complete. The caller holds mu.
func (v *Volume) mayReply(q *request) bool {
	return stage.Replies(v.facts) && v.live() && (q.both || stage.Of(v.facts) != stage.Paired)
}

// allowed says whether a rule holds now and the grant lives.
func (v *Volume) allowed(rule func(stage.Facts) bool) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return rule(v.facts) && v.live()
}

// await holds a request until a rule allows it. There is no timeout: held means held.
func (v *Volume) await(ctx context.Context, rule func(stage.Facts) bool) error {
	var since time.Time
	for {
		v.mu.Lock()
		switch {
		case v.closed:
			v.mu.Unlock()
			return ErrClosed
		case rule(v.facts) && v.live():
			v.mu.Unlock()
			v.stalled(since)
			return nil
		}
		changed := v.changed
		v.waiters++
		v.mu.Unlock()
		if since.IsZero() {
			since = time.Now()
		}
		v.count.held.Add(1)
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		}
		v.count.held.Add(-1)
		v.leaveWait()
		if err != nil {
			return err
		}
	}
}

func (v *Volume) leaveWait() {
	v.mu.Lock()
	v.waiters--
	v.mu.Unlock()
}

// stalled notes how long a request was held.
func (v *Volume) stalled(since time.Time) {
	if since.IsZero() {
		return
	}
	ms := time.Since(since).Milliseconds()
	for {
		old := v.count.stallMS.Load()
		if ms <= old || v.count.stallMS.CompareAndSwap(old, ms) {
			return
		}
	}
}

// AwaitLive waits until answers may be given again.
func (v *Volume) AwaitLive(ctx context.Context) error {
	return v.await(ctx, func(stage.Facts) bool { return true })
}
