package volume

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"duet/replication/block"
	"duet/replication/handshake"
	"duet/replication/link"
	"duet/replication/meta"
	"duet/replication/volume/stage"
)

// Status values of an ACK.
const (
	statusDone      = 0
	statusFailed    = 1
	statusElsewhere = 2 // of a forwarded request: as far as this node knows, it does not coordinate the volume
	statusDamaged   = 3 // of a read: no leg has the block, or this one has it not
	statusUnsure    = 4 // of a read of what has a sum: this leg has the block, but no sum of it
)

// sink is a copy into this leg.
type sink struct {
	ctx    context.Context
	cancel context.CancelFunc
}

// BeginSink makes this leg the target of a copy on lane l. excluded: this leg is outside Legs, so it is durably
// inconsistent before the first block arrives (O7). A leg inside Legs keeps its state: until the copy ends either
// version of a suspect block is a legal one (replication.md 10.1). The map goes out when that is recorded, and
// the source sends nothing before it has the map.
func (v *Volume) BeginSink(l *link.Lane, from meta.Generation, excluded bool, how handshake.How) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.lane != l || v.facts.Failed || v.closed {
		return errCopyOver
	}
	v.endCopy()
	v.facts.InStep, v.facts.Sound = false, false
	ctx, cancel := context.WithCancel(v.ctx)
	v.sink = &sink{ctx, cancel}
	v.facts.Role, v.facts.Phase = stage.Sink, stage.Copying
	v.count.beginCopy()
	v.wake()
	v.wg.Go(func() {
		if err := v.prepareSink(ctx, l, from, excluded, how); err != nil {
			l.Close(fmt.Errorf("target of volume %s: %w", v.ID, err))
		}
	})
	return nil
}

func (v *Volume) prepareSink(ctx context.Context, l *link.Lane, from meta.Generation, excluded bool, how handshake.How) error {
	if err := v.until(ctx, func() bool { return len(v.active) == 0 }); err != nil {
		return nil // the copy is over, not the lane
	}
	v.recording.Lock()
	defer v.recording.Unlock()
	if ctx.Err() != nil {
		return nil
	}
	err := v.change(func(s *meta.Superblock) {
		s.Flags |= meta.FlagOpen
		if excluded {
			s.State = meta.Inconsistent
			s.SyncSource = from
		}
	})
	if err != nil {
		return v.legError("record of the copy", err)
	}
	v.mu.Lock()
	v.suspectToDirty()
	v.unsyncedToDirty()
	hot := v.hot(how)
	v.countDirty(hot.bytes(v.size))
	v.mu.Unlock()
	v.sendHot(l, hot)
	v.sendMap(l)
	return nil
}

// sendHot tells the source which extents to compare.
func (v *Volume) sendHot(l *link.Lane, hot extents) {
	for list := range slices.Chunk(hot.list, link.MaxPayload/8) {
		p := make([]byte, 0, 4*len(list))
		for _, e := range list {
			p = binary.LittleEndian.AppendUint32(p, uint32(e))
		}
		l.Send(&link.Frame{Type: link.Hot, Volume: v.handleNow(), Payload: p}, nil)
	}
}

// takeHot adds what the target's log names to what is compared.
func (v *Volume) takeHot(s *source, f *link.Frame) error {
	n := meta.Extents(v.size)
	for p := f.Payload; len(p) >= 4; p = p[4:] {
		e := int64(binary.LittleEndian.Uint32(p))
		if e >= n {
			return fmt.Errorf("%w: hot extent %d of %d", link.ErrFrame, e, n)
		}
		s.theirs = append(s.theirs, e)
	}
	return nil
}

// sendMap tells the source which blocks this leg changed without the other one.
func (v *Volume) sendMap(l *link.Lane) {
	blocks := v.size / Block
	dirty := v.md().Dirty()
	for at := int64(0); at < blocks; at += mapChunkBytes * 8 {
		end := min(at+mapChunkBytes*8, blocks)
		bits := make([]byte, (end-at+7)/8)
		for b := at; b < end; {
			from, n := dirty.Next(b, blocks)
			if n == 0 || from >= end {
				break
			}
			for k := from; k < min(from+n, end); k++ {
				bits[(k-at)/8] |= 1 << ((k - at) % 8)
			}
			b = from + n
		}
		f := &link.Frame{Type: link.Map, Volume: v.handleNow(), Offset: uint64(at * Block), Payload: bits}
		if end == blocks {
			f.Flags = link.Last
		}
		l.Send(f, nil)
	}
}

// takeMap unites the target's map with ours.
func (v *Volume) takeMap(s *source, f *link.Frame) error {
	first := int64(f.Offset) / Block
	blocks := v.size / Block
	if f.Offset%Block != 0 || first >= blocks || int64(len(f.Payload)) > (blocks-first+7)/8 {
		return fmt.Errorf("%w: map beyond the volume", link.ErrFrame)
	}
	v.mu.Lock()
	for i, bits := range f.Payload {
		for k := int64(0); bits != 0; k++ {
			if b := first + int64(i)*8 + k; bits&1 != 0 && b < blocks {
				v.md().Dirty().Set(b, 1)
			}
			bits >>= 1
		}
	}
	v.mu.Unlock()
	if f.Flags&link.Last != 0 {
		s.mapOnce.Do(func() { close(s.mapped) })
	}
	return nil
}

