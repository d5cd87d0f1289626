package pair

import (
	"context"
	"errors"
	"fmt"

	"duet/appliance/membership"
	"duet/appliance/pair/peerlink"
	"duet/replication/control"
)

// errReset: a right could not be taken away. The node goes down (protocol.md 5.1).
var errReset = errors.New("this node cannot stop what it must stop")

// perform carries out one effect. Persist, Stop, Grant and Revoke are barriers.
func (d *Driver) perform(e membership.Effect) error {
	switch e := e.(type) {
	case membership.Persist:
		return d.persist(e.Record)
	case membership.Stop:
		return d.stop(e)
	case membership.Grant:
		return d.grant(e.Grant)
	case membership.Revoke:
		return d.revoke()
	case membership.Send:
		d.send(e.Message)
	case membership.CloseSession:
		d.dropSession()
	case membership.AskWitness:
		d.askWitness(e)
	case membership.PushWitness:
		d.pushWitness(e)
	case membership.CreateRegister:
		d.createRegister(e)
	case membership.Drain:
		d.drain(e.Resources)
	case membership.Start:
		d.trail.note("start", fmt.Sprintf("resource %d, epoch %d", e.Resource, e.Epoch))
		d.cfg.Workloads.Start(e.Resource, e.Epoch)
	case membership.Fence:
		d.fence(e)
	case membership.CancelFence:
		d.cancelFence()
	case membership.PowerOnPeer:
		d.powerOn()
	case membership.Copy:
		d.copyLegs(e.Session)
	case membership.Arm:
		d.timers[e.Timer] = e.At
	case membership.Report:
		d.report(e.Report)
	}
	return nil
}

func (d *Driver) persist(r membership.Record) error {
	if err := d.cfg.Records.Write(r.Seq, membership.AppendRecord(nil, r)); err != nil {
		return fmt.Errorf("%w: %w", ErrHalted, err)
	}
	if hash := documentOf(r); hash != d.placed {
		return d.belong()
	}
	return nil
}

// documentOf is the version of the site document that counts by this record.
func documentOf(r membership.Record) membership.Digest {
	switch {
	case r.Site.IsZero():
		return membership.Digest{}
	case r.Ep == 0:
		return r.Prep.Docs[membership.DocSite].Hash
	}
	return r.Docs[membership.DocSite].Hash
}

func (d *Driver) stop(s membership.Stop) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), stopLimit)
	defer cancel()
	var err error
	if s.All {
		d.cfg.Workloads.Permit(0, 0, 0)
		err = d.cfg.Workloads.StopAll(ctx)
	} else {
		err = d.cfg.Workloads.Stop(ctx, s.Resources)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errReset, err)
	}
	return nil
}

// grant tells the lease guard and duet-mirrord, then what may be started. A grant whose deadline is over allows
// nothing to run; what still does is killed before anything else is given.
func (d *Driver) grant(g membership.GrantContent) error {
	late := g.Deadline != 0 && g.Deadline <= d.now()
	if late {
		d.guard.set(0)
		if !d.cfg.Workloads.Idle() {
			if err := d.stop(membership.Stop{All: true}); err != nil {
				return err
			}
		}
	} else {
		d.guard.set(g.Deadline)
	}
	d.laneGranted(g.Session)
	d.pets.grantedTo.Store(d.serves(g))
	if g.Mode != membership.Solo {
		d.pets.solo.Store(false) // the right of a solo node ends here, not at the end of the step
	}
	if err := d.mirror.set(d.ctx, d.grantOf(g)); err != nil {
		return fmt.Errorf("%w: %w", errReset, err)
	}
	if late {
		d.cfg.Workloads.Permit(0, 0, 0)
		return nil
	}
	d.cfg.Workloads.Permit(g.Epoch, d.mayStart(g), g.Deadline)
	return nil
}

// serves is until when this node's exports may be written under a grant: what the watchdog calls "runs here".
func (d *Driver) serves(g membership.GrantContent) int64 {
	for _, v := range d.site.Volumes {
		if g.Owners[v.Resource].Node == d.state.Cfg.Self && g.Mode != membership.Joining {
			return int64(g.Deadline)
		}
	}
	return 0
}

// mayStart: only a committed pair and a solo node start anything (protocol.md section 4).
func (d *Driver) mayStart(g membership.GrantContent) membership.Resources {
	var rs membership.Resources
	if g.Mode != membership.Solo && (g.Mode != membership.Paired || g.Prepared != 0) {
		return 0
	}
	for i, o := range g.Owners {
		if i != int(membership.PairResource) && o.Version != 0 && o.Node == d.state.Cfg.Self {
			rs |= 1 << i
		}
	}
	return rs
}

