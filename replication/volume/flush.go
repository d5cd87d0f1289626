package volume

import (
	"context"
	"time"

	"duet/replication/link"
	"duet/replication/volume/stage"
)

// flushBatch is a group of flushes that share one sync. It covers every write acknowledged before it began.
type flushBatch struct {
	done  chan struct{}
	moved bool // nothing was synced: the volume is not coordinated here any more; set before done is closed
}

// Flush returns when every leg that counts has synced what was acknowledged, on any connection, before it was
// called. One sync runs and one waits; flushes that come meanwhile share the waiting one.
func (v *Volume) Flush(ctx context.Context) error { return v.flush(ctx, nil) }

func (v *Volume) flush(ctx context.Context, from *link.Lane) error {
	for {
		here, err := v.turn(ctx, from, stage.Admits)
		if err != nil {
			return err
		}
		if !here {
			if done, err := v.forward(ctx, &link.Frame{Type: link.ProxyFlush}, nil); done || err != nil {
				return err
			}
			continue
		}
		synced, err := v.syncAll(ctx)
		if err != nil {
			return err
		}
		if !synced {
			continue
		}
		// The sync is true for ever, but the right to say so may have ended.
		if here, err = v.turn(ctx, from, stage.Replies); err != nil {
			return err
		}
		if here {
			v.count.flushes.Add(1)
			return nil
		}
	}
}

// syncAll returns when the legs that count have synced what was acknowledged before; false: that is not for this node to
// say any more.
func (v *Volume) syncAll(ctx context.Context) (bool, error) {
	b, err := v.joinFlush()
	if err != nil {
		return false, err
	}
	select {
	case <-b.done:
		return !b.moved, nil
	case <-ctx.Done():
		return false, ctx.Err()
	case <-v.ctx.Done():
		return false, ErrClosed
	}
}

func (v *Volume) joinFlush() (*flushBatch, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, ErrClosed
	}
	if v.nextFlush == nil {
		v.nextFlush = &flushBatch{done: make(chan struct{})}
		if v.flushing == nil {
			v.startFlush()
		}
	}
	return v.nextOrRunning(), nil
}

// nextOrRunning: startFlush may have moved the batch that was just made. The caller holds mu.
func (v *Volume) nextOrRunning() *flushBatch {
	if v.nextFlush != nil {
		return v.nextFlush
	}
	return v.flushing
}

// startFlush runs the waiting batch. The caller holds mu.
func (v *Volume) startFlush() {
	b := v.nextFlush
	v.flushing, v.nextFlush = b, nil
	v.wg.Go(func() {
		ok, moved := v.flushUntilDone()
		v.mu.Lock()
		defer v.mu.Unlock()
		if !ok && !moved {
			v.flushing = nil
			return // closing: the waiters leave by the volume's context
		}
		b.moved = moved
		close(b.done)
		v.endFlush()
	})
}

// endFlush lets the waiting batch begin. The caller holds mu.
func (v *Volume) endFlush() {
	v.flushing = nil
	if v.nextFlush != nil && !v.closed {
		v.startFlush()
	}
}

// flushUntilDone repeats the sync until it succeeded under one unbroken right, or the other node coordinates the volume.
func (v *Volume) flushUntilDone() (ok, moved bool) {
	for {
		err := v.await(v.ctx, func(f stage.Facts) bool { return stage.Writes(f) || !stage.Coordinates(f) })
		if err != nil {
			return false, false
		}
		v.mu.Lock()
		lane, both := v.lane, stage.Of(v.facts) == stage.Paired
		may, here := stage.Writes(v.facts), stage.Coordinates(v.facts)
		v.mu.Unlock()
		switch {
		case !here:
			return false, true
		case may && v.syncLegs(lane, both):
			return true, false
		}
	}
}

