package pair

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"duet/appliance/membership"
	"duet/replication/control"
)

// drainPatience: duet-mirrord answers within its own limit; one that does not is as good as gone.
const drainPatience = control.DrainLimit + time.Second

// errMirrorGone: it may come back, but then it holds nothing.
var errMirrorGone = errors.New("duet-mirrord is not there")

// draining is one call, about the whole set of resources.
type draining struct {
	resources membership.Resources
	client    *control.Client
	end       context.CancelFunc
}

// drain carries out the effect Drain: the volumes of these resources, and no others, hold new requests and finish what is
// under way. The call goes to duet-mirrord before the next effect, so that it keeps its place among the grants; its
// answer is awaited beside the loop and becomes Drained for each resource. A new Drain is about the whole set again, so
// the answer to the one before it counts no more.
func (d *Driver) drain(rs membership.Resources) {
	if d.asks.drain != nil {
		d.asks.drain.end()
	}
	ctx, cancel := context.WithTimeout(d.ctx, drainPatience)
	client, answer, err := d.mirror.drain(ctx, d.volumesOf(rs))
	call := &draining{rs, client, cancel}
	d.asks.drain = call
	d.wg.Go(func() {
		defer cancel()
		var ids []string
		if err == nil {
			ids, err = answer(ctx)
		}
		d.post(input{try: func() error { return d.drained(call, ids, err) }})
	})
}

// drained tells the core about each resource. It runs in the loop, where a process that is gone is not followed by
// another one before the step is done: a new one holds nothing, and its grant is the one that this step replaces.
func (d *Driver) drained(call *draining, ids []string, err error) error {
	if err == nil && d.mirror.current() != call.client {
		err = errMirrorGone
	}
	if err != nil {
		ids = nil
		d.log.Warn("no drain", "resources", uint64(call.resources), "error", err.Error())
	}
	for r := range membership.ResourceID(membership.MaxResources) {
		if d.asks.drain != call {
			return nil // the one after it answers for all
		}
		if !call.resources.Has(r) {
			continue
		}
		open := slices.DeleteFunc(d.volumesOf(1<<r), func(id string) bool { return slices.Contains(ids, id) })
		ok := err == nil && len(open) == 0
		d.log.Info("drained", "resource", r, "ok", ok, "open", open)
		d.trail.note("drained", fmt.Sprintf("resource %d: %t", r, ok))
		if err := d.step(membership.Drained{Resource: r, OK: ok}); err != nil {
			return err
		}
	}
	return nil
}

// volumesOf are the ids of the volumes that belong to these resources.
func (d *Driver) volumesOf(rs membership.Resources) []string {
	var ids []string
	for _, v := range d.site.Volumes {
		if rs.Has(v.Resource) {
			ids = append(ids, v.ID)
		}
	}
	return ids
}

// drain asks the process that is there now.
func (m *mirrord) drain(ctx context.Context, volumes []string) (*control.Client, func(context.Context) ([]string, error), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client == nil {
		return nil, nil, errMirrorGone
	}
	answer, err := m.client.Drain(ctx, volumes)
	return m.client, answer, err
}