func (d *Driver) revoke() error {
	d.guard.set(0)
	d.pets.grantedTo.Store(0)
	d.lane = lane{}
	d.cfg.Workloads.Permit(0, 0, 0)
	if err := d.mirror.set(d.ctx, control.Grant{}); err != nil {
		return fmt.Errorf("%w: %w", errReset, err)
	}
	return nil
}

// grantOf is the core's grant in duet-mirrord's words.
func (d *Driver) grantOf(g membership.GrantContent) control.Grant {
	out := control.Grant{
		Mode: mirrorMode(g), Epoch: uint64(g.Epoch), Prepared: uint64(g.Prepared), Session: uint64(g.Session),
		Members: control.Set(g.Members), Deadline: int64(g.Deadline),
	}
	for _, v := range d.site.Volumes {
		legs := g.Legs[v.Slot]
		out.Volumes = append(out.Volumes, control.VolumeGrant{
			Volume: v.ID, Owner: control.Node(g.Owners[v.Resource].Node), Legs: control.Set(legs.Set), LegsVersion: legs.Version,
		})
	}
	return out
}

func mirrorMode(g membership.GrantContent) control.Mode {
	switch g.Mode {
	case membership.Joining:
		return control.Joining
	case membership.Resolving:
		return control.Resolving
	case membership.Frozen:
		return control.Frozen
	case membership.Paired:
		if g.Prepared != 0 {
			return control.Prepared
		}
		return control.Paired
	case membership.Solo:
		return control.Solo
	default: // the others as below
	}
	return control.Revoked
}

// laneGranted: from the first grant of a session on, a data lane is expected.
func (d *Driver) laneGranted(session membership.Session) {
	if session != d.lane.session {
		d.lane = lane{session: session, by: d.now() + membership.Boottime(laneBegin)}
		if d.laneSeen.Up && d.laneSeen.Session == uint64(session) {
			d.lane.up, d.lane.path = true, d.laneSeen.Path
		}
	}
}

// dropSession ends the session on this side without an input for the core.
func (d *Driver) dropSession() {
	d.link.Drop(d.resume.Session)
	d.resume = peerlink.Resume{}
}

func (d *Driver) send(m membership.Message) {
	body := append([]byte{kindCore}, membership.MarshalMessage(m)...)
	session := d.resume.Session // the transport's: a YIELD is sent in the step in which the core drops its session
	switch m.(type) {
	case membership.BeatMsg, membership.BeatAck:
		d.link.SendLoose(session, body)
	default:
		d.link.Send(session, body)
	}
}

// stopServing is the end of a driver that must not go on: what runs is killed, the grant taken away, the node reset
// when even that does not work.
func (d *Driver) stopServing(cause error) error {
	d.log.Error("this node stops serving", "error", cause.Error())
	d.trail.note("stopped", cause.Error())
	if errors.Is(cause, membership.ErrInvariant) || errors.Is(cause, errCut) {
		return cause // the data is not touched; leases and deadlines end what runs (protocol.md 12.1)
	}
	d.showStopped()
	d.pets.hold.Store(errors.Is(cause, errReset))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), stopLimit)
	defer cancel()
	d.cfg.Workloads.Permit(0, 0, 0)
	err := errors.Join(d.cfg.Workloads.StopAll(ctx), d.mirror.set(ctx, control.Grant{}))
	if errors.Is(cause, errReset) || err != nil {
		d.pets.hold.Store(true)
		d.cfg.Hooks.Reset(errors.Join(cause, err).Error())
	}
	return errors.Join(cause, err)
}

// leaseEnded runs on the lease guard's thread.
func (d *Driver) leaseEnded(at membership.Boottime) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), stopLimit)
	defer cancel()
	// A start under way may still bring a process, paused for ever: the gate is closed, and that is no reason for a reset.
	if err := d.cfg.Workloads.StopAll(ctx); err != nil {
		d.pets.hold.Store(true)
		d.log.Error("workloads outlive the lease; this node is reset", "error", fmt.Sprint(err))
		d.cfg.Hooks.Reset("workloads outlive the lease")
		return
	}
	d.log.Warn("lease over, workloads killed", "deadline", int64(at))
	d.trail.note("lease-ended", "")
}
