package pair

import (
	"context"
	"fmt"
	"time"

	"duet/appliance/membership"
	"duet/replication/control"
)

// What duet-mirrord says about legs are levels, not events: a leg stays dead, and one that came back stays proved, until
// the table of legs says so. The core takes neither while it is busy with something else, so the driver says it again.

const (
	// legAgain is when the core is told again what it has not acted on.
	legAgain = time.Second
	// legReturnLimit ends the session when a leg that is proved is not taken in: its coordinator holds writes meanwhile, and
	// only the end of the session lets it go on alone without a doubt about what the other node counts (protocol.md R24).
	legReturnLimit = 5 * time.Second
)

// legs is what this node's duet-mirrord said; owned by the loop.
type legs struct {
	failed membership.Volumes
	synced [membership.MaxVolumes]syncedLeg
	at     membership.Boottime // when the core is told again; 0: at once
}

// syncedLeg is a return that is proved. The zero Session: none.
type syncedLeg struct {
	event membership.LegSynced
	since membership.Boottime
}

// slotOf finds a volume of the site by its id.
func (d *Driver) slotOf(id string) (membership.VolumeSlot, bool) {
	for _, v := range d.site.Volumes {
		if v.ID == id {
			return v.Slot, true
		}
	}
	return 0, false
}

// copyDone is the end of a copy in the core's words.
func (d *Driver) copyDone(c control.CopyDone) membership.CopyDone {
	done := membership.CopyDone{Session: membership.Session(c.Session), Digest: c.Digest}
	for n, ids := range c.Out {
		for _, id := range ids {
			if v, ok := d.slotOf(id); ok {
				done.Out[n] |= 1 << v
			}
		}
	}
	return done
}

func (d *Driver) legFailed(l control.LegFailed) {
	v, ok := d.slotOf(l.Volume)
	if !ok {
		return // of a volume that this version of the document does not know
	}
	d.log.Error("a leg of this node has failed", "volume", l.Volume)
	d.legs.failed |= 1 << v
	d.legs.synced[v] = syncedLeg{}
	d.legs.at = 0
}

func (d *Driver) legSynced(l control.LegSynced) {
	v, ok := d.slotOf(l.Volume)
	if !ok || d.state.Rec.Legs[v].Version != l.LegsVersion {
		return // of a table that has changed since
	}
	d.log.Info("a leg came back", "volume", l.Volume)
	d.legs.failed &^= 1 << v
	d.legs.synced[v] = syncedLeg{
		membership.LegSynced{Session: membership.Session(l.Session), Volume: v, Digest: l.Digest}, d.now(),
	}
	d.legs.at = 0
}

// tellLegs tells the core what its table does not say yet.
func (d *Driver) tellLegs() error {
	d.legs.at = d.now() + membership.Boottime(legAgain)
	for v := range membership.VolumeSlot(membership.MaxVolumes) {
		var err error
		switch s := &d.legs.synced[v]; {
		case d.legs.failed.Has(v):
			if d.legTakesPart(v) {
				err = d.step(membership.LegFailed{Volume: v})
			}
		case s.event.Session == 0:
		case s.event.Session != d.state.Session || d.state.Rec.Legs[v].Set == membership.Both:
			*s = syncedLeg{}
		case d.now() >= s.since+membership.Boottime(legReturnLimit):
			*s = syncedLeg{}
			err = d.endSession(fmt.Sprintf("the return of a leg of volume %d is not taken in", v))
		case d.state.Committed():
			err = d.step(s.event)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// legTakesPart: the dead leg counts by the record, and something can be done about it, or nobody was told.
func (d *Driver) legTakesPart(v membership.VolumeSlot) bool {
	l := d.state.Rec.Legs[v]
	return l.Set == membership.Both && d.state.Committed() || l.Set.Has(d.state.Cfg.Self) && !d.state.BadLegs.Has(v)
}

// dueLegs tells again; it is cheap while there is nothing to tell.
func (d *Driver) dueLegs(now membership.Boottime) error {
	if now < d.legs.at {
		return nil
	}
	return d.tellLegs()
}

// forgetLegs: the next duet-mirrord finds out by itself. The one that went may have held writes behind a return it had
// reported; the next one would go on alone with them, which the other node may count as on both legs already.
func (d *Driver) forgetLegs() error {
	pending := false
	for _, s := range d.legs.synced {
		pending = pending || s.event.Session != 0 && s.event.Session == d.state.Session
	}
	d.legs = legs{}
	if pending {
		return d.endSession("duet-mirrord was lost while a leg came back")
	}
	return nil
}

// endSession ends the present session on this side, on purpose.
func (d *Driver) endSession(why string) error {
	session := d.state.Session
	if session == 0 {
		return nil
	}
	d.log.Warn("session ended", "why", why, "session", uint64(session))
	d.trail.note("session-ended", why)
	d.dropSession()
	return d.step(membership.PeerLost{Session: session})
}

// ScrubVolume has duet-mirrord compare both legs of a volume; what it refuses is control.ErrRefused.
func (d *Driver) ScrubVolume(ctx context.Context, volume string) error {
	client := d.mirror.current()
	if client == nil {
		return errMirrorGone
	}
	return client.Scrub(ctx, volume)
}

// ReadmitLeg has duet-mirrord make a new leg in the place of its dead one. The caller has looked at the record; what
// duet-mirrord refuses is control.ErrRefused.
func (d *Driver) ReadmitLeg(ctx context.Context, volume string) error {
	client := d.mirror.current()
	if client == nil {
		return errMirrorGone
	}
	return client.Readmit(ctx, volume)
}
