package fence

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"duet/ipmi/bmc"
	"duet/ipmi/pdu"
)

// Runner fences one node. Run, PowerOn and LiveTest never overlap: a Run ends a PowerOn and a Status that are under
// way, and waits for a live test.
type Runner struct {
	cfg  Config
	pace pace
	bmc  *bmc.Client // nil: none
	pdu  *pdu.Client // nil: none

	requests sync.WaitGroup // of runs; one that was cut off may outlive its run for a moment
	order    chan struct{}  // holds one token: the Run, PowerOn or LiveTest under way

	mu          sync.Mutex
	yielding    map[int]context.CancelFunc // what a Run ends
	nextYield   int
	running     int // Runs that wait or are under way
	generation  int // orders that began
	bmcPath     Path
	outletsPath Path
	disproved   bool   // a live test of this runner took the proof of the map away, and nobody has recorded it yet
	firmware    string // of the target's BMC, likewise
	guid        string // system GUID of the target: recorded, or learned by a live test; empty: neither
	switchedOff bool   // this runner switched outlets off
	load        LearnedLoad
	watts       float64 // of the newest reading with every outlet metered
	metered     bool
	failures    int      // runs in a row that confirmed nothing (P7)
	again       Boottime // before this a run only looks
	epoch       uint64   // of the run before
}

// New checks cfg and makes a Runner. It reaches no device. Its error is a *Fault.
func New(cfg Config) (*Runner, error) {
	t := cfg.Target
	if err := t.check(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.OwnGUID = strings.ToLower(cfg.OwnGUID)
	r := &Runner{cfg: cfg, load: t.Load, pace: hardwarePace(), order: make(chan struct{}, 1), yielding: make(map[int]context.CancelFunc)}
	if t.BMC != nil {
		client, err := bmc.New(bmc.Config{Address: t.BMC.Address, User: t.BMC.User, Password: string(t.BMC.Password)})
		if err != nil {
			return nil, &Fault{CodeBadConfig, fmt.Sprintf("The BMC of node %s is set up wrongly", t.Node), err.Error(), "Correct the site's setup"}
		}
		r.bmc = client
		r.bmcPath = Path{Kind: PathBMC, Address: t.BMC.Address}
		r.guid, r.firmware = strings.ToLower(t.BMC.GUID), t.BMC.Firmware
	}
	if t.PDU != nil {
		client, err := pdu.New(pdu.Config{
			Address: t.PDU.Address, Product: t.PDU.Product, UnitID: t.PDU.UnitID, Numbers: t.PDU.Numbers,
			Outlets: slices.Max(append([]int{0}, t.Outlets...)), Metered: t.Outlets, Identity: t.PDU.Identity,
		})
		if err != nil {
			return nil, &Fault{CodeBadConfig, "The PDU is set up wrongly", err.Error(), "Correct the site's setup"}
		}
		r.pdu = client
		product := client.Product()
		r.outletsPath = Path{
			Kind: PathOutlets, Address: t.PDU.Address, Outlets: t.Outlets, Proven: t.OutletsProven,
			Numbers: product.States(), Supported: product.Supported,
		}
	}
	return r, nil
}

// Close waits for requests that were cut off; each ends within seconds.
func (r *Runner) Close() error {
	r.requests.Wait()
	if r.bmc != nil {
		r.bmc.Close()
	}
	if r.pdu != nil {
		r.pdu.Close()
	}
	return nil
}

// GiveWay makes a context that the next Run ends, and says false if a Run is under way.
func (r *Runner) giveWay(ctx context.Context) (context.Context, context.CancelFunc, bool) {
	ctx, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.nextYield
	r.nextYield++
	r.yielding[id] = cancel
	return ctx, func() {
		cancel()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.yielding, id)
	}, r.running == 0
}

// enter waits for the order token.
func (r *Runner) enter(ctx context.Context) bool {
	select {
	case r.order <- struct{}{}:
		r.mu.Lock()
		r.generation++
		r.mu.Unlock()
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *Runner) leave() { <-r.order }

// occupied says whether a Run, PowerOn or LiveTest is under way.
func (r *Runner) occupied() bool { return len(r.order) > 0 }

// generationNow counts them.
func (r *Runner) generationNow() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.generation
}

// now is CLOCK_BOOTTIME: it goes on while the machine is suspended, and nobody can set it.
func now() Boottime {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // Linux has had it since 2.6.39
	}
	return Boottime(t.Nano())
}

