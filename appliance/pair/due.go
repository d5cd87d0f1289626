package pair

import (
	"time"

	"duet/appliance/membership"
)

// due fires what is over: the core's timers, the heartbeat, the wants, the absence of a data lane. What waits in the
// queues is heard first, so that a driver that was held up does not judge by its own absence.
func (d *Driver) due() error {
	for range drainMax {
		select {
		case e := <-d.link.Events():
			if err := d.linkSaid(e); err != nil {
				return err
			}
			continue
		case in := <-d.inputs:
			if err := d.take(in); err != nil {
				return err
			}
			continue
		default:
		}
		break
	}
	for _, f := range []func(membership.Boottime) error{d.dueTimers, d.dueLane, d.dueLegs, d.dueBeat, d.dueWants} {
		if err := f(d.now()); err != nil {
			return err
		}
	}
	return nil
}

// dueTimers fires each timer once per Arm, never before its time. It looks at each when its turn comes: a step before it in
// the same pass may have set it anew.
func (d *Driver) dueTimers(now membership.Boottime) error {
	for id := range d.timers {
		at := d.timers[id]
		if at == 0 || now < at {
			continue
		}
		d.timers[id] = 0
		if membership.TimerID(id) == membership.TimerPeerWait { //nolint:gosec // an index of the table
			d.wantAt = 0 // the peer has certainly stopped: what waited for that starts now
		}
		if err := d.step(membership.Timer{Timer: membership.TimerID(id)}); err != nil { //nolint:gosec // an index of the table
			return err
		}
	}
	return nil
}

// dueLane: 1.5 s without a working data lane on any allowed path is a lost peer (protocol.md 5.3). With beats alone,
// a cut cable beside a living LAN would hold writes for ever.
func (d *Driver) dueLane(now membership.Boottime) error {
	l := d.lane
	if l.session == 0 || l.up || now < l.by || l.session != d.state.Session {
		return nil
	}
	d.lane = lane{}
	d.link.Pause(laneHoldOff)
	return d.endSession("no data lane")
}

func (d *Driver) dueBeat(now membership.Boottime) error {
	if now < d.beatAt {
		return nil
	}
	d.beatAt = now + membership.Boottime(heartbeat)
	d.link.Alive()
	if !d.state.Committed() {
		d.publish()
		return nil
	}
	return d.step(membership.Beat{})
}

func (d *Driver) dueWants(now membership.Boottime) error {
	if now < d.wantAt {
		return nil
	}
	d.wantAt = now + membership.Boottime(wantAgain)
	if d.state.Mode != membership.Solo && !d.state.Committed() {
		return nil
	}
	for _, r := range d.cfg.Workloads.Wanted() {
		if d.mayAsk(r) {
			if err := d.step(membership.Want{Resource: r}); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayAsk spares the core inputs that it would not answer; the guard is its own.
func (d *Driver) mayAsk(r membership.ResourceID) bool {
	if d.state.Committed() {
		return d.state.Owns(r)
	}
	return d.state.Owns(r) || d.state.PeerStopped(d.now())
}

// untilNext is the time to the next thing that is due.
func (d *Driver) untilNext() time.Duration {
	next := min(d.beatAt, d.wantAt, d.legs.at)
	for _, at := range d.timers {
		if at != 0 {
			next = min(next, at)
		}
	}
	if d.lane.session != 0 && !d.lane.up {
		next = min(next, d.lane.by)
	}
	return max(0, time.Duration(next-d.now()))
}
