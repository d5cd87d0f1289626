package fence

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// pace is how long switching on and testing wait for hardware. Tests shorten it; the planner's times are constants.
type pace struct {
	powerOn     time.Duration // all of it
	state       time.Duration // for a node or its outlets to read as commanded
	outletsOn   time.Duration // for outlets to read on, a settling one included
	autoOn      time.Duration // after AC, a board may switch on by its own restore policy: not twice
	silent      time.Duration // for a BMC without AC to fall silent
	silentProbe time.Duration // one question to it
	meter       time.Duration // for a meter that shows averages to follow
	bmcBoot     time.Duration // for a BMC to answer after its AC returned
}

func hardwarePace() pace {
	return pace{
		powerOn: 4 * time.Minute, state: 15 * time.Second, outletsOn: 30 * time.Second, autoOn: 3 * time.Second,
		silent: 20 * time.Second, silentProbe: time.Second, meter: time.Duration(meterLag), bmcBoot: 3 * time.Minute,
	}
}

const pathPoll = 250 * time.Millisecond // between readings while waiting

// PowerOn gives the node its power back (R10b): outlets on if this runner switched them off or if they read off, then
// BMC power up if the node stays off. It returns when the BMC says "on", or without a BMC when the outlets read on.
// Its error is a *Fault, or that of ctx. A Run ends it.
func (r *Runner) PowerOn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.pace.powerOn)
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
	if err != nil && outletsErr != nil && !errors.Is(err, context.Canceled) {
		return outletsErr
	}
	return err
}

// GiveBack switches outlets on that a run left off, once the node is known to run and to have stopped what it must stop:
// partial success stays off until then (P4). It does nothing if no run switched any:
// what a process before this one switched may have been a person's doing as well.
func (r *Runner) GiveBack(ctx context.Context) error {
	if r.pdu == nil || !r.hasSwitchedOff() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.pace.powerOn)
	defer cancel()
	ctx, done, free := r.giveWay(ctx)
	defer done()
	if !free || !r.enter(ctx) {
		return fmt.Errorf("node %s is being fenced: %w", r.cfg.Target.Node, context.Canceled)
	}
	defer r.leave()
	_, err := r.outletsOn(ctx)
	return err
}

// outletsOn switches the outlets on unless they read on already, and says whether they were off.
func (r *Runner) outletsOn(ctx context.Context) (wereOff bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.pace.outletsOn)
	defer cancel()
	var fault *Fault
	for {
		var answer PDUAnswer
		answer, _, fault = r.readOutlets(ctx)
		if answer == OutletsOn && r.allSettledOn() {
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
		if err := sleep(ctx, pathPoll); err != nil {
			if errors.Is(err, context.Canceled) {
				return wereOff, err
			}
			return wereOff, firstFault(fault, &Fault{
				CodeNotPoweredOn, fmt.Sprintf("The outlets of node %s do not read on", r.cfg.Target.Node), "They were commanded on", "Switch them on by hand",
			})
		}
	}
}

// allSettledOn says that no earlier "off" may still come.
func (r *Runner) allSettledOn() bool {
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
			restoring := hadNoAC && at < firstAnswer+Boottime(r.pace.autoOn)
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
				CodeNotPoweredOn, fmt.Sprintf("Node %s does not switch on", r.cfg.Target.Node), "Its BMC took the command and says off", "Press its power button; look at the BMC's log",
			})
		}
	}
}
