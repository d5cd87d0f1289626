package fence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"duet/ipmi/bmc"
)

// TestStep is one step of a live test.
type TestStep struct {
	Name string
	Took time.Duration
}

// TestResult says what a live test proved.
type TestResult struct {
	BMCProven     bool   // off and on by the BMC, read back
	OutletsProven bool   // with the outlets off the BMC fell silent, with them on it answered again
	OutletsWrong  bool   // with the outlets off the BMC went on: whatever was proven before, they do not feed this node
	GUID          string // system GUID that the BMC said: record it. Empty: the board has none
	Firmware      string // of the BMC: record it
	PDU           string // identity of the PDU: record it. Empty: none, or the product cannot say
	Load          LearnedLoad
	Steps         []TestStep
}

// NewBMC is a person's word that the BMC of the node was exchanged: it may say another GUID than was recorded, this node's
// own excepted. It has to be shown that switching it switches the node.
type NewBMC struct {
	Gone func() bool // the node is not heard any more
}

const silentTwice = 2 // unanswered questions in a row make silence: one datagram may be lost

// LiveTest switches the node off and on again by every path it has (hardware.md section 5). The caller has made sure
// that nothing runs there. progress, if not nil, hears the name of each step as it begins. Whatever fails, the node is
// given its power back as far as that is possible. An error is a *Fault that names the step, or that of ctx; the result
// says what was proven, or disproved, before it. Outlets that were disproved count for nothing from that moment on.
// exchanged is nil, unless a person says that the BMC is another one now; its GUID counts when the test has passed.
func (r *Runner) LiveTest(ctx context.Context, exchanged *NewBMC, progress func(step string)) (TestResult, error) {
	if !r.enter(ctx) {
		return TestResult{}, ctx.Err()
	}
	defer r.leave()
	t := &liveTest{r: r, exchanged: exchanged, progress: progress}
	recorded := r.recordedGUID()
	undo := func() {}
	if r.pdu != nil { // it may have been exchanged: this test is what proves the new one
		undo = r.pdu.Relearn()
	}
	err := t.run(ctx)
	if err == nil {
		return t.result, nil
	}
	defer func() { // behind giving the power back, by whatever is there
		undo()
		r.setGUID(recorded)
	}()
	if t.touched {
		t.tell("give the power back")
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.pace.powerOn)
		defer cancel()
		if backErr := r.powerOn(clean); backErr != nil {
			err = fmt.Errorf("%w (and the node could not be switched on again: %w)", err, backErr)
		}
	}
	return t.result, err
}

type liveTest struct {
	r         *Runner
	exchanged *NewBMC
	progress  func(string)
	result    TestResult
	guid      bmc.GUID
	touched   bool // something was switched
	flows     bool // every outlet is metered, and power flowed while the node ran
}

func (t *liveTest) tell(step string) {
	if t.progress != nil {
		t.progress(step)
	}
}

// step runs one step and keeps its time.
func (t *liveTest) step(name string, do func() error) error {
	t.tell(name)
	start := time.Now()
	err := do()
	t.result.Steps = append(t.result.Steps, TestStep{name, time.Since(start)})
	t.r.cfg.Log.Info("live test", "node", t.r.cfg.Target.Node.String(), "step", name, "took", time.Since(start), "error", err)
	if err == nil {
		return nil
	}
	if fault, ok := asFault(err); ok {
		return fmt.Errorf("live test, step %q: %w", name, fault)
	}
	return &Fault{CodeLiveTest, fmt.Sprintf("The live test of node %s failed at step %q", t.r.cfg.Target.Node, name), err.Error(), "Mend it and give the answers of the setup again"}
}

type testStep struct {
	name string
	do   func(context.Context) error
}

