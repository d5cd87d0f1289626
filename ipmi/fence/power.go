package fence

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The times of switching on, and their reasons.
const (
	powerOnLimit  = 4 * time.Minute        // a BMC that had no AC boots for up to two minutes
	stateLimit    = 15 * time.Second       // for a node to be said on or off after the command
	pathPoll      = 250 * time.Millisecond // between readings while waiting
	autoOnWait    = 3 * time.Second        // after AC a board may switch on by its own power restore policy: not twice
	outletOnLimit = 30 * time.Second       // for outlets to read on, a settling one included
)

// PowerOn gives the node its power back (R10b): outlets on if this runner switched them off or if they read off, then
// BMC power up if the node stays off. It returns when the BMC says "on", or without a BMC when the outlets read on.
// Its error is a *Fault, or that of ctx. A Run ends it.
func (r *Runner) PowerOn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, powerOnLimit)
	defer cancel()
	ctx, done, free := r.giveWay(ctx)
	defer done()
	if !free || !r.enter(ctx) {
		return fmt.Errorf("node %s is being fenced: %w", r.cfg.Target.Node, context.Canceled)
	}
	defer r.leave()
	return r.powerOn(ctx)
}

func (r *Runner) powerOn(ctx context.Context) error {
	if r.bmc == nil && (r.pdu == nil || len(r.cfg.Target.Outlets) == 0) {
		return r.noMeans()
	}
	var outletsErr error
	hadNoAC := false
	if r.pdu != nil && len(r.cfg.Target.Outlets) > 0 {
		hadNoAC, outletsErr = r.outletsOn(ctx)
	}
	if r.bmc == nil {
		return outletsErr
	}
	// A PDU that says nothing need not be why the node is off: the BMC may still be alive.
	err := r.bmcOn(ctx, hadNoAC)
	if err != nil && outletsErr != nil {
		return outletsErr
	}
	return err
}

// outletsOn switches the outlets on unless they read on already, and says whether they were off.
func (r *Runner) outletsOn(ctx context.Context) (wereOff bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, outletOnLimit)
	defer cancel()
	var fault *Fault
	for {
		var answer PDUAnswer
		answer, fault = r.readOutlets(ctx)
		if answer == OutletsOn && r.allSettledOn(ctx) {
			r.mu.Lock()
			r.switchedOff = false
			r.mu.Unlock()
			return wereOff, nil
		}
		if answer == OutletsOut || answer == OutletsMix || (answer == OutletsOn && r.hasSwitchedOff()) {
			wereOff = true
			if err := r.pdu.Switch(ctx, r.cfg.Target.Outlets, true); err != nil {
				fault = r.pduFault(err) // also while an unanswered off blocks it: the readings of this loop settle it
			}
		}
		if sleep(ctx, pathPoll) != nil {
			return wereOff, firstFault(fault, &Fault{
				CodeNotPoweredOn, fmt.Sprintf("the outlets of node %s do not read on", r.cfg.Target.Node), "they were commanded on", "switch them on by hand",
			})
		}
	}
}

// allSettledOn says that no earlier "off" may still come.
func (r *Runner) allSettledOn(context.Context) bool {
	_, blocked := r.pdu.Settling(r.cfg.Target.Outlets)
	return !blocked
}

func (r *Runner) hasSwitchedOff() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.switchedOff
}

// bmcOn waits for the BMC, and commands power up unless the node switches itself on.
func (r *Runner) bmcOn(ctx context.Context, hadNoAC bool) error {
	var firstAnswer, commanded Boottime
	var fault *Fault
	for {
		answer, _, newest := r.askBMC(ctx)
		if newest != nil {
			fault = newest
		}
		at := now()
		switch answer {
		case BMCSaysOn:
			return nil
		case BMCSaysOff:
			if firstAnswer == 0 {
				firstAnswer = at
			}
			restoring := hadNoAC && at < firstAnswer+Boottime(autoOnWait)
			if !restoring && (commanded == 0 || at >= commanded+Second) {
				commanded = at
				if err := r.bmc.PowerUp(ctx); err != nil {
					fault = r.bmcFault(err)
				}
			}
		case BMCStranger, BMCNoLogin: // waiting does not mend it
			return fault
		case BMCSilent, BMCDone, BMCRejected:
		}
		if err := sleep(ctx, pathPoll); err != nil {
			if errors.Is(err, context.Canceled) {
				return err
			}
			return firstFault(fault, &Fault{
				CodeNotPoweredOn, fmt.Sprintf("node %s does not switch on", r.cfg.Target.Node), "its BMC took the command and says off", "press its power button; look at the BMC's log",
			})
		}
	}
}