// Frame takes a frame of lane l for this volume, in lane order and without waiting for a device. An error ends
// the lane. The payload is given back here.
func (v *Volume) Frame(l *link.Lane, f *link.Frame) error {
	switch f.Type {
	case link.Write, link.Zero, link.Resync, link.ResyncBad:
		return v.apply(l, f)
	case link.ProxyWrite, link.ProxyZero, link.ProxyRead, link.ProxyFlush:
		return v.proxied(l, f)
	case link.Stat: // also to a node that is still opening its leg
		v.takeStat(l, f)
		return drop(f, nil)
	default:
	}
	v.mu.Lock()
	facts, mine, copying, sink := v.facts, v.lane == l, v.copying, v.sink
	v.mu.Unlock()
	if !mine || !facts.Ready {
		return drop(f, fmt.Errorf("%w: volume %s has no such lane", link.ErrFrame, v.ID))
	}
	switch f.Type {
	case link.LegRead:
		return v.giveBlock(l, f, facts.Failed)
	case link.Compare:
		return v.compareBlocks(l, f, facts.Failed)
	case link.Flush:
		v.beginSync(l, f.Request)
		return drop(f, nil)
	case link.Hot, link.Map, link.DigestReply, link.BarrierDone, link.LeavesReply:
		if copying == nil {
			return drop(f, nil) // of a copy that was given up
		}
		switch f.Type {
		case link.Hot:
			return drop(f, v.takeHot(copying, f))
		case link.Map:
			return drop(f, v.takeMap(copying, f))
		default:
		}
		return drop(f, copying.answer(f))
	case link.Digest, link.Barrier, link.Leaves:
		if sink == nil {
			return drop(f, fmt.Errorf("%w: %d without a copy", link.ErrFrame, f.Type))
		}
		return v.prove(l, f, sink)
	default:
	}
	return drop(f, fmt.Errorf("%w: type %d", link.ErrFrame, f.Type))
}

func drop(f *link.Frame, err error) error {
	if f.Payload != nil {
		block.Put(f.Payload)
	}
	return err
}

func (v *Volume) spawn(f func()) {
	v.wg.Go(f)
}

// apply writes a frame's blocks. The place in the overlap lock is taken here, in lane order, and under the same grant
// that admits the frame: after a takeover no write of the old owner can still come and get in line behind ours.
func (v *Volume) apply(l *link.Lane, f *link.Frame) error {
	off, n := int64(f.Offset), int64(f.Length)
	payload := n
	if f.Type == link.Zero || f.Type == link.ResyncBad {
		payload = 0
	}
	if v.inRange(off, n) != nil || n > MaxRequest || int64(len(f.Payload)) != payload || f.Request == 0 ||
		f.Type == link.ResyncBad && (n != Block || f.Status == meta.SumUnknown) {
		return drop(f, fmt.Errorf("%w: range of a write", link.ErrFrame))
	}
	c, err := v.admit(l, f, off, n)
	switch {
	case errors.Is(err, errDeadLeg):
		v.spawn(func() { l.Ack(f.Request, statusFailed) })
		return drop(f, nil)
	case err != nil:
		return drop(f, err)
	}
	if v.beginApply(l, f, c) {
		return nil
	}
	v.spawn(func() {
		if !v.granted(c) {
			_ = drop(f, nil) //nolint:errcheck // always nil
			return
		}
		status := v.write(f, off, n)
		v.leaves.touch(off, n)
		v.locks.release(c)
		_ = drop(f, nil) //nolint:errcheck // always nil
		l.Ack(f.Request, status)
	})
	return nil
}

// granted waits for the turn of a claim. false: the daemon stops, and what holds the place may never give it back; the claim is.
func (v *Volume) granted(c *claim) bool {
	select {
	case <-c.granted:
		return true
	case <-v.ctx.Done():
		v.locks.release(c)
		return false
	}
}

// errDeadLeg: the sender is told, and the lane goes on for the other volumes.
var errDeadLeg = errors.New("the leg is dead")

func (v *Volume) admit(l *link.Lane, f *link.Frame, off, n int64) (*claim, error) {
	ofCopy := f.Type == link.Resync || f.Type == link.ResyncBad
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.lane != l || !v.facts.Ready:
		return nil, fmt.Errorf("%w: volume %s has no such lane", link.ErrFrame, v.ID)
	case v.facts.Failed:
		return nil, errDeadLeg
	case ofCopy && v.sink == nil:
		return nil, fmt.Errorf("%w: resync without a copy", link.ErrFrame)
	case !ofCopy && !stage.TakesWrites(v.facts):
		return nil, fmt.Errorf("%w: write in stage %s", link.ErrFrame, stage.Of(v.facts))
	case ofCopy:
		v.count.resync.Add(n)
	case !v.facts.Peer && !v.facts.InStep:
		v.md().Dirty().Set(off/Block, n/Block) // the leg that was taken out may lack it
	}
	v.leaves.touch(off, n)
	return v.locks.enqueue(off/Block, n/Block, true), nil
}

