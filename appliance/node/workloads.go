package node

import (
	"context"
	"errors"

	"duet/appliance/membership"
)

// workloads are what runs on this node for the core: guests, and the primary of the database.
type workloads struct {
	guests   *guests
	database *database
}

// Permit is for guests, whose starts it bounds, and for what is open of the database without an end.
func (w workloads) Permit(epoch membership.Epoch, rs membership.Resources, until membership.Boottime) {
	w.guests.Permit(epoch, rs, until)
	if epoch != 0 {
		w.database.permit(until)
	}
}

// Start begins what the resource is.
func (w workloads) Start(r membership.ResourceID, epoch membership.Epoch) {
	if _, slot, has := w.database.of(); has && r == slot {
		w.database.start(epoch)
		return
	}
	w.guests.Start(r, epoch)
}

// Stop ends what is among these.
func (w workloads) Stop(ctx context.Context, rs membership.Resources) error {
	var ended error
	if _, slot, has := w.database.of(); has && rs.Has(slot) {
		ended = w.database.stop(ctx)
	}
	return errors.Join(ended, w.guests.Stop(ctx, rs))
}

// StopAll ends everything, side by side: both have the same second.
func (w workloads) StopAll(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- w.database.stop(ctx) }()
	err := w.guests.StopAll(ctx)
	return errors.Join(err, <-ended)
}

// Idle as seen, not as believed.
func (w workloads) Idle() bool { return w.guests.Idle() && w.database.idle() }

// Wanted by either.
func (w workloads) Wanted() []membership.ResourceID {
	wanted := w.guests.Wanted()
	if _, slot, has := w.database.of(); has && w.database.wanted() {
		wanted = append(wanted, slot)
	}
	return wanted
}
