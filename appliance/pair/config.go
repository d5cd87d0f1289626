package pair

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"time"

	"duet/appliance/membership"
	"duet/appliance/pair/peerlink"
	"duet/appliance/pair/recordfile"
	"duet/replication/control"
	"duet/witness/wire"
)

// Times of the driver itself. Those of the protocol are in Durations.
const (
	heartbeat = 250 * time.Millisecond // protocol.md 5.3, on every path
	wantAgain = 500 * time.Millisecond // a start that was not possible is asked for again
	stopLimit = time.Second            // protocol.md 5.1: killed and reaped
	laneBegin = 3 * time.Second        // two daemons on two nodes find each other after a new grant
	laneLost  = 1500 * time.Millisecond
	// A new session cancels the question to the witness (R2). After one that ended for want of a data lane the next must
	// leave time for an answer, or a site whose LAN lives and whose mirror cable does not would hold writes for ever.
	laneHoldOff   = 12 * time.Second // bias and two round trips of 5 s
	inputQueue    = 256              // what other goroutines report; a full queue makes them wait
	grantsPerStep = 16               // what a process that dies may have granted after its last snapshot
	drainMax      = 64               // inputs taken before an overdue timer, so that news is heard before a verdict
)

// Durations is the table of protocol.md section 5.3.
func Durations(self membership.Node) membership.Config {
	ns := func(d time.Duration) membership.Boottime { return membership.Boottime(d) }
	return membership.Config{
		Self:        self,
		Lease:       ns(4 * time.Second),  // rides out a 2 s stall
		PeerWait:    ns(6 * time.Second),  // W0 ≥ L(1+2·rho) + kill time + margin
		Bias:        ns(time.Second),      // the pair owner asks first
		RestartBias: ns(3 * time.Second),  // bias, and the 1.5 s by which the other node may notice a loss later
		BootWait:    ns(15 * time.Second), // both nodes boot after a common power cut
		AskAgain:    ns(2 * time.Second),  // round trips of 5 s, 30 % loss
		ForceGap:    1 << 32,
		FenceAgain:  ns(2 * time.Second),        // a run ends within 10 s by itself
		PowerOnWait: ns(10 * time.Second),       // takeover first
		CommitAgain: ns(500 * time.Millisecond), // two heartbeats
	}
}

// Workloads is what runs on this node. Stop and StopAll return nil only when everything they name is gone.
type Workloads interface {
	// Permit follows a confirmed grant and replaces the last one. Start is refused under another epoch, and from the
	// deadline on (0: none): the lease guard kills what runs at that moment, not what comes later.
	Permit(epoch membership.Epoch, rs membership.Resources, until membership.Boottime)
	Start(r membership.ResourceID, epoch membership.Epoch) // begins, returns at once
	Stop(ctx context.Context, rs membership.Resources) error
	StopAll(ctx context.Context) error
	Idle() bool                      // nothing runs here, as seen, not as believed
	Wanted() []membership.ResourceID // desired and not running; the core decides whether it may
}

// Fencer turns the peer off and on. Both calls may take seconds.
type Fencer interface {
	Fence(ctx context.Context, order membership.Fence) (membership.Verdict, string)
	PowerOn(ctx context.Context) error
}

// Witness is the third vote. Do ends with its context.
type Witness interface {
	Do(ctx context.Context, r wire.Request) (wire.Reply, error)
}

// Site is what the driver must know of the site document; the composition root keeps it.
type Site struct {
	Mirror  control.Config
	Volumes []SiteVolume
	Pin     peerlink.Pin
	Fencer  Fencer  // nil: no path
	Witness Witness // nil: none
}

// SiteVolume ties a volume to its slot and to the resource that owns it.
type SiteVolume struct {
	Slot     membership.VolumeSlot
	ID       string
	Resource membership.ResourceID
}

// Hooks connect the driver to the composition root. They are called on the driver's goroutine and must be quick.
type Hooks struct {
	// Adopt judges a PREPARE that would found this fresh node: the document must be here, durable, and fit. An error
	// drops the message.
	Adopt func(p membership.Prepare, peerKey ed25519.PublicKey) error
	// Belongs is called when the record names another site or another version of its document: to the site of a founding
	// or back to none before the effects of that step, to a version right after it is recorded. It returns what holds from
	// now on.
	Belongs func(rec membership.Record) (Site, error)
	// Documents are what the peer must have before it hears this node's record: the composition root's messages, each
	// with its kind byte. Holds says whether the document with this hash is durable here (R25, membership duty 7).
	Documents func() [][]byte
	Holds     func(hash membership.Digest) bool
	// Began: a session began. Told: a message of the peer's composition root came.
	Began func(session membership.Session, peerFresh bool)
	Told  func(kind byte, body []byte)
	// Reported is every report of the core, in order. Refused: somebody was turned away by the link.
	Reported    func(membership.ReportCode)
	Refused     func(peerlink.Refusal)
	MirrorFault func(control.Fault)
	// Reset makes this node go down hard; it does not return to a working node.
	Reset func(why string)
}

// Config is everything a driver needs.
type Config struct {
	Timing       membership.Config
	Link         peerlink.Config // Pin and Resume are filled in by New
	BootID       string
	RunDir       string
	Records      *recordfile.File
	MirrorSocket string
	Watchdog     string // device; empty: none
	Workloads    Workloads
	Hooks        Hooks
	Recorder     Recorder // nil: nobody listens
	Log          *slog.Logger
}
