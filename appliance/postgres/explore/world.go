package explore

import (
	"fmt"
	"slices"

	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

// maxRows that a walk writes.
const maxRows = 12

// log is what a directory holds: rows in order; a row's number is never used twice.
type log struct {
	row [maxRows]uint8
	n   uint8
}

func (l *log) has(row uint8) bool { return slices.Contains(l.row[:l.n], row) }

func (l *log) prefixOf(m *log) bool { return l.n <= m.n && slices.Equal(l.row[:l.n], m.row[:l.n]) }

func (l *log) cut(n uint8) {
	for i := n; i < l.n; i++ {
		l.row[i] = 0
	}
	l.n = min(l.n, n)
}

// position of the end of n rows; 0 would say that it is not known.
func position(n uint8) decide.LSN { return decide.LSN(n) + 10 }

// dir is a data directory.
type dir struct {
	kind       decide.Dir
	log        log
	timeline   uint32
	fork       decide.LSN
	checkpoint uint32 // timeline of the last checkpoint
	standby    bool
	clean      bool
}

// node is one node. What is in disk and docs survives a crash.
type node struct {
	up    bool
	state decide.State
	disk  dir
	spare dir  // being made; DirAbsent: none
	gone  bool // the volume is not mounted: disk is not seen

	proc      decide.Proc
	life      uint64
	names     decide.Names // as reloaded
	effective decide.Names // as the checkpointer has taken them up
	stalled   bool         // the checkpointer
	connected uint64       // standby: to the life of the other server; 0: not
	pid       int32        // of that walsender
	write     bool         // gate
	read      bool
	held      [2]bool // addresses
	pending   []uint8 // rows whose commit waits
	work      decide.Effect
	flushing  bool          // a checkpoint is under way
	done      []decide.Done // in order
	last      decide.Peer   // what the other one said at the last look

	mode     membership.Mode
	over     bool // the lease is over
	evidence decide.Evidence
	owner    membership.Node
	version  uint32
	docs     decide.Docs
}

// doc is a record on its way.
type doc struct {
	phase  uint8 // 0: none; else the message that is on its way
	from   membership.Node
	record decide.Record
}

const (
	docPrepare      = iota + 1 // to the other node, which makes it pending
	docPrepared                // back: current on the writer
	docCommit                  // to the other node: current
	docGrowPrepare             // growth: current on the writer already
	docGrowPrepared            // back: finished
)

// world is everything.
type world struct {
	now      membership.Boottime
	n        [2]node
	members  membership.Set // by the witness
	epoch    membership.Epoch
	link     bool
	prepared bool // the joiner has PREPARE, and the member has not committed
	doc      doc
	give     bool // GIVE is on its way
	lent     bool // R29, in this session
	lives    uint64
	pids     int32
	rows     uint8
	acked    [maxRows + 1]bool
	givenUp  [maxRows + 1]bool // by a person (N6)
	forced   bool
	timeline uint32 // all up to this one are used
	used     [64]bool
	left     budget
	trace    []string // what was done, for people
}

// budget is how much harm a walk may do.
type budget struct {
	crashNode, crashServer, cut, stall, restart, unmount, rows, ticks, switchover, resume int
}

// tick is the unit of the model's time.
const tick membership.Boottime = 1000

func timing() decide.Config {
	return decide.Config{
		DegradeAfter: 2 * tick, BootPatience: 3 * tick, GoodFor: tick, GoodMost: 2 * tick, FlapWindow: 4 * tick, LagMost: 1, MarkAgain: 1,
		ReleaseBy: 2 * tick, PeerFresh: tick, FailWindow: 3 * tick, FailMost: 1, BackoffFrom: 3, BackoffLeast: tick / 2, BackoffMost: tick,
		HungAfter: 50 * tick, KillAfter: 1, ResetAfter: 5 * tick, StopBy: 3 * tick, CompareBy: tick, ReturnBy: 5 * tick, Lease: 2 * tick,
	}
}

// begin is a fresh pair without a database, or one in sync.
func begin(fresh bool, b budget) *world {
	w := &world{now: 10 * tick, members: membership.Both, epoch: 1, link: true, left: b}
	for i := range w.n {
		w.n[i] = node{up: true, state: decide.State{Cfg: timing()}, mode: membership.Paired, proc: decide.ProcStopped}
		w.n[i].disk.kind = decide.DirAbsent
		w.n[i].spare.kind = decide.DirAbsent
	}
	if fresh {
		return w
	}
	r := decide.Record{Epoch: 1, Version: 1, SystemID: 1, Copies: membership.Both, Timeline: 1}
	for i := range w.n {
		n := &w.n[i]
		n.docs.Current = r
		n.disk = dir{kind: decide.DirOurs, timeline: 1, checkpoint: 1, standby: i == 1, clean: true}
	}
	w.used[1], w.timeline = true, 1
	return w
}

func (w *world) peerOf(i int) *node { return &w.n[1-i] }

// newest is the newest record that anybody has durably.
func (w *world) newest() decide.Record {
	a, b := w.n[0].docs.Newest(), w.n[1].docs.Newest()
	for _, d := range []decide.Docs{w.n[0].docs, w.n[1].docs} {
		for _, r := range []decide.Record{d.Current, d.Pending} {
			if r.Newer(a) {
				a = r
			}
		}
	}
	if b.Newer(a) {
		return b
	}
	return a
}

// primary says whether node i answers clients as one.
func (w *world) primary(i int) bool {
	n := &w.n[i]
	return n.up && n.proc == decide.ProcPrimary && n.write
}

// check is what must hold at every moment.
func (w *world) check() error {
	if w.primary(0) && w.primary(1) {
		return fmt.Errorf("PG1: both nodes have a primary and an open gate")
	}
	for i := range w.n {
		if !w.primary(i) {
			continue
		}
		for row := uint8(1); row <= w.rows; row++ {
			if w.acked[row] && !w.givenUp[row] && !w.n[i].disk.log.has(row) {
				return fmt.Errorf("PG2: %c serves without row %d, which was acknowledged", 'a'+i, row)
			}
		}
	}
	return nil
}

// settle acknowledges what may be acknowledged on node i, and checks it (PG2).
func (w *world) settle(i int) error {
	n, p := &w.n[i], w.peerOf(i)
	if n.proc != decide.ProcPrimary || !n.write {
		n.pending = nil
		return nil
	}
	var waits []uint8
	for _, row := range n.pending {
		there := p.up && p.proc == decide.ProcStandby && p.connected == n.life && p.disk.log.has(row)
		if n.effective == decide.NamesPeer && !there {
			waits = append(waits, row)
			continue
		}
		for c := range w.n {
			if w.newest().Copies.Has(membership.Node(c)) && !w.n[c].disk.log.has(row) {
				return fmt.Errorf("PG2: row %d is acknowledged by %c and not on %c, copies=%v", row, 'a'+i, 'a'+c, w.newest().Copies)
			}
		}
		w.acked[row] = true
	}
	n.pending = waits
	return nil
}

// input is what node i sees. stale: the other one is seen as at the last look.
func (w *world) input(i int, stale bool) decide.Input {
	n, p := &w.n[i], w.peerOf(i)
	in := decide.Input{Now: w.now, Self: membership.Node(i), Enabled: true, Docs: n.docs, Local: w.local(i)}
	g := &in.Grant
	*g = decide.Grant{Mode: n.mode, Epoch: w.epoch, Members: w.members, Owner: n.owner, Version: n.version, Evidence: n.evidence}
	g.Deadline = w.now + 100*tick
	if n.over {
		g.Deadline = w.now
	}
	mine := n.owner == membership.Node(i)
	switch n.mode {
	case membership.Solo:
		g.Deadline = 0
		g.Right = mine
		g.Joining = w.link && p.up && p.mode == membership.Joining
		g.Lends = g.Joining && !w.lent
	case membership.Paired:
		g.Right = mine && !n.over && !w.give
	case membership.Joining:
		g.Right = mine && !n.over && w.lent
	default:
	}
	if g.Right && g.Evidence == decide.EvidenceNone {
		g.Evidence = decide.EvidenceStated
	}
	if stale {
		in.Peer = n.last
	} else if w.link && p.up {
		l := w.local(1 - i)
		in.Peer = decide.Peer{
			At: w.now, Dir: l.Dir, Proc: l.Proc, Clean: l.Clean, Timeline: l.Timeline, CheckpointTimeline: l.CheckpointTimeline, End: l.End, Replay: l.Replay,
			Receiving: l.Receiving, ReadAddress: p.held[decide.Read], SpaceClone: true, Fails: p.state.Fails,
		}
		n.last = in.Peer
	}
	return in
}

func (w *world) local(i int) decide.Local {
	n, p := &w.n[i], w.peerOf(i)
	l := decide.Local{
		Dir: n.disk.kind, SystemID: 1, Proc: n.proc, Life: n.life, AsPrimary: n.proc == decide.ProcPrimary, Clean: n.disk.clean, StandbyDir: n.disk.standby,
		Timeline: n.disk.timeline, CheckpointTimeline: n.disk.checkpoint, Fork: n.disk.fork, End: position(n.disk.log.n), Names: n.names, Slot: true,
		Paused: false, Waiters: len(n.pending), ProbeAt: w.now, WriteOpen: n.write, ReadOpen: n.read, WriteAddress: n.held[0], ReadAddress: n.held[1], SpaceClone: true,
	}
	if l.Dir == decide.DirCreating && n.docs.Newest().Version != 0 {
		if l.Dir = decide.DirOurs; l.Timeline == 0 {
			l.Dir = decide.DirForeign // a creation that was interrupted, and another node's record
		}
	}
	switch n.proc {
	case decide.ProcStopped:
		l.Life = 0
	case decide.ProcStandby:
		l.Replay = l.End
		l.Receiving = n.connected != 0 && n.connected == p.life && p.proc == decide.ProcPrimary
	case decide.ProcPrimary:
		l.StandbyDir = false
		if p.up && p.proc == decide.ProcStandby && p.connected == n.life {
			l.Sender = decide.Sender{PID: p.pid, Streaming: true, Flush: position(p.disk.log.n)}
		}
	default:
	}
	if n.gone {
		l.Dir, l.Timeline, l.End, l.CheckpointTimeline, l.StandbyDir, l.Clean = decide.DirEmpty, 0, 0, 0, false, false
	}
	return l
}
