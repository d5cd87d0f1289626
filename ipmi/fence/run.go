package fence

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"time"
)

// Request is one order to fence.
type Request struct {
	Run   uint64
	Epoch uint64
}

// Run makes the node be off and returns what is known about it. It ends by itself within 10 s; when ctx ends earlier
// nothing more is sent, the evidence is unknown, and what was sent may still hit.
func (r *Runner) Run(ctx context.Context, req Request) Evidence {
	evidence := Evidence{Node: r.cfg.Target.Node, Epoch: req.Epoch, Run: req.Run}
	r.mu.Lock()
	r.running++
	for _, cancel := range r.yielding {
		cancel()
	}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.running--
	}()
	if !r.enter(ctx) {
		evidence.Why = WasCancelled.String()
		return evidence
	}
	defer r.leave()

	d := newDriver(ctx, r)
	end := d.run()
	evidence.Kind, evidence.Verdict, evidence.At, evidence.Raw = end.Kind, end.Verdict, end.At, d.digest()
	evidence.Why, evidence.Fault = end.Why.String(), d.fault(end)
	r.cfg.Log.Info("fencing ended", "node", evidence.Node.String(), "run", req.Run, "epoch", req.Epoch,
		"verdict", evidence.Verdict.String(), "kind", evidence.Kind.String(), "why", evidence.Why)
	return evidence
}

// driver carries the planner's effects out: at most one request to the BMC and one to the PDU at a time.
type driver struct {
	r        *Runner
	caller   context.Context
	ctx      context.Context // of the requests: ends with the run
	cancel   context.CancelFunc
	replies  chan reply
	record   hash.Hash
	start    Boottime
	wake     *time.Timer
	bmcFault *Fault // the newest
	pduFault *Fault
}

// reply is what a request came to.
type reply struct {
	in    Input
	fault *Fault
}

func newDriver(ctx context.Context, r *Runner) *driver {
	d := &driver{r: r, caller: ctx, replies: make(chan reply, 2), record: sha256.New(), start: now()}
	d.ctx, d.cancel = context.WithCancel(ctx)
	return d
}

func (d *driver) run() Finish {
	defer d.cancel()
	d.wake = time.NewTimer(time.Hour)
	defer d.wake.Stop()
	var state State
	var in Input = Begin{Now: d.start, UseBMC: d.r.bmc != nil, UseOutlets: d.outletsUsable()}
	for {
		fmt.Fprintf(d.record, "%T %+v\n", in, in)
		var effects []Effect
		state, effects = Step(state, in)
		for _, effect := range effects {
			fmt.Fprintf(d.record, "  %T %+v\n", effect, effect)
			if end, over := effect.(Finish); over {
				return end
			}
			d.do(effect)
		}
		select {
		case r := <-d.replies:
			in = d.take(r)
		case <-d.wake.C:
			in = Woke{Now: now()}
		case <-d.caller.Done():
			in = Cancelled{}
		}
		if d.caller.Err() != nil { // P6 goes before a reply that came at the same moment
			in = Cancelled{}
		}
	}
}

func (d *driver) outletsUsable() bool {
	t := d.r.cfg.Target
	return d.r.pdu != nil && len(t.Outlets) > 0 && d.r.outletsProven()
}

