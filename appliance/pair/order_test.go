package pair

import (
	"context"
	"errors"
	"testing"

	"duet/appliance/membership"
)

// An order that is being carried out is answered as what it is, also when whoever gave it has stopped waiting: a caller that
// undoes what it did for an order which "was not taken" would undo the latch of a node that has left.
func TestAnOrderUnderWayIsNotCalledLost(t *testing.T) {
	r := newRig(t)
	d, stop, _ := r.run(nil)
	until(t, "solo", func() bool { return d.View().State.Mode == membership.Solo })
	ctx, cancel := context.WithCancel(context.Background())
	cfg := d.cfg.Hooks.Reported
	inside, on := make(chan struct{}), make(chan struct{})
	d.post(input{do: func() {
		d.cfg.Hooks.Reported = func(c membership.ReportCode) {
			cfg(c)
			if c == membership.ReportArbiterSet {
				close(inside)
				<-on
			}
		}
	}})
	type result struct {
		why membership.Refusal
		err error
	}
	got := make(chan result, 1)
	go func() {
		why, err := d.Order(ctx, membership.SetArbiter{Kind: membership.ArbFence})
		got <- result{why, err}
	}()
	await(t, "the order under way", inside)
	cancel()
	select {
	case x := <-got:
		t.Errorf("answered in the middle: %v %v", x.why, x.err)
	default:
	}
	close(on)
	if x := await(t, "the answer", got); x.err != nil || x.why != membership.Granted {
		t.Errorf("%v %v", x.why, x.err)
	}
	if _, err := d.Order(ctx, membership.Leave{}); !errors.Is(err, context.Canceled) {
		t.Errorf("an order after the end of its context: %v", err)
	}
	_ = stop()
	if _, err := d.Order(context.Background(), membership.Leave{}); !errors.Is(err, ErrEnded) {
		t.Errorf("an order to a driver that has ended: %v", err)
	}
	r.sane()
}

// While duet-mirrord is awaited nothing is decided, and whoever orders something is told so at once.
func TestAnOrderBeforeTheMirrorAnswersIsRefusedAtOnce(t *testing.T) {
	r := newRig(t)
	d, err := New(r.config(r.path("nobody.sock")))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Run(ctx, r.site()) }()
	defer func() { cancel(); <-done }()
	answer := make(chan error, 1)
	go func() {
		_, err := d.Order(context.Background(), membership.Leave{})
		answer <- err
	}()
	if err := await(t, "the answer", answer); !errors.Is(err, errNotYet) {
		t.Errorf("%v", err)
	}
}
