package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"duet/replication/block"
	"duet/replication/handshake"
	"duet/replication/link"
	"duet/replication/meta"
	"duet/replication/volume/stage"
)

// Limits of a copy.
const (
	pieceBytes   = 256 << 10 // one RESYNC: locked, read, enqueued, unlocked
	digestBytes  = 16        // of SHA-256, per block: CRC32C is too weak to skip a copy
	digestWindow = 4         // extents compared ahead
	passPieces   = 64        // looked for at a time; fewer: requests need to be held only for a moment

	// targetBytesMax is what a copy may have on its way to a target. Beyond it application writes only mark their blocks: a
	// target that is slow, or hangs, costs those who are served nothing.
	targetBytesMax = 8 << 20
	// targetPatience ends a copy whose target has answered nothing for so long. It begins again on the next lane.
	targetPatience = 5 * time.Second
	// holdLimit ends a copy whose proof holds the requests for longer.
	holdLimit     = 2 * time.Second
	mapChunkBytes = 32 << 10 // of dirty bits, per MAP frame
)

var errCopyOver = errors.New("the copy ended")

// source is a copy from this leg to the peer's.
type source struct {
	v      *Volume
	lane   *link.Lane
	ctx    context.Context
	cancel context.CancelFunc
	how    handshake.How
	theirs []int64 // extents that the target's activity log names; complete when mapped is closed
	named  extents // the same, from when mapped is closed on; under the volume's mu
	live   bool    // requests go on meanwhile
	keep   bool    // both legs count: record "end not confirmed"
	proof  bool    // Hold and Prove follow

	mapped  chan struct{} // the target's map arrived
	mapOnce sync.Once

	mu      sync.Mutex
	replies map[replyKey]chan []byte
	failed  error

	onTheWay int64       // bytes sent and not answered; under the volume's mu
	patience *time.Timer // ends the copy; set again by each answer
	holding  *time.Timer // ends the hold
}

// replyKey names what an answer belongs to.
type replyKey struct {
	kind   link.Type
	offset uint64
}

// Source is the handle of a copy for whoever coordinates the volumes.
type Source struct{ *source }

// BeginSource makes this leg the source on lane l. From here the stage follows the copy; Run does the work.
func (v *Volume) BeginSource(l *link.Lane, how handshake.How, proof bool) (*Source, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.lane != l || v.facts.Failed || v.closed {
		return nil, errCopyOver
	}
	v.endCopy()
	v.facts.InStep = false
	ctx, cancel := context.WithCancel(v.ctx)
	s := &source{
		v: v, lane: l, ctx: ctx, cancel: cancel, how: how, proof: proof,
		live: v.facts.Self && !v.facts.Peer, keep: v.facts.Peer,
		mapped: make(chan struct{}), replies: map[replyKey]chan []byte{},
	}
	s.patience = time.AfterFunc(targetPatience, s.impatient)
	s.patience.Stop()
	v.copying = s
	v.facts.Role, v.facts.Phase = stage.Source, stage.Exchange
	v.count.beginCopy()
	v.wake()
	return &Source{s}, nil
}

// Run exchanges maps and copies until nothing is different but what is in flight.
func (s *source) Run() error {
	v := s.v
	if !s.live {
		if err := s.drain(); err != nil {
			return err
		}
	} else if err := s.excluded(); err != nil {
		return err
	}
	if err := s.record(); err != nil {
		return err
	}
	select {
	case <-s.mapped:
	case <-s.ctx.Done():
		return errCopyOver
	}
	v.mu.Lock()
	v.suspectToDirty()
	hot := v.hot(s.how)
	s.named.add(s.theirs)
	hot.add(s.theirs)
	v.countDirty(hot.bytes(v.size))
	v.mu.Unlock()
	if !s.setPhase(stage.Copying) {
		return errCopyOver
	}
	if err := s.compare(hot.has); err != nil {
		return err
	}
	if err := s.converge(); err != nil {
		return err
	}
	return s.settleLeaves()
}

