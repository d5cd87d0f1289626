package volume

import (
	"context"

	"duet/replication/volume/stage"
)

// A drain is the hold of a volume that is to be handed over (protocol.md R22): what the old owner wrote has reached both
// legs before the new owner writes anything. It ends with a grant of another stage or another owner, or by EndDrain; it
// outlives an extension of the lease, which comes every 250 ms.
//
// A drain is not a stage: stages follow from grants, lanes and copies, and a volume may go through any of them while a
// drain waits. It only narrows what the stage allows, at admission first and then, when it is complete, altogether.

// BeginDrain holds new requests. Those under way go on. It changes nothing if they are held for a drain already.
func (v *Volume) BeginDrain() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.facts.Drain == stage.NoDrain {
		v.drains++
		v.facts.Drain = stage.Draining
	}
}

// EndDrain lets requests go on, as far as the grant allows it.
func (v *Volume) EndDrain() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.facts.Drain != stage.NoDrain {
		v.endDrain()
		v.wake()
	}
}

// endDrain: the caller holds mu and wakes.
func (v *Volume) endDrain() { v.facts.Drain = stage.NoDrain }

// Drain waits until nothing is under way and both legs have synced what was acknowledged. It says whether that is so
// under the hold that BeginDrain began; false: the hold is over, or ctx was too short. A hold that is not complete stays.
func (v *Volume) Drain(ctx context.Context) bool {
	v.mu.Lock()
	mine, drain := v.drains, v.facts.Drain
	v.mu.Unlock()
	if drain != stage.Draining {
		return drain == stage.Drained
	}
	over := func() bool { return v.drains != mine || v.facts.Drain == stage.NoDrain }
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends the waits below when the hold is over
		if v.until(ctx, over) == nil {
			cancel()
		}
	}()
	// First without a place in the queue of the ranges, so that nothing else waits behind a request that hangs.
	if v.until(ctx, func() bool { return len(v.active) == 0 && v.forwarding == 0 }) != nil {
		return false
	}
	// Where the other node coordinates, it goes on doing so: it has what was acknowledged.
	if v.allowed(stage.Coordinates) {
		if synced, err := v.syncAll(ctx); err != nil || !synced {
			return false
		}
	}
	// Reads and repairs have no place among the active ones, but they hold their range. Whoever gets it after this claim sees that the
	// volume is drained. The claim comes last: behind it nothing could make the legs equal that a sync may have to wait for.
	c, err := v.locks.lock(ctx, 0, v.size/Block, true)
	if err != nil {
		return false
	}
	defer v.locks.release(c)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case over() || len(v.active) != 0 || v.forwarding != 0:
		return false
	case v.facts.Drain == stage.Drained:
		return true
	}
	v.facts.Drain = stage.Drained
	v.term.Add(1) // a read that is done but not answered yet is done again, by whoever may then
	return true
}

// stageWord is the stage for people; a drain is what they wait for meanwhile. The caller holds mu.
func (v *Volume) stageWord() string {
	switch v.facts.Drain {
	case stage.Draining:
		return "draining"
	case stage.Drained:
		return "drained"
	case stage.NoDrain:
	}
	return stage.Of(v.facts).String()
}
