package volume

import (
	"errors"
	"testing"

	"duet/replication/meta"
)

// Proves: replication.md section 10.4. A digest counts for the proof only if a sync covered the last write before it was
// read: one that was read from a disk's cache is taken again after the sync of the barrier.
func TestDigestsSpeakOfTheMedium(t *testing.T) {
	l := newLeaves(3 * meta.ExtentBytes)
	nothing := func() error { return nil }
	read := func() {
		for e := range int64(3) {
			l.set(e, Leaf{byte(e)})
		}
	}
	if err := l.synced(func() error { l.touch(meta.ExtentBytes, 4096); return nil }); err != nil { // a write during the sync
		t.Fatal(err)
	}
	l.touch(2*meta.ExtentBytes, 4096) // and one after it
	read()
	if n := l.staleCount(); n != 0 {
		t.Fatalf("%d stale after reading all", n)
	}
	if err := l.synced(nothing); err != nil {
		t.Fatal(err)
	}
	if l.isStale(0) || !l.isStale(1) || !l.isStale(2) {
		t.Error("the sync of the barrier came after the reading of 1 and 2, and only of these")
	}
	read()
	if err := l.synced(nothing); err != nil {
		t.Fatal(err)
	}
	if n := l.staleCount(); n != 0 {
		t.Errorf("%d extents are read again although nothing was written since a sync", n)
	}
}

// A write after the proof makes it void at the target too.
func TestFinishSinkNeedsFreshLeaves(t *testing.T) {
	v, _ := newLeg(t, meta.UpToDate)
	v.leaves.set(0, Leaf{1})
	v.leaves.set(1, Leaf{2})
	root := v.leaves.root(v.ID, v.size)
	v.leaves.touch(0, 4096)
	if err := v.FinishSink(nil, Result{Root: root}); err == nil || errors.Is(err, errCopyOver) {
		t.Errorf("a proof of other data was taken: %v", err)
	}
}