func (t *liveTest) run(ctx context.Context) error {
	useBMC, useOutlets := t.r.bmc != nil, t.r.pdu != nil && len(t.r.cfg.Target.Outlets) > 0
	if !useBMC && !useOutlets {
		return t.r.noMeans()
	}
	if !useBMC {
		return &Fault{
			CodeLiveTest, fmt.Sprintf("The outlets of node %s cannot be proven", t.r.cfg.Target.Node),
			"Without a BMC nothing shows whether the node lost its power", "Set up its BMC",
		}
	}
	steps := []testStep{{"BMC says who it is, and on", t.known}}
	if useOutlets {
		steps = append(steps, testStep{"outlets read on", t.outlets(OutletsOn)})
	}
	steps = append(steps, testStep{"BMC: power down", t.bmcDown}, testStep{"BMC says off, twice", t.twiceOff})
	if t.exchanged != nil {
		steps = append(steps, testStep{"the node is gone with it", t.gone})
	}
	if useOutlets {
		steps = append(steps,
			testStep{"meters: standby", t.meter(&t.result.Load.StandbyWatts)},
			testStep{"outlets: off", t.outletsDown},
			testStep{"outlets read off", t.outlets(OutletsOut)},
			testStep{"BMC falls silent", t.silent},
			testStep{"meters: off", t.meter(&t.result.Load.OffWatts)},
			testStep{"outlets: on", t.outletsUp},
			testStep{"BMC answers again", t.answers},
		)
	}
	steps = append(steps, testStep{"BMC: power up, says on", t.bmcUp})
	for _, s := range steps {
		if err := t.step(s.name, func() error { return s.do(ctx) }); err != nil {
			return err
		}
	}
	t.result.BMCProven, t.result.OutletsProven = true, useOutlets
	t.learn(useOutlets)
	t.r.prove(t.guid, useOutlets, t.result.Load)
	return nil
}

// learn completes the result with what is to be recorded of the devices.
func (t *liveTest) learn(useOutlets bool) {
	l := &t.result.Load
	l.Known = t.metered() && l.StandbyWatts-l.OffWatts >= learnStepMin
	if !l.Known {
		*l = LearnedLoad{}
	}
	if useOutlets {
		t.result.PDU = t.r.pdu.Seen().String()
	}
}

// metered says whether the map has meters, and they showed that power flowed while the node ran.
func (t *liveTest) metered() bool {
	if t.r.pdu == nil {
		return false
	}
	_, can := t.r.pdu.Product().OutletMeter()
	return can && t.flows
}

// meter waits until averages have followed and keeps the power. A meter that says nothing fails no test: the outlets
// are then proven by state, and by the silence of the BMC.
func (t *liveTest) meter(watts *float64) func(context.Context) error {
	return func(ctx context.Context) error {
		if !t.metered() {
			return nil
		}
		if err := sleep(ctx, t.r.pace.meter); err != nil {
			return err
		}
		if _, _, fault := t.r.readOutlets(ctx); fault != nil {
			return fault
		}
		t.r.mu.Lock()
		defer t.r.mu.Unlock()
		*watts = t.r.watts
		return nil
	}
}

func (t *liveTest) known(ctx context.Context) error {
	answer, guid, fault := t.r.askBMC(ctx)
	if t.exchanged != nil && answer == BMCStranger && t.mayBeNew(guid) {
		t.r.setGUID(guid.String()) // for this test; it stays if the test passes
		answer, guid, fault = t.r.askBMC(ctx)
	}
	if fault != nil {
		return fault
	}
	if answer != BMCSaysOn {
		return errors.New("the node is off; it has to run for the test to show anything")
	}
	report, err := t.r.bmc.Inspect(ctx)
	if err != nil {
		return t.r.bmcFault(err)
	}
	t.guid, t.result.Firmware = guid, report.Firmware
	if namesSystem(guid) {
		t.result.GUID = guid.String()
	}
	return nil
}

// mayBeNew: without a GUID of its own this node could not tell its own BMC from a new one of the other node.
func (t *liveTest) mayBeNew(guid bmc.GUID) bool {
	own := t.r.cfg.OwnGUID
	return own != "" && guid.String() != own && namesSystem(guid)
}