// askBMC reads identity and power state in one session and notes what it means for the path.
func (r *Runner) askBMC(ctx context.Context) (BMCAnswer, bmc.GUID, *Fault) {
	guid, state, err := r.bmc.Identify(ctx)
	var answer BMCAnswer
	var fault *Fault
	if err != nil {
		answer, fault = r.bmcAnswer(err), r.bmcFault(err)
	} else {
		answer, fault = r.weigh(guid, state)
	}
	if ctx.Err() == nil { // a request that was cut off says nothing about the path
		r.noteBMC(answer, fault)
	}
	return answer, guid, fault
}

// bmcAnswer is what a failed call means for a run.
func (r *Runner) bmcAnswer(err error) BMCAnswer {
	if e, ok := bmc.AsError(err); ok && (e.Class == bmc.LoginRefused || e.Class == bmc.RoleRefused || e.Class == bmc.SuiteRefused) {
		return BMCNoLogin
	}
	return BMCSilent
}

// weigh is what an authenticated answer means.
func (r *Runner) weigh(guid bmc.GUID, state bmc.PowerState) (BMCAnswer, *Fault) {
	switch {
	case !r.isPeer(guid):
		return BMCStranger, r.wrongBMC(guid)
	case state == bmc.Off:
		return BMCSaysOff, nil
	case state == bmc.On:
		return BMCSaysOn, nil
	default:
		return BMCSilent, nil
	}
}

// isPeer says whether a GUID may be the target's: the recorded one, and never this node's own.
func (r *Runner) isPeer(guid bmc.GUID) bool {
	recorded := r.recordedGUID()
	return guid.String() != r.cfg.OwnGUID && (recorded == "" || guid.String() == recorded)
}

func (r *Runner) recordedGUID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.guid
}

func (r *Runner) setGUID(guid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.guid = guid
}

// readOutlets reads the PDU and weighs the outlets of the node.
func (r *Runner) readOutlets(ctx context.Context) (PDUAnswer, Load, *Fault) {
	outlets, err := r.pdu.Read(ctx)
	if err != nil {
		fault := r.pduFault(err)
		if ctx.Err() == nil {
			r.noteOutlets(PathUnknown, fault)
		}
		return PDUSilent, LoadUnknown, fault
	}
	on, off, watts, metered := 0, 0, 0.0, true
	for _, number := range r.cfg.Target.Outlets {
		if number > len(outlets) {
			fault := &Fault{CodePDUOutlet, "The PDU at " + r.cfg.Target.PDU.Address + " does not have that outlet", fmt.Sprintf("It has %d outlets, not %d", len(outlets), number), "Correct the outlets of the node"}
			r.noteOutlets(PathUnknown, fault)
			return PDUSilent, LoadUnknown, fault
		}
		o := outlets[number-1]
		watts, metered = watts+o.Watts, metered && o.Metered
		switch {
		case o.On:
			on++
		case o.Settled:
			off++
		default: // reads off while an earlier "on" may still come: neither
		}
	}
	load := r.noteWatts(watts, metered && len(r.cfg.Target.Outlets) > 0)
	switch {
	case off == len(r.cfg.Target.Outlets) && off > 0:
		r.noteOutlets(PathOff, nil)
		return OutletsOut, load, nil
	case on == len(r.cfg.Target.Outlets):
		r.noteOutlets(PathOn, nil)
		return OutletsOn, load, nil
	default:
		r.noteOutlets(PathMixed, nil)
		return OutletsMix, load, nil
	}
}

// noteWatts keeps the newest power and says what it means.
func (r *Runner) noteWatts(watts float64, metered bool) Load {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watts, r.metered = watts, metered
	r.outletsPath.Watts, r.outletsPath.Metered = watts, metered
	if !metered {
		return LoadUnknown
	}
	return r.load.judge(watts)
}

func (r *Runner) outletsDown(ctx context.Context) (PDUAnswer, *Fault) {
	r.mu.Lock()
	r.switchedOff = true // from the first attempt on: it may be carried out whatever is answered
	r.mu.Unlock()
	if err := r.pdu.Switch(ctx, r.cfg.Target.Outlets, false); err != nil {
		fault := r.pduFault(err)
		if e, ok := pdu.AsError(err); ok && (e.Class == pdu.WrongIdentity || e.Class == pdu.NoSuchOutlet || e.Class == pdu.Rejected || e.Class == pdu.NoMap) {
			return PDURefused, fault
		}
		return PDUSilent, fault
	}
	return PDUDone, nil
}

// sleep waits, unless ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
