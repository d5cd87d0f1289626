package fence

import (
	"context"
	"strings"
	"sync"
	"time"

	"duet/ipmi/bmc"
)

// PathKind is a way to fence.
type PathKind string

// The ways.
const (
	PathBMC     PathKind = "bmc"
	PathOutlets PathKind = "outlets"
)

// PathState says how a path stands.
type PathState string

// The states of a path.
const (
	PathUnknown PathState = "unknown" // not looked at, or no answer
	PathOn      PathState = "on"      // answers; the node has power by it
	PathOff     PathState = "off"     // answers; the node has no power by it
	PathMixed   PathState = "mixed"   // outlets only: some on, some off
)

// Path is one way to fence the node, for people.
type Path struct {
	Kind    PathKind
	Address string
	Outlets []int
	Checked time.Time // wall time, for people; zero: never
	State   PathState
	Proven  bool // bmc: signed in, and it has the recorded GUID; outlets: a live test showed that they feed this node
	Fault   *Fault

	Numbers   string // outlets: how the numbers of the product are known, "switch V, read V, meter V"
	Supported bool   // outlets: every number was tried on a device
	Metered   bool
	Watts     float64 // of all its outlets, if Metered
}

// Status is what `duet fence status` shows about one node.
type Status struct {
	Node  Node
	Paths []Path
}

const statusLimit = 4 * time.Second

// Status asks every path now; nothing is switched. It ends within 4 s. While a Run is under way it says what was last
// seen instead of standing in its way.
func (r *Runner) Status(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	ctx, done, free := r.giveWay(ctx)
	defer done()
	if free {
		var both sync.WaitGroup
		if r.bmc != nil {
			both.Go(func() { r.askBMC(ctx) }) //nolint:errcheck // it notes what it saw
		}
		if r.pdu != nil {
			both.Go(func() { r.readOutlets(ctx) }) //nolint:errcheck // it notes what it saw
		}
		both.Wait()
	}
	return r.Last()
}

// Last is what was last seen of every path, without asking.
func (r *Runner) Last() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{Node: r.cfg.Target.Node}
	for _, p := range []Path{r.bmcPath, r.outletsPath} {
		if p.Kind == "" {
			continue
		}
		if p.State == "" {
			p.State = PathUnknown
		}
		if p.Kind == PathOutlets && !p.Proven && p.Fault == nil && len(p.Outlets) > 0 {
			p.Fault = r.noMeans()
		}
		s.Paths = append(s.Paths, p)
	}
	return s
}

func (r *Runner) noteBMC(answer BMCAnswer, fault *Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bmcPath.Checked, r.bmcPath.Fault = time.Now(), fault
	switch answer {
	case BMCSaysOn:
		r.bmcPath.State = PathOn
	case BMCSaysOff:
		r.bmcPath.State = PathOff
	case BMCSilent, BMCNoLogin, BMCStranger, BMCDone, BMCRejected:
		r.bmcPath.State = PathUnknown
	}
	r.bmcPath.Proven = r.bmcPath.State != PathUnknown && r.guid != ""
}

func (r *Runner) noteOutlets(state PathState, fault *Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outletsPath.Checked, r.outletsPath.State, r.outletsPath.Fault = time.Now(), state, fault
	if state == PathUnknown {
		r.outletsPath.Metered = false
	}
}

// Learn takes what a live test showed, here or on the other node. The runner goes on: what it knows of commands that may
// still be carried out is not forgotten.
func (r *Runner) Learn(outletsProven bool, load LearnedLoad, firmware string) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if firmware == "" {
		firmware = r.firmware // nothing was recorded: what was first seen goes on counting
	}
	r.disproved = r.disproved && outletsProven
	outletsProven = outletsProven && !r.disproved // what was recorded before the test does not count again
	changed = r.outletsPath.Proven != outletsProven || r.load != load || r.firmware != firmware
	r.outletsPath.Proven, r.load, r.firmware = outletsProven, load, firmware
	return changed
}

func (r *Runner) outletsProven() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.outletsPath.Proven
}

// prove notes what a live test showed.
func (r *Runner) prove(guid bmc.GUID, outlets bool, load LearnedLoad) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outletsPath.Proven = r.outletsPath.Proven || outlets
	r.disproved = r.disproved && !outlets
	if load.Known {
		r.load = load
	}
	if r.guid == "" && namesSystem(guid) {
		r.guid = guid.String()
	}
}

// disprove withdraws the map: a live test showed that the outlets do not feed the node.
func (r *Runner) disprove() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outletsPath.Proven, r.disproved = false, true
}

// namesSystem says whether a GUID means anything: all zero and all ones are what boards say that were never given one
// (SMBIOS 3.0, 7.2.1).
func namesSystem(guid bmc.GUID) bool {
	text := guid.String()
	return strings.Trim(text, "0") != "" && strings.Trim(text, "f") != ""
}
