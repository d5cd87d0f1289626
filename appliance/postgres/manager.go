package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

// Manager looks, asks decide.Step, and does. One goroutine, Run, owns everything except what is atomic or behind mu.
type Manager struct {
	cfg  Config
	dirs layout

	state        decide.State
	control      *session // for looks
	names        decide.Names
	pm           process // the postmaster
	pmDir        string
	answered     uint64 // the life that has answered a look
	lifeTimeline uint32
	cold         coldLook
	cancel       context.CancelFunc // of the long effect under way

	wake    chan struct{}
	orders  chan orderOf
	results chan decide.Done
	works   sync.WaitGroup

	stopped  atomic.Bool
	probedAt atomic.Int64 // CLOCK_BOOTTIME of the last probe that got through
	pausedAt atomic.Int64 // of the last pause of the replay
	progress atomic.Pointer[string]

	mu    sync.Mutex
	facts decide.Local
	said  decide.Peer
	view  View
}

// View is what status shows of this node.
type View struct {
	decide.Words
	Record   decide.Record
	Timeline uint32
	Receive  decide.LSN
	Replay   decide.LSN
	Fails    uint8
	Progress string
	Order    decide.OrderPhase // of a switchover away from here
	At       membership.Boottime
}

type orderOf struct {
	kind  decide.OrderKind
	reply chan decide.Refusal
}

// maxOrders wait at most; people give them one at a time.
const maxOrders = 4

// quickRounds looks follow each other without a pause while every one of them has found something to do.
const quickRounds = 20

// New makes a manager; it touches nothing before Run.
func New(cfg Config) (*Manager, error) {
	cfg.fill()
	root, err := filepath.EvalSymlinks(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("data directories: %w", err)
	}
	cfg.Root = root
	if len(cfg.file(".s.PGSQL.65535")) > 100 { // sun_path holds 108 bytes (unix(7))
		return nil, fmt.Errorf("the path of the socket is too long: %s", cfg.Run)
	}
	if err := os.Chown(cfg.Run, cfg.UID, cfg.GID); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if err := cfg.passfile(); err != nil {
		return nil, err
	}
	m := &Manager{
		cfg: cfg, dirs: layout{root, cfg.UID, cfg.GID}, wake: make(chan struct{}, 1), orders: make(chan orderOf, maxOrders),
		results: make(chan decide.Done, 8),
	}
	m.state.Cfg = cfg.Decide
	return m, nil
}

func (m *Manager) now() membership.Boottime { return membership.Boottime(boottime.Now()) }

// Wake asks for a look now: the grant, the record or the peer has changed.
func (m *Manager) Wake() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Switchover asks for one (P1) and says whether it begins.
func (m *Manager) Switchover(ctx context.Context) decide.Refusal {
	return m.order(ctx, decide.OrderSwitchover)
}

// Reclone gives up what only this node's directory has (J4). Who may order it, and why, is asked before.
func (m *Manager) Reclone(ctx context.Context) decide.Refusal {
	return m.order(ctx, decide.OrderReclone)
}

func (m *Manager) order(ctx context.Context, kind decide.OrderKind) decide.Refusal {
	o := orderOf{kind, make(chan decide.Refusal, 1)}
	select {
	case m.orders <- o:
	case <-ctx.Done():
		return decide.RefusedBusy
	}
	select {
	case r := <-o.reply:
		return r
	case <-ctx.Done():
		return decide.RefusedBusy
	}
}

// Facts is the last look.
func (m *Manager) Facts() decide.Local {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.facts
}

// Said is what this node tells the other one; At is when it was so, by this node's clock: the receiver puts its own.
func (m *Manager) Said() decide.Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.said
}

// View is what status shows.
func (m *Manager) View() View {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.view
}

func (m *Manager) told(line string) { m.progress.Store(&line) }

