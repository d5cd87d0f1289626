package volume

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
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

// refresh recomputes every stale leaf by reading the leg. locked says that the caller holds the whole volume.
func (v *Volume) refresh(ctx context.Context, locked bool) error {
	buf := block.Get(digestRead)
	defer block.Put(buf)
	for e := int64(0); e < int64(len(v.leaves.sums)); e++ {
		if !v.leaves.isStale(e) {
			continue
		}
		if err := v.refreshExtent(ctx, e, locked, buf); err != nil {
			return err
		}
	}
	return nil
}

func (v *Volume) refreshExtent(ctx context.Context, e int64, locked bool, buf []byte) error {
	off := e * meta.ExtentBytes
	n := min(meta.ExtentBytes, v.size-off)
	if !locked {
		c, err := v.locks.lock(ctx, off/Block, n/Block, false)
		if err != nil {
			return err
		}
		defer v.locks.release(c)
	}
	h := sha256.New()
	for at := off; at < off+n; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:min(int64(len(buf)), off+n-at)]
		if err := v.disk().ReadAt(p, at); err != nil {
			return v.legError("read for the proof", err)
		}
		h.Write(p)
		at += int64(len(p))
	}
	v.count.digest.Add(n)
	v.leaves.set(e, Leaf(h.Sum(nil)))
	return nil
}
