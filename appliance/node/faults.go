package node

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"duet/appliance/event"
	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
)

// faults are what people must know of and what is not simply a state that status can read: raised by an event,
// cleared by a later one. One entry for a code and what it is about; a fault that comes again keeps its first time.
type faults struct {
	mu     sync.Mutex
	active map[faultKey]activeFault
}

// faultKey keeps the same fault of two volumes apart.
type faultKey struct {
	code  event.Code
	about string // empty, a volume, or one of the subjects below
}

// Subjects of faults that end together.
const (
	aboutFenceRun = "fence run"
	aboutPowerOn  = "power on"
)

type activeFault struct {
	fault *event.Fault
	since time.Time
}

func newFaults() *faults { return &faults{active: map[faultKey]activeFault{}} }

func (f *faults) raise(fault *event.Fault) { f.raiseAbout("", fault) }

func (f *faults) raiseAbout(about string, fault *event.Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := faultKey{fault.Code, about}
	since := time.Now()
	if old, ok := f.active[key]; ok {
		since = old.since
	}
	f.active[key] = activeFault{fault, since}
}

func (f *faults) clear(codes ...event.Code) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.active {
		if slices.Contains(codes, key.code) {
			delete(f.active, key)
		}
	}
}

func (f *faults) clearAbout(about string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.active {
		if key.about == about {
			delete(f.active, key)
		}
	}
}

// list is ordered by code, then by what it is about.
func (f *faults) list() []activeFault {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []activeFault
	for _, a := range f.active {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b activeFault) int {
		return cmp.Or(cmp.Compare(a.fault.Code, b.fault.Code), cmp.Compare(a.fault.What(), b.fault.What()))
	})
	return all
}

// reported is the driver's hook: which reports raise and clear what.
func (n *Node) reported(c membership.ReportCode) {
	n.db.wake() // a grant, an owner, a record or evidence may have changed
	peer := n.peer().String()
	switch c {
	case membership.ReportWitnessUnknown:
		n.faults.raise(event.New(event.WitnessUnknown, "address", n.witnessAddress()))
	case membership.ReportPushConfirmed:
		n.faults.clear(event.WitnessUnknown, event.RegisterAhead)
	case membership.ReportRegisterAhead:
		n.faults.raise(event.New(event.RegisterAhead, "address", n.witnessAddress(), "register_epoch", "a higher one", "epoch", "its own"))
	case membership.ReportHelloUnmatched, membership.ReportRecordOlder, membership.ReportDiverged,
		membership.ReportOwnersConflict, membership.ReportOtherSite, membership.ReportFreshPeer, membership.ReportFreshWaits:
		n.faults.raise(event.New(event.RecordsConflict, "detail", c.String()))
	case membership.ReportArbiterSet:
		n.faults.clear(event.WitnessUnknown, event.RegisterAhead)
	case membership.ReportFenceUnknown, membership.ReportFenceRefused:
		n.faults.raise(event.New(event.FenceUnknown, "node", peer, "detail", c.String()))
	case membership.ReportFenceConfirmed:
		n.faults.clear(event.FenceUnknown)
		n.faults.clearAbout(aboutFenceRun)
		n.faults.raise(event.New(event.Fenced, "node", peer, "detail", "its power was read after the request"))
	case membership.ReportPowerOnLimit:
		if _, is := n.latchOf(peer); is {
			return // it was not powered on at all, and that is said
		}
		n.faults.raise(event.New(event.PowerOnGivenUp, "node", peer, "count", "3"))
	case membership.ReportJoinCut:
		n.faults.raise(event.New(event.CopyFailed, "session", "the last one", "reason", "the other node or its mirror was lost"))
	case membership.ReportPaired:
		n.faults.clear(event.RecordsConflict, event.FenceUnknown, event.Fenced, event.PowerOnGivenUp, event.CopyFailed,
			event.WrongPeerKey, event.OtherPeerVersion, event.LinkRefused, event.LegsUnrelated, event.NoSource, event.BothWrote, event.GenerationsDiffer)
		n.faults.clearAbout(aboutFenceRun)
		n.faults.clearAbout(aboutPowerOn)
		at := membership.Boottime(boottime.Now())
		n.tasks.Go(func() { n.unlatchJoined(at) })
	default: // nothing for the others
	}
}

func (n *Node) witnessAddress() string {
	if doc, ok := n.document(); ok && doc.Witness != nil {
		return doc.Witness.Address
	}
	return "none"
}
