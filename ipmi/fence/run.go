package fence

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"time"

	"duet/ipmi/pdu"
)

// Request is one order to fence.
type Request struct {
	Run   uint64
	Epoch uint64
	Means Means    // what may be switched
	Until Boottime // end of the turn; zero: the run's own limit
}

// InTurn carries out one order where fencing is the arbiter (R21b): it switches in this node's turns, counted from lost,
// and looks beside them. A run ends with its turn; one that has no turn for long only looks, and the core asks again.
func (r *Runner) InTurn(ctx context.Context, req Request, lost Boottime, first bool) Evidence {
	begun := now()
	for {
		turn := TurnAt(now()-lost, first)
		req.Means, req.Until = turn.Means, lost+turn.End
		evidence := r.Run(ctx, req)
		soon := lost+turn.Next <= begun+turnPatience
		if evidence.Verdict == Confirmed || turn.Means != Looking || !soon || ctx.Err() != nil {
			return evidence
		}
		if evidence.Fault != nil && evidence.Fault.Code == CodeWrongBMC {
			return evidence
		}
		if err := sleep(ctx, min(time.Duration(max(lost+turn.Next-now(), 0)), pathPoll)); err != nil {
			return evidence
		}
	}
}

// turnPatience is how long an order waits for its turn: a look, and the pause after which the core asks again. With a run
// behind it, it is less than the core's patience with an order (15 s).
const turnPatience = 2 * lookDeadline

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
	d.req = req
	d.req.Means = r.means(req)
	end := d.run()
	r.count(req, end)
	evidence.Kind, evidence.Verdict, evidence.Seen, evidence.At, evidence.Raw = end.Kind, end.Verdict, end.Seen, end.At, d.digest()
	evidence.Why, evidence.Fault = end.Why.String(), d.fault(end)
	r.cfg.Log.Info("fencing ended", "node", evidence.Node.String(), "run", req.Run, "epoch", req.Epoch,
		"verdict", evidence.Verdict.String(), "kind", evidence.Kind.String(), "why", evidence.Why)
	return evidence
}

// means is P7: a run that confirmed nothing is followed by others that only look, until its pause is over. Turns have
// pauses of their own.
func (r *Runner) means(req Request) Means {
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.Epoch != r.epoch { // another loss than before: it begins without a pause
		r.epoch, r.failures, r.again = req.Epoch, 0, 0
	}
	if req.Means == Everything && req.Until == 0 && now() < r.again {
		return Looking
	}
	return req.Means
}

func (r *Runner) count(req Request, end Finish) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case end.Verdict == Confirmed:
		r.failures, r.again = 0, 0
	case end.Why == WasCancelled || req.Until != 0 || now() < r.again:
	default:
		r.failures++
		r.again = now() + Backoff(r.failures)
	}
}

// driver carries the planner's effects out: at most one request to the BMC and one to the PDU at a time.
type driver struct {
	r        *Runner
	req      Request
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
	var in Input = Begin{
		Now: d.start, UseBMC: d.r.bmc != nil, UseOutlets: d.outletsUsable(), Means: d.req.Means, Until: d.req.Until,
		RelayOnly: d.r.relayOnly(), Strict: d.r.cfg.Target.Strict,
	}
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
	return d.r.pdu != nil && len(t.Outlets) > 0 && d.r.outletsProven() && d.r.pdu.Product().CanSwitch() == nil && t.wiring() == nil
}

func (r *Runner) relayOnly() bool { return r.pdu != nil && r.pdu.Product().Verify == pdu.VerifyRelay }

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
			answer, load, fault := d.r.readOutlets(d.ctx)
			d.replies <- reply{PDUReplied{now(), sent, answer, load}, fault}
		})
	case OutletsDown:
		d.r.requests.Go(func() {
			answer, fault := d.r.outletsDown(d.ctx)
			d.replies <- reply{PDUReplied{now(), sent, answer, LoadUnknown}, fault}
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
	case SeenOff, WasCancelled, NoReason, NotMyTurn:
		return nil
	case RunsThough:
		return &Fault{
			CodeContradiction, "The BMC of node " + node + " says off and its outlets say that it runs",
			fmt.Sprintf("%.0f W flow, a node that is off draws %.0f W", d.r.powerNow(), d.r.learned().StandbyWatts),
			"Look at the node; compare the addresses and the power cords with the setup",
		}
	case StillDraws:
		return &Fault{
			CodeStaysOn, "The outlets of node " + node + " read off and power flows",
			fmt.Sprintf("%.0f W flow; with its outlets off it were %.0f W", d.r.powerNow(), d.r.learned().OffWatts),
			"Look for a stuck relay or a crossed power cord",
		}
	case RelaysOff:
		return &Fault{
			CodeRelayOnly, "The relays of node " + node + " say off, and that is no evidence",
			"Nothing tells this PDU from another device at its address", "Use a PDU that can be identified, or fence by BMC only",
		}
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

func (r *Runner) powerNow() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.watts
}

func (r *Runner) learned() LearnedLoad {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.load
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
		return &Fault{CodeMapUnproven, fmt.Sprintf("The outlets of node %s are not proven to feed it", t.Node), "No live test has passed since they were entered, or one has shown that they feed something else", "Compare the power cords with the setup, then run the live test: duet fence test " + t.Node.String() + " --power-cycle --reason TEXT; setup runs its own"}
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
	case StillDraws:
		return "the outlets read off and power flows"
	case RunsThough:
		return "the BMC says off and the node draws as a running one"
	case RelaysOff:
		return "the relays say off, and nothing shows that they are this site's"
	case NotMyTurn:
		return "it is on, and it is not this node's turn to switch"
	case NoReason:
		return ""
	default:
		return "invalid"
	}
}