func (v *Volume) write(f *link.Frame, off, n int64) uint32 {
	if f.Type == link.ResyncBad {
		return v.takeBad(off, f.Status)
	}
	err := v.parts.Load().put(f.Payload, sumsIn(f), off, n, durability(f.Flags&link.FUA != 0))
	if err != nil {
		_ = v.legError("write", err) //nolint:errcheck // told by the status
		return statusFailed
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.undamaged(off/Block, n/Block)
	return statusDone
}

// sumsIn are the sums of the blocks that a frame writes; they came with it and were compared with its payload.
func sumsIn(f *link.Frame) []uint32 {
	if len(f.Payload) == 0 {
		return zeroSums[:f.Length/Block]
	}
	return f.Sums
}

// prove answers the questions of a source. Locks are taken in lane order: an answer is about exactly the frames
// before the question.
func (v *Volume) prove(l *link.Lane, f *link.Frame, s *sink) error {
	off, n := int64(f.Offset), int64(f.Length)
	switch {
	case f.Type == link.Digest:
		if v.inRange(off, n) != nil || n > meta.ExtentBytes || int64(len(f.Payload)) != n/Block*digestBytes {
			return drop(f, fmt.Errorf("%w: range of digests", link.ErrFrame))
		}
		c := v.locks.enqueue(off/Block, n/Block, false)
		v.spawn(func() { v.answerDigest(l, f, c) })
	case f.Type == link.Leaves:
		if len(f.Payload)%sha256.Size != 0 || f.Offset > uint64(meta.Extents(v.size)) {
			return drop(f, fmt.Errorf("%w: leaves", link.ErrFrame))
		}
		v.spawn(func() { v.answerLeaves(l, f) })
	case f.Flags&link.Last != 0:
		c := v.locks.enqueue(0, v.size/Block, true)
		v.spawn(func() { v.answerBarrier(s.ctx, l, f, c) })
	default:
		c := v.locks.enqueue(0, v.size/Block, false)
		v.spawn(func() {
			// So the sync covers the frames before the question, and the hold has less to read again.
			if !v.granted(c) {
				_ = drop(f, nil) //nolint:errcheck // always nil
				return
			}
			v.locks.release(c)
			v.answerBarrier(s.ctx, l, f, nil)
		})
	}
	return nil
}

func (v *Volume) answerDigest(l *link.Lane, f *link.Frame, c *claim) {
	if !v.granted(c) {
		_ = drop(f, nil) //nolint:errcheck // always nil
		return
	}
	off, n := int64(f.Offset), int64(f.Length)
	sums, err := v.blockDigests(off, n)
	v.locks.release(c)
	if err != nil {
		l.Close(drop(f, err))
		return
	}
	bits := differing(sums, f.Payload)
	_ = drop(f, nil) //nolint:errcheck // always nil
	v.count.uncompared.Add(-n)
	l.Send(&link.Frame{Type: link.DigestReply, Volume: v.handleNow(), Offset: uint64(off), Payload: bits}, nil)
}

// answerBarrier syncs and then re-reads what was written since the last time, so that the root speaks of the
// medium (replication.md 10.4). With the claim of a hard barrier nothing is written meanwhile.
func (v *Volume) answerBarrier(ctx context.Context, l *link.Lane, f *link.Frame, c *claim) {
	_ = drop(f, nil) //nolint:errcheck // always nil
	if c != nil {
		if !v.granted(c) {
			return
		}
		defer v.locks.release(c)
	}
	err := v.leaves.synced(v.disk().Sync)
	if err != nil {
		err = v.legError("sync", err)
	} else {
		how := lockEach
		if c != nil {
			how = lockedAll
		}
		err = v.refresh(ctx, how, false)
	}
	if err != nil {
		l.Close(err)
		return
	}
	root := v.leaves.root(v.ID, v.size)
	l.Send(&link.Frame{Type: link.BarrierDone, Volume: v.handleNow(), Payload: root[:]}, nil)
}

func (v *Volume) answerLeaves(l *link.Lane, f *link.Frame) {
	mine := v.leaves.flat()
	at := int(f.Offset) * sha256.Size
	extents := len(f.Payload) / sha256.Size
	bits := make([]byte, (extents+7)/8)
	for e := range extents {
		p := f.Payload[e*sha256.Size : (e+1)*sha256.Size]
		q := at + e*sha256.Size
		if q+sha256.Size > len(mine) || string(mine[q:q+sha256.Size]) != string(p) {
			bits[e/8] |= 1 << (e % 8)
		}
	}
	offset := f.Offset
	_ = drop(f, nil) //nolint:errcheck // always nil
	l.Send(&link.Frame{Type: link.LeavesReply, Volume: v.handleNow(), Offset: offset, Payload: bits}, nil)
}