// extents are those whose blocks are compared before a copy.
type extents struct {
	all  bool
	list []int64 // ascending
}

// hot is what this leg makes suspect in a copy of that kind. The caller holds mu.
func (v *Volume) hot(how handshake.How) extents {
	if how == handshake.ByDigest {
		return extents{all: true}
	}
	list, known := v.md().Hot()
	return extents{all: !known, list: list}
}

func (x *extents) add(list []int64) {
	x.list = append(x.list, list...)
	slices.Sort(x.list)
	x.list = slices.Compact(x.list)
}

func (x *extents) has(e int64) bool {
	_, found := slices.BinarySearch(x.list, e)
	return x.all || found
}

// bytes that they have in a volume of a size.
func (x *extents) bytes(size int64) int64 {
	if x.all {
		return size
	}
	n := int64(0)
	for _, e := range x.list {
		n += min(meta.ExtentBytes, size-e*meta.ExtentBytes)
	}
	return n
}

// record notes the direction before the first block is sent: after a crash the copy goes on the same way (row H7b).
func (s *source) record() error {
	v := s.v
	v.recording.Lock()
	defer v.recording.Unlock()
	if s.ctx.Err() != nil {
		return errCopyOver
	}
	err := v.change(func(sb *meta.Superblock) {
		sb.Flags |= meta.FlagOpen
		if s.keep {
			sb.ResyncFlags |= meta.ResyncUnconfirmed
		}
	})
	if err != nil {
		return v.legError("record of the copy", err)
	}
	return nil
}

// settleLeaves digests ahead of the proof, on both legs, so that the hold is short.
func (s *source) settleLeaves() error {
	if !s.proof {
		return nil // a reconcile inside a session compared every block already, or knew them
	}
	for range maxSoftRounds {
		if _, err := s.barrier(false); err != nil {
			return err
		}
		if s.v.leaves.staleCount() <= staleLeavesLimit {
			break
		}
	}
	return nil
}

// excluded waits until the exclusion of the target is durable: before that nothing is served alone either.
func (s *source) excluded() error {
	return s.until(func() bool { return s.v.facts.Excluded })
}

// drain waits until no request holds a place.
func (s *source) drain() error { return s.until(func() bool { return len(s.v.active) == 0 }) }

func (s *source) until(ready func() bool) error { return s.v.until(s.ctx, ready) }

// until waits for a condition on the facts.
func (v *Volume) until(ctx context.Context, ready func() bool) error {
	for {
		v.mu.Lock()
		if ready() {
			v.mu.Unlock()
			return nil
		}
		changed := v.changed
		v.waiters++
		v.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = errCopyOver
		}
		v.leaveWait()
		if err != nil {
			return err
		}
	}
}

// setPhase moves on, unless the copy is over.
func (s *source) setPhase(p stage.Phase) bool {
	s.v.mu.Lock()
	defer s.v.mu.Unlock()
	if s.v.copying != s {
		return false
	}
	s.v.facts.Phase = p
	s.v.wake()
	return true
}

// impatient ends the copy with its lane.
func (s *source) impatient() {
	s.v.mu.Lock()
	stuck := s.onTheWay > 0 && s.ctx.Err() == nil
	s.v.mu.Unlock()
	if stuck {
		s.lane.Close(fmt.Errorf("the target of volume %s has answered nothing for %v", s.v.ID, targetPatience))
	}
}

// Hold stops new writes and waits until those in flight ended and everything marked is over there. It is over after
// holdLimit, unless Release, the end of the copy or Proved comes first.
func (s *source) Hold() error {
	if s.live {
		s.holding = time.AfterFunc(holdLimit, func() {
			s.lane.Close(fmt.Errorf("the proof of volume %s held its requests for %v", s.v.ID, holdLimit))
		})
	}
	if !s.setPhase(stage.Holding) {
		return errCopyOver
	}
	if err := s.drain(); err != nil {
		return err
	}
	return s.converge()
}