// Run until ctx ends. The server goes on: it is not this process's child to take along.
func (m *Manager) Run(ctx context.Context) error {
	probes := make(chan struct{})
	ctx, stop := context.WithCancel(ctx)
	go func() {
		defer close(probes)
		m.probe(ctx)
	}()
	defer func() {
		stop()
		m.stopped.Store(true)
		<-probes
		m.drain()
		m.forget()
	}()
	tick := time.NewTicker(m.cfg.LookEvery)
	defer tick.Stop()
	var event decide.Event
	var answer func(decide.Refusal)
	for {
		for range quickRounds {
			busy := m.round(ctx, event, answer)
			event, answer = nil, nil
			if !busy || ctx.Err() != nil {
				break
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-m.wake:
		case done := <-m.results:
			event = done
		case o := <-m.orders:
			event, answer = decide.Order{Kind: o.kind}, func(r decide.Refusal) { o.reply <- r }
		}
	}
}

// drain waits for what is under way; its context has ended.
func (m *Manager) drain() {
	ended := make(chan struct{})
	go func() {
		m.works.Wait()
		close(ended)
	}()
	for {
		select {
		case <-m.results:
		case <-ended:
			return
		}
	}
}

// round is one look, one Step and its effects; it says whether there was something to do.
func (m *Manager) round(ctx context.Context, event decide.Event, answer func(decide.Refusal)) bool {
	in := decide.Input{Self: m.cfg.Self, Enabled: m.cfg.Enabled(), Durability: m.cfg.Durability(), Event: event}
	in.Local = m.look(ctx)
	in.Grant, in.Docs = m.cfg.Authority.Now()
	in.Peer = m.cfg.Other.Peer()
	in.Now, in.Wall = m.now(), time.Now().Unix()
	m.healReplay(ctx, in.Local)
	if answer != nil {
		o, _ := event.(decide.Order)
		refusal := decide.Granted
		if o.Kind == decide.OrderSwitchover {
			refusal = m.state.Allows(in)
		}
		answer(refusal)
	}
	var effects []decide.Effect
	m.state, effects = decide.Step(m.state, in)
	m.publish(in)
	busy := false
	for _, e := range effects {
		if _, renewal := e.(decide.SetGate); !renewal {
			m.cfg.Log.Info("database", "does", e.String())
			busy = true
		}
		if err := m.act(ctx, e); err != nil {
			m.cfg.Log.Warn("an effect failed", "effect", e.String(), "error", err.Error())
			return false // the next look begins again from what is there
		}
	}
	return busy
}

// healReplay resumes a replay that nobody needs paused any more: a marker whose owner died in the middle.
func (m *Manager) healReplay(ctx context.Context, l decide.Local) {
	if !l.Paused || l.Proc != decide.ProcStandby || m.now()-membership.Boottime(m.pausedAt.Load()) < membership.Boottime(m.cfg.MarkTimeout+m.cfg.AskTimeout) {
		return
	}
	if _, err := m.control.quick(ctx, "SELECT pg_wal_replay_resume()"); err != nil {
		m.cfg.Log.Warn("the replay cannot be resumed", "error", err.Error())
	}
}

func (m *Manager) publish(in decide.Input) {
	l := &in.Local
	m.mu.Lock()
	defer m.mu.Unlock()
	m.facts = *l
	m.said = decide.Peer{
		At: in.Now, Dir: l.Dir, Proc: l.Proc, Clean: l.Clean, Timeline: l.Timeline, CheckpointTimeline: l.CheckpointTimeline, End: l.End,
		Replay: l.Replay, Receiving: l.Receiving, ReadAddress: m.cfg.Addresses.Held(decide.Read),
		SpaceClone: l.SpaceClone, Fails: m.state.Fails,
	}
	if in.Now-m.state.FailFirst > m.state.Cfg.FailWindow {
		m.said.Fails = 0
	}
	m.view = View{
		Words: decide.Describe(m.state, in, true), Record: in.Docs.Newest(), Timeline: l.Timeline, Receive: l.End, Replay: l.Replay,
		Fails: m.said.Fails, Order: m.state.Order, At: in.Now,
	}
	if p := m.progress.Load(); p != nil && m.state.Doing != decide.Idle {
		m.view.Progress = *p
	}
}

// probeEvery is H1: as often as people expect to hear that it lives.
const probeEvery = time.Second

// probe asks the server for a sign of life on a connection of its own, which a full table of connections does not take
// away. It never changes anything.
func (m *Manager) probe(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var s *session
	defer func() { s.close() }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if p := m.Facts().Proc; p == decide.ProcStopped || p == decide.ProcUnseen {
			continue
		}
		if err := m.probeOnce(ctx, &s); err != nil && !errors.Is(err, context.Canceled) {
			s.close()
			s = nil
		}
	}
}

func (m *Manager) probeOnce(ctx context.Context, s **session) error {
	if *s == nil {
		fresh, err := m.connect(ctx)
		if err != nil {
			return err
		}
		*s = fresh
	}
	if _, err := (*s).quick(ctx, "SELECT 1"); err != nil {
		return err
	}
	m.probedAt.Store(int64(m.now()))
	return nil
}
