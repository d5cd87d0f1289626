package volume

import (
	"errors"
	"fmt"
	"time"

	"duet/replication/block"
	"duet/replication/link"
	"duet/replication/meta"
	"duet/replication/volume/slow"
	"duet/replication/volume/stage"
)

// Each node measures its leg and tells the other one, four times a second. A leg that hangs or is far slower than the other one,
// which could serve alone, is given up, and from then on it is a leg that failed: package slow decides.

// ejectGrace is how long a leg that is given up may take to record it; then its metadata is given up, too.
const ejectGrace = 500 * time.Millisecond

// errEjected marks the failure of a leg that was too slow.
var errEjected = errors.New("the leg was taken out")

// Leg is the two objects of a leg, its data under watch, and the device of its metadata.
type Leg struct {
	Data *block.Watch
	Meta *meta.Meta
	Side *block.Watch // what Meta is on
}

// heard is what the other node last said of its leg on this lane.
type heard struct {
	stat  slow.Stat
	ticks int // since then; < 0: never
}

// watchLeg measures, tells and judges, for as long as the volume lives.
func (v *Volume) watchLeg() {
	tick := time.NewTicker(slow.TickMS * time.Millisecond)
	defer tick.Stop()
	var judge slow.Leg
	for last := (*parts)(nil); ; {
		select {
		case <-v.ctx.Done():
			return
		case <-tick.C:
		}
		leg := v.parts.Load()
		if leg != last {
			judge, last = slow.Leg{}, leg
		}
		if why := judge.Judge(v.look(leg)); why != "" {
			v.eject(leg, why)
		}
	}
}

// look is one tick; it tells the other node what it saw.
func (v *Volume) look(leg *parts) slow.Look {
	oldest, p50 := leg.data.Tick()
	side, _ := leg.side.Tick()
	own := slow.Stat{OldestTicks: max(oldest, side), P50MicroS: p50.Microseconds()}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.heard.ticks >= 0 {
		v.heard.ticks++
	}
	if v.lane != nil && !v.facts.Failed {
		v.lane.Post(&link.Frame{
			Type: link.Stat, Volume: v.handle, Offset: uint64(own.P50MicroS), Length: uint32(own.OldestTicks),
		})
	}
	f := v.facts
	return slow.Look{Own: own, Other: v.heard.stat, HeardFor: v.heard.ticks, InStep: stage.Ready(f) && f.InStep && f.Self && f.Peer}
}

// takeStat hears of the other leg.
func (v *Volume) takeStat(l *link.Lane, f *link.Frame) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.lane == l {
		v.heard = heard{slow.Stat{OldestTicks: int(f.Length), P50MicroS: int64(f.Offset)}, 0}
	}
}

// eject gives a leg up: what is under way in it ends as an error here, and the volume goes on over the other leg when the membership
// has taken this one out (R23).
func (v *Volume) eject(leg *parts, why string) {
	cause := fmt.Errorf("%w: %s", errEjected, why)
	leg.data.Abandon(cause)
	time.AfterFunc(ejectGrace, func() { leg.side.Abandon(cause) })
	_ = v.legError("disk", cause) //nolint:errcheck // recorded and held
}
