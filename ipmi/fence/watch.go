package fence

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Watch proves the paths of a Runner in a fixed rhythm, without switching anything. It makes way for a Run and says
// nothing while the node is fenced, powered on or tested: what is seen then is of that.
type Watch struct {
	r      *Runner
	rhythm Rhythm
	here   func() bool // the peer is heard: its BMC must say "on"
	change func()      // called after a check that changed how a path stands; may be nil

	mu    sync.Mutex
	state Proofs
	soon  chan struct{} // holds a token: something was learned, everything is due
}

// checkLimit is how long one round of checks may take: a BMC's call and a PDU's each end earlier.
const checkLimit = 5 * time.Second

// NewWatch begins with nothing proven.
func NewWatch(r *Runner, rhythm Rhythm, here func() bool, change func()) *Watch {
	if change == nil {
		change = func() {}
	}
	return &Watch{r: r, rhythm: rhythm, here: here, change: change, soon: make(chan struct{}, 1), state: StartProofs(now(), r.bmc != nil, r.hasOutlets())}
}

func (r *Runner) hasOutlets() bool { return r.pdu != nil && len(r.cfg.Target.Outlets) > 0 }

// Run checks until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	for {
		wait, soon := time.Duration(max(w.due()-now(), 0)), w.soon
		if w.r.occupied() { // its seconds are not worth a check that would have to be thrown away: what is wanted soon waits
			wait, soon = pathPoll, nil
		}
		all := false
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-soon:
			all = true
		}
		timer.Stop()
		switch {
		case !w.r.occupied():
			w.check(ctx, all)
		case all:
			w.Soon()
		}
	}
}

// Soon makes everything due: what a path is judged by has changed.
func (w *Watch) Soon() {
	select {
	case w.soon <- struct{}{}:
	default:
	}
}

// Check proves every path now and says how they stand. It ends within checkLimit.
func (w *Watch) Check(ctx context.Context) []Proof {
	w.check(ctx, true)
	return w.Proofs()
}

// Proofs is how the paths stand now.
func (w *Watch) Proofs() []Proof {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.At(now(), w.rhythm, w.r.stale)
}

// Fresh says whether at least one path would be expected to bring evidence now.
func (w *Watch) Fresh() bool {
	for _, p := range w.Proofs() {
		if p.Fresh(now(), w.rhythm) {
			return true
		}
	}
	return false
}

func (w *Watch) due() Boottime {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.Due()
}