// syncLegs syncs this leg and, if both count, the peer's.
func (v *Volume) syncLegs(lane *link.Lane, both bool) bool {
	peer := make(chan bool, 1)
	if both {
		go func() { peer <- v.flushPeer(lane) }()
	} else {
		peer <- true
	}
	err := v.disk().Sync()
	ok := <-peer
	if err != nil {
		_ = v.legError("sync", err) //nolint:errcheck // the request is held, not failed
		return false
	}
	return ok
}

// flushPeer asks the peer to sync and then forgets what it covered.
func (v *Volume) flushPeer(lane *link.Lane) bool {
	v.peerFlush.Lock()
	defer v.peerFlush.Unlock()
	c := v.cover()
	done := make(chan bool, 1)
	lane.Send(c.frame(), func(status uint32, err error) { done <- v.peerSynced(status, err) })
	return v.covered(c, <-done)
}

// cover is what a sync of the peer covers: the writes acknowledged before it was sent.
type cover struct {
	handle uint32
	blocks []interval
	mark   uint64
}

// cover begins a sync of the peer. The caller holds peerFlush.
func (v *Volume) cover() cover {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sinceFlush.Store(0)
	c := cover{handle: v.handle, mark: v.md().Mark()}
	v.unsynced.Take(func(from, n int64) { c.blocks = append(c.blocks, interval{from, n}) })
	return c
}

func (c cover) frame() *link.Frame { return &link.Frame{Type: link.Flush, Volume: c.handle} }

// covered ends it, and says whether the peer is known to have synced.
func (v *Volume) covered(c cover, synced bool) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if synced {
		v.md().Covered(c.mark)
	} else {
		v.uncover(c.blocks)
	}
	return synced
}

// peerSynced takes the peer's answer to a FLUSH.
func (v *Volume) peerSynced(status uint32, err error) bool {
	if err == nil && status != 0 {
		v.peerFailed("sync")
	}
	return err == nil && status == 0
}

func (v *Volume) handleNow() uint32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.handle
}

// interval is a run of blocks.
type interval struct{ from, n int64 }

// uncover puts blocks back whose sync was not reported. If this leg went solo meanwhile, they belong into the
// dirty map: O5 counted only what was unsynced then. The caller holds mu.
func (v *Volume) uncover(blocks []interval) {
	for _, r := range blocks {
		v.unsynced.Set(r.from, r.n)
		if v.facts.Self && !v.facts.Peer {
			v.md().Dirty().Set(r.from, r.n)
		}
	}
}

// Cool lets extents that were not written for a while leave the activity log.
func (v *Volume) Cool() { v.md().Cool() }

// background bounds the unsynced set while paired, stores the dirty map while alone, and tells of lost sums.
func (v *Volume) background() {
	tick := time.NewTicker(peerFlushEvery / 4)
	defer tick.Stop()
	flushed, stored, cooled := time.Now(), time.Now(), time.Now()
	lost := int64(0)
	for {
		select {
		case <-v.ctx.Done():
			return
		case now := <-tick.C:
			v.mu.Lock()
			s, lane, ready := stage.Of(v.facts), v.lane, stage.Ready(v.facts)
			v.mu.Unlock()
			if !ready {
				continue
			}
			due := now.Sub(flushed) >= peerFlushEvery || v.sinceFlush.Load() >= peerFlushBytes
			if (s == stage.Paired || s == stage.Catching) && lane != nil && due && v.sinceFlush.Load() > 0 {
				v.flushPeer(lane)
				flushed = now
			}
			if s == stage.Alone && now.Sub(stored) >= storeDirtyEvery {
				if err := v.md().StoreDirty(); err != nil {
					_ = v.legError("dirty map", err) //nolint:errcheck // recorded and held
				}
				stored = now
			}
			if now.Sub(cooled) >= coolEvery {
				v.Cool()
				cooled = now
			}
			if n := v.md().LostSums(); n != lost {
				lost = n
				v.env.Log.Warn("pages of checksums are lost: what their blocks hold counts until a scrub has compared it", "volume", v.ID, "pages", n)
			}
		}
	}
}