// gone waits until the node is not heard: the BMC that was switched is its own.
func (t *liveTest) gone(ctx context.Context) error {
	if err := t.until(ctx, t.r.pace.state, func(context.Context) bool { return t.exchanged.Gone() }); err != nil {
		return &Fault{
			CodeWrongBMC, fmt.Sprintf("The BMC at %s is not that of node %s", t.r.cfg.Target.BMC.Address, t.r.cfg.Target.Node),
			"It was switched off and the node goes on", "Give each BMC its own address again",
		}
	}
	return nil
}

// outlets waits until all outlets of the node read as wanted.
func (t *liveTest) outlets(want PDUAnswer) func(context.Context) error {
	return func(ctx context.Context) error {
		var fault *Fault
		err := t.until(ctx, t.r.pace.state, func(ctx context.Context) bool {
			var answer PDUAnswer
			answer, _, fault = t.r.readOutlets(ctx)
			t.r.mu.Lock()
			defer t.r.mu.Unlock()
			t.flows = t.flows || want == OutletsOn && !t.touched && t.r.metered && t.r.watts > 0
			return answer == want
		})
		if err != nil && fault != nil {
			return fault
		}
		return err
	}
}

func (t *liveTest) bmcDown(ctx context.Context) error {
	t.touched = true
	if err := t.r.bmc.PowerDown(ctx); err != nil {
		return t.r.bmcFault(err)
	}
	return nil
}

// twiceOff waits for two successive "off", as a run does.
func (t *liveTest) twiceOff(ctx context.Context) error {
	var first Boottime
	return t.until(ctx, t.r.pace.state, func(ctx context.Context) bool {
		sent := now()
		answer, _, _ := t.r.askBMC(ctx) //nolint:errcheck // the answer says it
		switch {
		case answer != BMCSaysOff:
			first = 0
		case first == 0:
			first = now()
		default:
			return sent >= first+bmcApart
		}
		return false
	})
}

func (t *liveTest) outletsDown(ctx context.Context) error {
	if answer, fault := t.r.outletsDown(ctx); answer != PDUDone {
		return fault
	}
	return nil
}

// silent waits until the BMC answers nothing at all: it has no power, so the outlets are the node's.
func (t *liveTest) silent(whole context.Context) error {
	unanswered := 0
	err := t.until(whole, t.r.pace.silent, func(ctx context.Context) bool {
		probe, cancel := context.WithTimeout(ctx, t.r.pace.silentProbe)
		defer cancel()
		_, err := t.r.bmc.Power(probe)
		if e, ok := bmc.AsError(err); ok && e.Class == bmc.NoAnswer {
			unanswered++
		} else {
			unanswered = 0
		}
		return unanswered >= silentTwice
	})
	if whole.Err() != nil { // it was ended: nothing is shown
		return whole.Err()
	}
	if err != nil {
		t.result.OutletsWrong = true
		t.r.disprove()
		return &Fault{
			CodeCrossed, fmt.Sprintf("The BMC of node %s goes on with its outlets off", t.r.cfg.Target.Node),
			"The outlets do not feed this node, or not all of it", "Compare the power cords with the setup",
		}
	}
	return nil
}

func (t *liveTest) outletsUp(ctx context.Context) error {
	_, err := t.r.outletsOn(ctx)
	return err
}

func (t *liveTest) answers(ctx context.Context) error {
	var fault *Fault
	err := t.until(ctx, t.r.pace.bmcBoot, func(ctx context.Context) bool {
		var answer BMCAnswer
		var guid bmc.GUID
		answer, guid, fault = t.r.askBMC(ctx)
		return (answer == BMCSaysOn || answer == BMCSaysOff) && guid == t.guid
	})
	if err != nil && fault != nil {
		return fault
	}
	return err
}

func (t *liveTest) bmcUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.r.pace.state)
	defer cancel()
	return t.r.bmcOn(ctx, t.r.pdu != nil && len(t.r.cfg.Target.Outlets) > 0)
}

// until asks every pathPoll, up to limit.
func (t *liveTest) until(ctx context.Context, limit time.Duration, is func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !is(ctx) {
		if err := sleep(ctx, pathPoll); err != nil {
			return fmt.Errorf("not within %s: %w", limit, err)
		}
	}
	return nil
}