// check carries out what is due, or everything. BMC and PDU are asked side by side.
func (w *Watch) check(ctx context.Context, all bool) {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	generation := w.r.generationNow() // first: an order that comes behind it is seen by it
	ctx, done, free := w.r.giveWay(ctx)
	defer done()
	if !free {
		return
	}
	w.mu.Lock()
	before, at := w.state, now()
	w.mu.Unlock()
	// What was interrupted by a run, or seen beside it, says nothing about the path.
	take := func(update func(Proofs) Proofs) {
		if w.r.occupied() || w.r.generationNow() != generation {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.state = update(w.state)
	}
	var both sync.WaitGroup
	if before.hasBMC {
		both.Go(func() {
			if all || at >= before.SignInAt {
				w.signIn(ctx, take)
			} else if at >= before.PingAt {
				w.ping(ctx, take)
			}
		})
	}
	if before.hasOutlets && (all || at >= before.OutletsAt) {
		both.Go(func() { w.outlets(ctx, take) })
	}
	both.Wait()
	w.mu.Lock()
	changed := differs(before.BMC, w.state.BMC) || differs(before.Outlets, w.state.Outlets)
	w.mu.Unlock()
	if changed {
		w.change()
	}
}

// differs says whether people would be told something else.
func differs(a, b Proof) bool {
	code := func(f *Fault) string {
		if f == nil {
			return ""
		}
		return f.Code
	}
	return code(a.Fault) != code(b.Fault) || code(a.Notice) != code(b.Notice) || a.State != b.State || (a.ProvenAt == 0) != (b.ProvenAt == 0)
}

type taking func(func(Proofs) Proofs)

func (w *Watch) ping(ctx context.Context, take taking) {
	var fault *Fault
	if err := w.r.bmc.Ping(ctx); err != nil {
		fault = w.r.bmcFault(err)
	}
	take(func(p Proofs) Proofs {
		if fault != nil {
			w.r.noteBMC(BMCSilent, fault)
		}
		return p.Pinged(now(), fault, w.rhythm, rand.Uint32())
	})
}

func (w *Watch) signIn(ctx context.Context, take taking) {
	here := w.here()
	answer, fault := w.r.inspectBMC(ctx)
	here = here && w.here() // it may have gone meanwhile
	take(func(p Proofs) Proofs {
		w.r.noteBMC(answer, fault)
		return p.SignedIn(now(), answer, here, fault, w.r.saysOff, w.rhythm, rand.Uint32())
	})
}

func (w *Watch) outlets(ctx context.Context, take taking) {
	here := w.here()
	answer, load, fault := w.r.readOutlets(ctx)
	here = here && w.here()
	take(func(p Proofs) Proofs {
		return p.OutletsSeen(now(), answer, load, here, fault, w.r.standingFault(), w.r.outletsWord, w.rhythm, rand.Uint32())
	})
}

// inspectBMC is askBMC and the firmware.
func (r *Runner) inspectBMC(ctx context.Context) (BMCAnswer, *Fault) {
	report, err := r.bmc.Inspect(ctx)
	if err != nil {
		return r.bmcAnswer(err), r.bmcFault(err)
	}
	answer, fault := r.weigh(report.GUID, report.State)
	r.mu.Lock()
	recorded := r.firmware
	if recorded == "" {
		r.firmware = report.Firmware // as first seen: a live test records it for good
	}
	r.mu.Unlock()
	if fault == nil && recorded != "" && recorded != report.Firmware {
		fault = &Fault{
			CodeFirmware, fmt.Sprintf("The BMC of node %s runs other firmware than before", r.cfg.Target.Node),
			fmt.Sprintf("it was %s and is %s; what was proven is not proven of it", recorded, report.Firmware),
			"Run the live test of the node again: duet fence test " + r.cfg.Target.Node.String() + " --power-cycle --reason TEXT",
		}
	}
	return answer, fault
}

// standingFault is what no reading of the outlets mends.
func (r *Runner) standingFault() *Fault {
	t := r.cfg.Target
	if err := r.pdu.Product().CanSwitch(); err != nil {
		return noMap(t.PDU.Product, err)
	}
	if err := t.wiring(); err != nil {
		fault, _ := asFault(err)
		return fault
	}
	if r.relayOnly() {
		return &Fault{
			CodeRelayOnly, fmt.Sprintf("What the PDU says of node %s is no evidence", t.Node),
			"Nothing tells this PDU from another device at its address", "Use a PDU that can be identified, or fence by BMC only",
		}
	}
	if !r.outletsProven() {
		return r.noMeans()
	}
	return nil
}

func (r *Runner) outletsWord(code string) *Fault {
	node := r.cfg.Target.Node.String()
	if code == CodeOutletOff {
		return &Fault{CodeOutletOff, "An outlet of node " + node + " is off", "The node runs on the rest of its power supplies", "Look why it is off, and switch it on"}
	}
	return &Fault{
		CodeCrossed, "Node " + node + " runs, and not by its outlets", "They are off, or no power flows through them",
		"Compare the power cords with the setup, then run the live test again",
	}
}

func (r *Runner) saysOff() *Fault {
	return &Fault{
		CodeSaysOff, fmt.Sprintf("The BMC of node %s says off, and the node is heard", r.cfg.Target.Node),
		"It lies, or it is the BMC of something else", "Check the address; look at the BMC's own page",
	}
}

func (r *Runner) stale(kind PathKind) *Fault {
	return &Fault{
		CodeStale, fmt.Sprintf("The path %s to node %s was not proven lately", kind, r.cfg.Target.Node),
		"The last proof is older than 15 minutes", "Test it: duet fence test " + r.cfg.Target.Node.String(),
	}
}