// Release lets writes go on after a proof that failed.
func (s *source) Release() {
	s.Proved()
	s.setPhase(stage.Copying)
}

// Proved ends the limit of the hold: what follows is the recording of the end and the next grant.
func (s *source) Proved() {
	if s.holding != nil {
		s.holding.Stop()
	}
}

// converge sends dirty blocks in ascending order until none is left and none in flight. While requests go on there
// is always one more; then a pass that finds few is enough, and the hold sends what came since.
func (s *source) converge() error {
	v := s.v
	buf := make([]interval, 0, passPieces)
	for {
		buf = s.pass(buf[:0])
		for _, piece := range buf {
			if err := s.send(piece); err != nil {
				return err
			}
		}
		if len(buf) == cap(buf) {
			continue
		}
		v.mu.Lock()
		failed, left, served := s.failed, v.md().Dirty().Count(), s.live && v.facts.Phase == stage.Copying
		v.mu.Unlock()
		switch {
		case failed != nil:
			return failed
		case served, left == 0:
			return nil
		case len(buf) > 0:
			continue
		}
		if err := s.until(func() bool { return len(v.lastSent) == 0 || s.failed != nil }); err != nil {
			return err
		}
	}
}

// pass lists pieces of dirty blocks that are not on their way.
func (s *source) pass(out []interval) []interval {
	v := s.v
	v.mu.Lock()
	defer v.mu.Unlock()
	dirty := v.md().Dirty()
	for at := int64(0); len(out) < cap(out); {
		from, n := dirty.Next(at, pieceBytes/Block)
		if n == 0 {
			break
		}
		at = from + n
		for n > 0 && v.lastSent[from] != 0 {
			from, n = from+1, n-1
		}
		k := int64(0)
		for k < n && v.lastSent[from+k] == 0 {
			k++
		}
		if k > 0 {
			out = append(out, interval{from, k})
			at = from + k
		}
	}
	return out
}

// send copies one piece. What this leg cannot give of it is healed from the target, which may well have it, or sent as what it is.
func (s *source) send(p interval) error {
	todo := []interval{p}
	for len(todo) > 0 {
		p, todo = todo[0], todo[1:]
		if p.n == 0 {
			continue
		}
		bad, err := s.sendPiece(p)
		if err != nil {
			return err
		}
		again, err := s.settleBad(p, bad)
		if err != nil {
			return err
		}
		todo = append(again, todo...)
	}
	return nil
}

// sendPiece locks, reads, enqueues, unlocks. The lane keeps the order, so a newer write is neither overtaken nor undone
// (replication.md 10.2). With bad blocks nothing was sent.
func (s *source) sendPiece(p interval) (bad []badBlock, err error) {
	v := s.v
	if err := s.until(func() bool { return s.onTheWay < targetBytesMax }); err != nil {
		return nil, err
	}
	c, err := v.locks.lock(s.ctx, p.from, p.n, false)
	if err != nil {
		return nil, errCopyOver
	}
	defer v.locks.release(c)
	buf := block.Get(int(p.n * Block))
	bad, err = v.parts.Load().read(buf, p.from*Block)
	if err != nil || len(bad) > 0 {
		block.Put(buf)
		if err != nil {
			return nil, v.legError("read for the copy", err)
		}
		return bad, nil
	}
	f := &link.Frame{Type: link.Resync, Offset: uint64(p.from * Block), Length: uint32(len(buf)), Payload: buf}
	s.enqueue(f, p, func() { block.Put(buf) })
	return nil, nil
}

