package pair

import (
	"context"
	"fmt"
	"time"

	"duet/appliance/membership"
)

// Order gives the core an order of a person or a manager: Leave, Move, SetArbiter, PeerOff, ForceSolo, ChangeDoc. The
// answer is the core's own: Granted means that it has begun, durably where the rule says so; how it ends is seen in View.
//
// An error is not a refusal. ErrEnded means that nobody knows: the driver ended, perhaps while it carried the order out. Any
// other one means that the core was never asked: ctx ended before, or this node still waits for duet-mirrord. What the core
// is asked is answered, however slow the disk is, so ctx bounds the wait for the turn and not the turn: an order that is
// being carried out is never reported as one that was not.
func (d *Driver) Order(ctx context.Context, e membership.Event) (membership.Refusal, error) {
	answer := make(chan membership.Refusal, 1)
	failed := make(chan error, 1)
	order := input{deny: func(err error) { failed <- err }, try: func() error {
		if ctx.Err() != nil {
			failed <- ctx.Err()
			return nil
		}
		why := d.state.Allows(e)
		d.log.Info("order", "what", fmt.Sprintf("%T", e), "answer", why.String())
		d.trail.note("order", fmt.Sprintf("%T: %v", e, why))
		if why != membership.Granted {
			answer <- why
			return nil
		}
		err := d.step(e)
		if _, leaves := e.(membership.Leave); leaves {
			d.link.Pause(foreverPause) // before anything else is heard: a node that has left must not come back by itself
		}
		if err == nil {
			answer <- why
		}
		return err
	}}
	select {
	case d.inputs <- order:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-d.done:
		return 0, ErrEnded
	}
	select {
	case why := <-answer:
		return why, nil
	case err := <-failed:
		return 0, err
	case <-d.done:
	}
	select { // it may have answered with its last breath
	case why := <-answer:
		return why, nil
	case err := <-failed:
		return 0, err
	default:
		return 0, ErrEnded
	}
}

// foreverPause is longer than a node is up.
const foreverPause = 100 * 365 * 24 * time.Hour

// Return lets sessions begin again after a Leave. The next start of this process does so too.
func (d *Driver) Return() { d.post(input{do: func() { d.link.Pause(0) }}) }
