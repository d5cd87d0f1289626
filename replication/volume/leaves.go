package volume

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"

	"duet/replication/block"
	"duet/replication/meta"
)

// Leaf is the digest of one extent's data, read from the leg.
type Leaf [sha256.Size]byte

// leaves keeps a digest per extent and knows which are stale. A write makes its extents stale before it begins and
// again when it ends, under its lock; a digest is taken under a shared lock, so it belongs to one moment. One that was
// read before a sync covered the last write may speak of a disk's cache: it is weak, and the next sync makes it stale.
type leaves struct {
	mu    sync.Mutex
	sums  []Leaf
	fresh []bool
	stale int

	syncs uint64   // begun so far
	wrote []uint64 // value of syncs at the last write
	weak  []bool
}

func newLeaves(size int64) *leaves {
	n := int((size + meta.ExtentBytes - 1) / meta.ExtentBytes)
	return &leaves{
		sums: make([]Leaf, n), fresh: make([]bool, n), stale: n, wrote: make([]uint64, n), weak: make([]bool, n),
	}
}

// forget makes all stale: another leg.
func (l *leaves) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.fresh)
	l.stale = len(l.fresh)
}

// touch makes the extents of a byte range stale.
func (l *leaves) touch(off, n int64) {
	if n <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := off / meta.ExtentBytes; e <= (off+n-1)/meta.ExtentBytes; e++ {
		l.wrote[e] = l.syncs
		if l.fresh[e] {
			l.fresh[e] = false
			l.stale++
		}
	}
}

// synced runs a sync; what was read before its last write was synced has to be read again (replication.md 10.4).
func (l *leaves) synced(sync func() error) error {
	l.mu.Lock()
	l.syncs++
	l.mu.Unlock()
	if err := sync(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for e, weak := range l.weak {
		if weak && l.fresh[e] {
			l.fresh[e] = false
			l.stale++
		}
	}
	return nil
}

func (l *leaves) staleCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stale
}

func (l *leaves) isStale(e int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.fresh[e]
}

func (l *leaves) set(e int64, sum Leaf) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.fresh[e] {
		l.stale--
	}
	l.sums[e], l.fresh[e] = sum, true
	l.weak[e] = l.wrote[e] == l.syncs // no sync was begun since its last write ended
}

// flat is all leaves in order, for the peer to compare.
func (l *leaves) flat() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := make([]byte, 0, len(l.sums)*sha256.Size)
	for i := range l.sums {
		b = append(b, l.sums[i][:]...)
	}
	return b
}

// root binds all leaves to the volume and its size.
func (l *leaves) root(id meta.ID, size int64) Leaf {
	h := sha256.New()
	h.Write(id[:])
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(size))
	h.Write(n[:])
	h.Write(l.flat())
	return Leaf(h.Sum(nil))
}

// locking says who holds the places of what is digested.
type locking bool

const (
	lockEach  locking = false // each extent is locked for itself
	lockedAll locking = true  // the caller holds the whole volume
)

// refresh recomputes every stale leaf by reading the leg. heal: blocks that this leg cannot give are fetched from the other one.
func (v *Volume) refresh(ctx context.Context, l locking, heal bool) error {
	buf := block.Get(digestRead)
	defer block.Put(buf)
	for e := int64(0); e < int64(len(v.leaves.sums)); e++ {
		if !v.leaves.isStale(e) {
			continue
		}
		bad, err := v.refreshExtent(ctx, e, l, buf)
		if err == nil && heal && len(bad) > 0 {
			if err = v.healAll(ctx, bad); err == nil || errors.Is(err, errDamaged) {
				_, err = v.refreshExtent(ctx, e, l, buf)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readForDigest reads what this leg holds, for comparing. Sums that are unknown are learned; a block that it cannot give is
// replaced by its mark.
func (v *Volume) readForDigest(p []byte, off int64) (bad []badBlock, err error) {
	leg := v.parts.Load()
	if bad, err = leg.read(p, off); err != nil {
		return nil, v.legError("read for a digest", err)
	}
	v.count.digest.Add(int64(len(p)))
	if err := v.learn(leg, p, off, bad, nil); err != nil {
		return nil, err
	}
	leg.mark(p, off, bad)
	return bad, nil
}

// learn is parts.learn; what fails it is the leg's failure.
func (v *Volume) learn(leg *parts, p []byte, off int64, bad []badBlock, differ []byte) error {
	if err := leg.learn(p, off, bad, differ); err != nil {
		return v.legError("sums", err)
	}
	return nil
}

// mark puts the marks of bad blocks into what was read for a digest.
func (leg *parts) mark(p []byte, off int64, bad []badBlock) {
	for _, b := range bad {
		copy(p[b.n*Block-off:], badMark(leg.meta.Expected(b.n)))
	}
}

func (v *Volume) refreshExtent(ctx context.Context, e int64, l locking, buf []byte) (bad []badBlock, err error) {
	off := e * meta.ExtentBytes
	n := min(meta.ExtentBytes, v.size-off)
	if l == lockEach {
		c, err := v.locks.lock(ctx, off/Block, n/Block, false)
		if err != nil {
			return nil, err
		}
		defer v.locks.release(c)
	}
	h := sha256.New()
	for at := off; at < off+n; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p := buf[:min(int64(len(buf)), off+n-at)]
		found, err := v.readForDigest(p, at)
		if err != nil {
			return nil, err
		}
		bad = append(bad, found...)
		h.Write(p)
		at += int64(len(p))
	}
	v.leaves.set(e, Leaf(h.Sum(nil)))
	return bad, nil
}