// settleBad heals the bad blocks of a piece, or sends them as what they are, and says what of the piece is still to be sent.
func (s *source) settleBad(p interval, bad []badBlock) (again []interval, err error) {
	if len(bad) == 0 {
		return nil, nil
	}
	rest := p
	for _, b := range bad {
		err := s.v.heal(s.ctx, b)
		switch {
		case err == nil:
			continue
		case s.ctx.Err() != nil:
			return nil, errCopyOver
		case !errors.Is(err, errDamaged):
			return nil, err
		}
		sent, err := s.sendBad(b.n)
		if err != nil {
			return nil, err
		}
		if sent {
			again = append(again, interval{rest.from, b.n - rest.from})
			rest = interval{b.n + 1, p.from + p.n - b.n - 1}
		}
	}
	return append(again, rest), nil
}

// enqueue sends a frame of the copy about a piece whose place in the overlap lock the caller has.
func (s *source) enqueue(f *link.Frame, p interval, free func()) {
	id := s.v.noteSent(s, p.from, p.n)
	s.v.count.resync.Add(p.n * Block)
	f.Volume = s.v.handleNow()
	s.lane.Send(f, func(status uint32, err error) {
		free()
		s.v.sent(s, id, p, status, err)
	})
}

// sendBad tells the target the sum of a block that is damaged here; false: a write made it good meanwhile.
func (s *source) sendBad(b int64) (sent bool, err error) {
	v := s.v
	c, err := v.locks.lock(s.ctx, b, 1, false)
	if err != nil {
		return false, errCopyOver
	}
	defer v.locks.release(c)
	buf := block.Get(Block)
	defer block.Put(buf)
	leg := v.parts.Load()
	bad, err := leg.read(buf, b*Block)
	switch {
	case err != nil:
		return false, v.legError("read for the copy", err)
	case len(bad) == 0:
		return false, nil
	}
	f := &link.Frame{Type: link.ResyncBad, Offset: uint64(b * Block), Length: Block, Status: leg.expected(b, buf)}
	s.enqueue(f, interval{b, 1}, func() {})
	return true, nil
}

// sendCatching sends a write to a target without waiting for it; the request's buffer may be gone before the
// frame is. A target that has enough to do gets its blocks later: they are marked.
func (v *Volume) sendCatching(q *request, f *link.Frame) {
	p := interval{q.first(), q.blocks()}
	v.mu.Lock()
	s := v.copying
	if s == nil || s.onTheWay >= targetBytesMax {
		for b := p.from; b < p.from+p.n; b++ {
			delete(v.lastSent, b) // an answer to what was sent before clears nothing
		}
		v.mu.Unlock()
		return
	}
	v.mu.Unlock()
	if !q.zero {
		f.Payload = block.Get(len(q.p))
		copy(f.Payload, q.p)
	}
	id := v.noteSent(s, p.from, p.n)
	q.lane.Send(f, func(status uint32, err error) {
		_ = drop(f, nil) //nolint:errcheck // always nil
		v.sent(s, id, p, status, err)
	})
}

// noteSent remembers the newest frame of each block, so that an answer to an older one clears nothing.
func (v *Volume) noteSent(s *source, from, n int64) uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s.onTheWay == 0 {
		s.patience.Reset(targetPatience)
	}
	s.onTheWay += n * Block
	v.sends++
	for b := from; b < from+n; b++ {
		v.lastSent[b] = v.sends
	}
	return v.sends
}

// sent takes the target's answer: the bit is cleared in RAM now, on disk only after a sync over there (O6).
func (v *Volume) sent(s *source, id uint64, p interval, status uint32, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	full := s.onTheWay >= targetBytesMax
	if s.onTheWay -= p.n * Block; s.onTheWay == 0 || v.copying != s {
		s.patience.Stop()
	} else {
		s.patience.Reset(targetPatience)
	}
	ok := err == nil && status == 0 && v.copying == s
	for b := p.from; b < p.from+p.n; b++ {
		if v.lastSent[b] != id {
			continue
		}
		delete(v.lastSent, b)
		if ok {
			v.unsynced.Set(b, 1)
			v.md().Acked(b, 1)
		}
	}
	v.sinceFlush.Add(p.n * Block)
	if !ok && s.failed == nil {
		s.failed = fmt.Errorf("the target answered status %d, error %w", status, errors.Join(err, errCopyOver))
	}
	if v.waiters > 0 && (len(v.lastSent) == 0 || !ok || full) {
		v.wake()
	}
}