// do starts an effect. Its reply comes as an input; after the run nobody takes it, and the channel has room.
func (d *driver) do(effect Effect) {
	sent := now()
	d.r.cfg.Log.Debug("fencing", "node", d.r.cfg.Target.Node.String(), "does", fmt.Sprintf("%T", effect), "after", time.Duration(sent-d.start))
	switch effect := effect.(type) {
	case AskBMC:
		d.r.requests.Go(func() {
			answer, _, fault := d.r.askBMC(d.ctx)
			d.replies <- reply{BMCReplied{now(), sent, answer}, fault}
		})
	case DownBMC:
		d.r.requests.Go(func() {
			answer, fault := BMCDone, (*Fault)(nil)
			if err := d.r.bmc.PowerDown(d.ctx); err != nil {
				answer, fault = BMCSilent, d.r.bmcFault(err)
				if fault.Code == CodeBMCCannot {
					answer = BMCRejected
				}
			}
			d.replies <- reply{BMCReplied{now(), sent, answer}, fault}
		})
	case ReadOutlets:
		d.r.requests.Go(func() {
			answer, fault := d.r.readOutlets(d.ctx)
			d.replies <- reply{PDUReplied{now(), sent, answer}, fault}
		})
	case OutletsDown:
		d.r.requests.Go(func() {
			answer, fault := d.r.outletsDown(d.ctx)
			d.replies <- reply{PDUReplied{now(), sent, answer}, fault}
		})
	case Wake:
		d.wake.Reset(time.Duration(max(effect.At-now(), 0)))
	case Finish: // ends the loop
	}
}

// take notes what a person may have to mend.
func (d *driver) take(r reply) Input {
	if _, ofBMC := r.in.(BMCReplied); ofBMC {
		d.bmcFault = r.fault
	} else {
		d.pduFault = r.fault
	}
	return r.in
}

// digest names the exchange: every input and effect of the run, in order.
func (d *driver) digest() (sum [32]byte) {
	copy(sum[:], d.record.Sum(nil))
	return sum
}

// fault is what a person should mend, if anything.
func (d *driver) fault(end Finish) *Fault {
	node := d.r.cfg.Target.Node.String()
	switch end.Why {
	case SeenOff, WasCancelled, NoReason:
		return nil
	case Contradiction:
		return &Fault{
			CodeCrossed, "The outlets of node " + node + " read off and its BMC still answers",
			"They do not feed this node, or not all of it", "Check the power cords, then run the live test again",
		}
	case OutletsStayOn:
		return firstFault(d.pduFault, &Fault{CodeStaysOn, "An outlet of node " + node + " stays on", "It was commanded off and reads on", "Switch it by hand; look for a stuck relay"})
	case BMCStaysOn:
		return firstFault(d.bmcFault, &Fault{CodeStaysOn, "Node " + node + " stays on", "Its BMC took the command and says on", "Switch the node off by hand if it has to be off"})
	case NoMeans:
		return d.r.noMeans()
	case WrongBMC:
		return d.bmcFault
	case NobodyAnswers:
		return firstFault(d.bmcFault, d.pduFault, &Fault{CodeNobodyAnswers, "No way to node " + node + " said anything that can be believed", "Neither BMC nor PDU answered in time", "Check both networks"})
	default:
		return nil
	}
}

func firstFault(faults ...*Fault) *Fault {
	for _, f := range faults {
		if f != nil {
			return f
		}
	}
	return nil
}

func (r *Runner) noMeans() *Fault {
	t := r.cfg.Target
	if t.PDU != nil && len(t.Outlets) > 0 {
		return &Fault{CodeMapUnproven, fmt.Sprintf("The outlets of node %s are not proven to feed it", t.Node), "No live test has passed since they were entered", "Let setup finish its live tests"}
	}
	return &Fault{CodeNoMeans, fmt.Sprintf("There is no way to switch node %s off", t.Node), "Neither BMC nor outlets are set up", "Enter a BMC or outlets for it"}
}

// String is the reason in words.
func (r Reason) String() string {
	switch r {
	case SeenOff:
		return "read off in successive requests"
	case BMCStaysOn:
		return "the BMC says on"
	case OutletsStayOn:
		return "an outlet reads on"
	case NobodyAnswers:
		return "no answer that can be believed"
	case WrongBMC:
		return "another system answers at the address of the BMC"
	case Contradiction:
		return "the outlets read off and the BMC still answers"
	case WasCancelled:
		return "cancelled; what was sent may still hit"
	case NoMeans:
		return "no path may be used"
	case NoReason:
		return ""
	default:
		return "invalid"
	}
}