// compare digests extents and marks the blocks that differ.
func (s *source) compare(want func(extent int64) bool) error {
	window := make(chan struct{}, digestWindow)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	extents := meta.Extents(s.v.size)
	for e := range extents {
		if !want(e) {
			continue
		}
		window <- struct{}{}
		answer, err := s.offer(e)
		if err != nil {
			mu.Lock()
			first = err
			mu.Unlock()
			break
		}
		wg.Add(1)
		go func() {
			defer func() { <-window; wg.Done() }()
			if err := s.different(e, answer); err != nil {
				mu.Lock()
				first = err
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	return first
}

// offer sends the digests of one extent, taken under its lock and enqueued before it is released.
func (s *source) offer(e int64) (chan []byte, error) {
	v := s.v
	off := e * meta.ExtentBytes
	n := min(meta.ExtentBytes, v.size-off)
	c, err := v.locks.lock(s.ctx, off/Block, n/Block, false)
	if err != nil {
		return nil, errCopyOver
	}
	defer v.locks.release(c)
	sums, err := v.blockDigests(off, n)
	if err != nil {
		return nil, err
	}
	answer := s.expect(link.DigestReply, uint64(off))
	s.lane.Send(&link.Frame{Type: link.Digest, Volume: v.handleNow(), Offset: uint64(off), Length: uint32(n), Payload: sums}, nil)
	return answer, nil
}

func (s *source) different(e int64, answer chan []byte) error {
	bits, err := s.await(answer)
	if err != nil {
		return err
	}
	first := e * meta.BlocksPerExtent
	blocks := min(meta.BlocksPerExtent, s.v.size/Block-first)
	if int64(len(bits)) != (blocks+7)/8 {
		return fmt.Errorf("%w: digest reply of %d bytes", link.ErrFrame, len(bits))
	}
	s.v.mu.Lock()
	defer s.v.mu.Unlock()
	s.v.count.uncompared.Add(-blocks * Block)
	for b := range blocks {
		if hasBit(bits, b) {
			s.v.md().Dirty().Set(first+b, 1)
		}
	}
	return nil
}

// blockDigests reads a range of this leg and digests each block.
func (v *Volume) blockDigests(off, n int64) ([]byte, error) {
	buf := block.Get(digestRead)
	defer block.Put(buf)
	sums := make([]byte, 0, n/Block*digestBytes)
	for at := off; at < off+n; {
		p := buf[:min(int64(len(buf)), off+n-at)]
		if _, err := v.readForDigest(p, at); err != nil {
			return nil, err
		}
		sums = append(sums, digestsOf(p)...)
		at += int64(len(p))
	}
	return sums, nil
}

// digestsOf are the digests of whole blocks, one after another.
func digestsOf(p []byte) []byte {
	sums := make([]byte, 0, len(p)/Block*digestBytes)
	for ; len(p) > 0; p = p[Block:] {
		d := sha256.Sum256(p[:Block])
		sums = append(sums, d[:digestBytes]...)
	}
	return sums
}

// differing has a bit for each digest: 1 = different.
func differing(mine, theirs []byte) []byte {
	blocks := len(mine) / digestBytes
	bits := make([]byte, (blocks+7)/8)
	for b := range blocks {
		if at := b * digestBytes; !bytes.Equal(mine[at:at+digestBytes], theirs[at:at+digestBytes]) {
			bits[b/8] |= 1 << (b % 8)
		}
	}
	return bits
}

// hasBit reads what differing wrote.
func hasBit(bits []byte, i int64) bool { return bits[i/8]&(1<<(i%8)) != 0 }

// expect registers for an answer that is about to be asked for.
func (s *source) expect(kind link.Type, offset uint64) chan []byte {
	ch := make(chan []byte, 1)
	s.mu.Lock()
	s.replies[replyKey{kind, offset}] = ch
	s.mu.Unlock()
	return ch
}

func (s *source) await(ch chan []byte) ([]byte, error) {
	select {
	case b := <-ch:
		return b, nil
	case <-s.ctx.Done():
		return nil, errCopyOver
	case <-s.lane.Dead():
		return nil, link.ErrLost
	}
}

// answer hands a reply frame to whoever waits for it; nobody does is a protocol error.
func (s *source) answer(f *link.Frame) error {
	s.mu.Lock()
	key := replyKey{f.Type, f.Offset}
	ch := s.replies[key]
	delete(s.replies, key)
	s.mu.Unlock()
	if ch == nil {
		return fmt.Errorf("%w: answer to nothing", link.ErrFrame)
	}
	ch <- bytes.Clone(f.Payload)
	return nil
}

// barrier asks the target for its root after everything sent so far, and brings this leg's leaves up to date
// meanwhile. A hard one belongs to the proof: both legs are synced and nothing is written.
func (s *source) barrier(hard bool) (theirs Leaf, err error) {
	f := &link.Frame{Type: link.Barrier, Volume: s.v.handleNow()}
	if hard {
		f.Flags = link.Last
	}
	answer := s.expect(link.BarrierDone, 0)
	s.lane.Send(f, nil)
	if hard {
		if err := s.v.disk().Sync(); err != nil {
			return theirs, s.v.legError("sync", err)
		}
	}
	if err := s.v.refresh(s.ctx, lockEach, !hard); err != nil {
		return theirs, err
	}
	b, err := s.await(answer)
	if err != nil {
		return theirs, err
	}
	if len(b) != len(theirs) {
		return theirs, fmt.Errorf("%w: root of %d bytes", link.ErrFrame, len(b))
	}
	return Leaf(b), nil
}

// Prove compares the roots of both legs while everything is held. When they differ it marks the differing blocks.
func (s *source) Prove() (root Leaf, equal bool, err error) {
	theirs, err := s.barrier(true)
	if err != nil {
		return root, false, err
	}
	root = s.v.leaves.root(s.v.ID, s.v.size)
	if root == theirs {
		return root, true, nil
	}
	bits, err := s.askLeaves()
	if err != nil {
		return root, false, err
	}
	err = s.compare(func(e int64) bool { return bits[e/8]&(1<<(e%8)) != 0 })
	return root, false, err
}

// askLeaves finds the extents that differ.
func (s *source) askLeaves() ([]byte, error) {
	all := s.v.leaves.flat()
	extents := len(all) / len(Leaf{})
	bits := make([]byte, 0, (extents+7)/8)
	const chunk = link.MaxPayload / 2 // a multiple of 8 leaves
	for at := 0; at < len(all); at += chunk {
		part := all[at:min(at+chunk, len(all))]
		answer := s.expect(link.LeavesReply, uint64(at/len(Leaf{})))
		s.lane.Send(&link.Frame{
			Type: link.Leaves, Volume: s.v.handleNow(), Offset: uint64(at / len(Leaf{})), Payload: part,
		}, nil)
		b, err := s.await(answer)
		if err != nil {
			return nil, err
		}
		bits = append(bits, b...)
	}
	if len(bits) != (extents+7)/8 {
		return nil, fmt.Errorf("%w: leaves reply of %d bytes", link.ErrFrame, len(bits))
	}
	return bits, nil
}

// Flush makes the target sync what it acknowledged.
func (s *source) Flush() error {
	if !s.v.flushPeer(s.lane) {
		return errCopyOver
	}
	if err := s.v.disk().Sync(); err != nil {
		return s.v.legError("sync", err)
	}
	return nil
}
