// Package mirror is one node's side of all volumes together: it takes configuration and grants from duetd,
// keeps the lane to the other node, agrees with it volume by volume which leg brings the other up to date, runs
// a copy of all volumes to its common proof, and answers the NBD server's question for a volume.
//
// It promises that a grant is obeyed when Grant returns and that Grant waits for no device; that both nodes act
// on a decision only after both came to the same one from the same two records; and that CopyDone is reported
// only when every volume was proved equal and both nodes have recorded it. The same holds for the return of a single leg
// that was taken out, whose target reports after the coordinator of the volume has.
//
// It refuses a grant of another boot or with a lower sequence, and a configuration of another node. What the
// lane cannot explain closes the lane: the next one begins with a new handshake, so there is no state that
// could be half agreed.
//
// The agreement: when a lane is up, each side sends the record of each leg, numbered by a round. Node a compares
// both records under the present grants and sends its decision with both rounds; node b comes to its own decision
// from the same records, and agrees or says "stale". What is stale is decided again when the newer record, which
// is on its way, has arrived (row H0 of the handshake).
package mirror

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"duet/replication/block"
	"duet/replication/control"
	"duet/replication/handshake"
	"duet/replication/internal/pinned"
	"duet/replication/link"
	"duet/replication/meta"
	"duet/replication/volume"
)

// Pool is where legs live.
type Pool interface {
	Create(ctx context.Context, id meta.ID, size int64, progress func(done, total int64)) error
	Open(id meta.ID) (data, meta block.Device, err error)
	Has(id meta.ID) (bool, error)
	Renew(id meta.ID) error
}

// Options are what a mirror is made of.
type Options struct {
	Log      *slog.Logger
	Instance string
	Pool     func(site meta.ID, node uint8) Pool
	Emit     func(control.Event)
	Clock    func() int64 // CLOCK_BOOTTIME; nil: the real one
}

// forwardsMax bounds what all volumes forward at a time, 1 MiB each at most: half of what a lane may have in flight, so that
// volumes whose coordinator holds them leave room for the others' writes.
const forwardsMax = 32

// maxStandingFaults bounds what a new client of the control socket is told about the past.
const maxStandingFaults = 64

// Mirror is a node's side.
type Mirror struct {
	opts  Options
	grace time.Duration // of Close
	link  *link.Link
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup

	events chan control.Event

	mu         sync.Mutex
	configured bool
	config     control.Config
	grant      control.Grant
	granted    bool
	volumes    map[string]*entry // by id
	forwards   chan struct{}     // places of requests that the other node carries out
	names      map[string]*entry
	appeared   chan struct{} // closed when a volume was added
	lane       *link.Lane
	peers      map[uint32]*entry // by the peer's handle
	faults     []control.Fault
	copy       copyState
	endWait    context.CancelFunc // of the last drain
	drainLimit time.Duration
	scrubAsked chan struct{}
	scrubsOver chan struct{} // closed when no scrub runs any more
	closed     bool
}

// entry is one volume and what was said about it on this lane.
type entry struct {
	id     string
	handle uint32 // ours
	vol    *volume.Volume

	mine, theirs *record // last sent, last received
	round        uint64
	arming       bool
	again        bool // the record is told once more, whatever it says
	proposed     bool
	decided      bool
	agreed       agreement // what the decision was about
	sole         bool      // it was that one leg stays out: that of node out
	out          control.Node
	returning    bool     // this leg is the target of a return
	recorded     [32]byte // digest of the return that this leg has recorded
	told         string   // last refusal reported, to report it once

	dead         bool                  // this leg is
	failed       bool                  // and that was reported: the other one may stand alone
	renewing     bool                  // and a new one is being made
	scrubbing    control.ScrubProgress // the part of it that is the mirror's
	scrubOrdered bool
	scrubTried   int64 // when the last pass ended, at its end or not, CLOCK_BOOTTIME

	synced *control.LegSynced // a return that is proved and reported; until the legs of the grant change
}

// agreement is what a decision was made of, as far as it can be overtaken while the lane lives.
type agreement struct {
	legs         uint8
	mine, theirs handshake.State
}

// New makes a mirror without configuration: it serves nothing.
func New(o Options) *Mirror {
	ctx, stop := context.WithCancel(context.Background())
	if o.Clock == nil {
		o.Clock = volume.Boottime
	}
	m := &Mirror{
		grace: stopGrace, drainLimit: control.DrainLimit, opts: o, ctx: ctx, stop: stop, events: make(chan control.Event, 1024),
		volumes: map[string]*entry{}, names: map[string]*entry{}, peers: map[uint32]*entry{},
		appeared: make(chan struct{}), forwards: make(chan struct{}, forwardsMax), scrubAsked: make(chan struct{}, 1),
		scrubsOver: make(chan struct{}),
	}
	m.link = link.New(m, o.Log)
	m.spawn(m.report)
	m.spawn(m.scrubs)
	return m
}

func (m *Mirror) spawn(f func()) {
	m.wg.Go(f)
}

// report hands events on in their order, outside every lock.
func (m *Mirror) report() {
	for {
		select {
		case e := <-m.events:
			m.opts.Emit(e)
		case <-m.ctx.Done():
			return
		}
	}
}

// emit never blocks; a full queue means that nobody takes events, and the next client gets Standing.
func (m *Mirror) emit(e control.Event) {
	select {
	case m.events <- e:
	default:
	}
}

func parseID(s string) (meta.ID, error) {
	var id meta.ID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("id %q is not 32 hex digits", s)
	}
	return meta.ID(b), nil
}

// Configure says what exists. A volume that is named for the first time is opened or created behind the call.
// A volume that is not named any more stays as it is until the daemon ends: removing is not this call's meaning.
func (m *Mirror) Configure(c control.Config) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return volume.ErrClosed
	}
	if m.configured && (c.Site != m.config.Site || c.Node != m.config.Node || c.BootID != m.config.BootID) {
		return errors.New("this daemon serves another site, node or boot; restart it")
	}
	site, err := parseID(c.Site)
	if err != nil {
		return err
	}
	if err := m.check(c); err != nil {
		return err
	}
	if err := m.configureLink(c); err != nil {
		return err
	}
	m.configured, m.config = true, c
	for _, vc := range c.Volumes {
		if m.volumes[vc.ID] == nil {
			m.add(site, c, vc)
		}
	}
	m.applyGrant()
	return nil
}

// check refuses a configuration as a whole.
func (m *Mirror) check(c control.Config) error {
	if c.Node > 1 {
		return fmt.Errorf("node %d", c.Node)
	}
	names := map[string]string{}
	for _, vc := range c.Volumes {
		if _, err := parseID(vc.ID); err != nil {
			return err
		}
		if vc.SizeBytes <= 0 || vc.SizeBytes%volume.Block != 0 {
			return fmt.Errorf("volume %s: %d bytes is not a positive multiple of %d", vc.Name, vc.SizeBytes, volume.Block)
		}
		if other, double := names[vc.Name]; double && other != vc.ID {
			return fmt.Errorf("two volumes named %q", vc.Name)
		}
		names[vc.Name] = vc.ID
		if e := m.volumes[vc.ID]; e != nil && (e.vol.Size() != vc.SizeBytes || e.vol.Name != vc.Name) {
			return fmt.Errorf("volume %s: name and size cannot change", vc.Name)
		}
	}
	return nil
}

// configureLink restarts the link when something about it changed.
func (m *Mirror) configureLink(c control.Config) error {
	old := m.config
	old.Volumes, old.BootID = nil, ""
	want := c
	want.Volumes, want.BootID = nil, ""
	if m.configured && reflect.DeepEqual(old, want) {
		return nil
	}
	key, err := pinned.ParseKey(c.IdentityPEM)
	if err != nil {
		return err
	}
	if len(c.PeerKey) != ed25519.PublicKeySize {
		return fmt.Errorf("peer key of %d bytes", len(c.PeerKey))
	}
	lc := link.Config{
		Site: c.Site, Node: c.Node, Boot: c.BootID, Process: m.opts.Instance,
		Key: key, PeerKey: c.PeerKey, Paths: c.Paths, Port: c.Port,
	}
	m.mu.Unlock() // a lane that ends calls LaneDown
	defer m.mu.Lock()
	return m.link.Configure(lc)
}

// add makes an entry and opens or creates its leg in the background. The caller holds mu.
func (m *Mirror) add(site meta.ID, c control.Config, vc control.VolumeConfig) {
	id, _ := parseID(vc.ID) //nolint:errcheck // checked by check
	e := &entry{id: vc.ID, handle: uint32(len(m.volumes) + 1)}
	env := volume.Env{Log: m.opts.Log, Fault: m.fault, Clock: m.opts.Clock, Room: m.forwards, LegFailed: func(inStep bool) { go m.legFailed(e, inStep) }}
	e.vol = volume.New(id, vc.Name, vc.SizeBytes, c.Node, env)
	m.volumes[vc.ID], m.names[vc.Name] = e, e
	if m.lane != nil {
		e.vol.LaneUp(m.lane, e.handle)
	}
	close(m.appeared)
	m.appeared = make(chan struct{})
	boot := bootID(c.BootID)
	m.spawn(func() { m.openLeg(e, id, site, c.Node, boot, vc.SizeBytes) })
}

// bootID is the boot id as 16 bytes; it is written in several ways.
func bootID(s string) meta.ID {
	var digits []byte
	for _, r := range []byte(s) {
		if r != '-' {
			digits = append(digits, r)
		}
	}
	var id meta.ID
	if _, err := hex.Decode(id[:], digits[:min(len(digits), 32)]); err != nil {
		copy(id[:], s)
	}
	return id
}

func (m *Mirror) openLeg(e *entry, id, site meta.ID, node control.Node, boot meta.ID, size int64) {
	err := m.tryOpenLeg(e, id, site, node, boot, size)
	if err != nil && m.ctx.Err() == nil {
		m.fault(control.Fault{
			Code: "REPL-2022", Volume: e.id,
			What: "The leg of volume " + e.vol.Name + " cannot be used",
			Why:  err.Error(),
			Next: "Nothing was changed. Check the drive and that it belongs to this node.",
		})
		e.vol.NoLeg()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applyGrant()
}

// readmitLimit is how long Readmit waits for what hangs in the old leg.
const readmitLimit = 2 * time.Second

// Readmit gives this node a new leg in the place of its dead one, with the same files: the drive was mended, or its error has
// passed. Nothing of the old one counts any more; what its data still has in common with the other leg need not be sent. A
// leg that works is refused, and one that counts in the grant: it may be the only one with every write.
func (m *Mirror) Readmit(id string) error {
	m.mu.Lock()
	e, config := m.volumes[id], m.config
	var err error
	switch {
	case e == nil:
		err = fmt.Errorf("unknown volume %s", id)
	case m.closed:
		err = volume.ErrClosed
	case !e.dead:
		err = errors.New("the leg works")
	case m.rightOf(id).Legs.Has(config.Node), m.rightOf(id).Legs == 0:
		err = errors.New("the leg may hold the only copy: no grant has taken it out")
	case e.renewing:
		err = errors.New("the leg is being renewed")
	default:
		e.renewing = true
	}
	m.mu.Unlock()
	if err == nil {
		m.spawn(func() { m.readmit(e, config) })
	}
	return err
}

func (m *Mirror) readmit(e *entry, config control.Config) {
	err := m.renew(e, config)
	if err != nil {
		m.fault(control.Fault{
			Code: "REPL-2022", Volume: e.id,
			What: "The leg of volume " + e.vol.Name + " cannot be renewed",
			Why:  err.Error(),
			Next: "The volume goes on over the other node's leg. Replace the drive, then switch this node off and on again.",
		})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e.renewing = false
	if err == nil {
		e.failed, e.dead = false, false
		m.clearFaults(e.id)
	}
	m.negotiate()
}

func (m *Mirror) renew(e *entry, c control.Config) error {
	id, err := parseID(e.id)
	if err != nil {
		return err
	}
	site, err := parseID(c.Site)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(m.ctx, readmitLimit)
	defer cancel()
	if err := e.vol.Detach(ctx); err != nil {
		return err
	}
	pool := m.opts.Pool(site, uint8(c.Node))
	has, err := pool.Has(id)
	if err != nil {
		return err
	}
	if has {
		if err := pool.Renew(id); err != nil {
			return err
		}
	}
	return m.tryOpenLeg(e, id, site, c.Node, bootID(c.BootID), e.vol.Size())
}

// clearFaults forgets what was said about a leg that is there no more. The caller holds mu.
func (m *Mirror) clearFaults(id string) {
	m.faults = slices.DeleteFunc(m.faults, func(f control.Fault) bool {
		return f.Volume == id && (f.Code == "REPL-2020" || f.Code == "REPL-2021" || f.Code == "REPL-2022" || f.Code == "REPL-2023")
	})
}

func (m *Mirror) tryOpenLeg(e *entry, id, site meta.ID, node control.Node, boot meta.ID, size int64) error {
	pool := m.opts.Pool(site, uint8(node))
	has, err := pool.Has(id)
	if err != nil {
		return err
	}
	if !has {
		if err := pool.Create(m.ctx, id, size, func(int64, int64) {}); err != nil {
			return err
		}
	}
	rawData, rawMeta, err := pool.Open(id)
	if err != nil {
		return err
	}
	data, md := block.NewWatch(rawData), block.NewWatch(rawMeta)
	mt, err := meta.Open(md)
	if err != nil {
		data.Close()
		md.Close()
		return err
	}
	switch s := mt.Super(); {
	case s.Site != site:
		err = fmt.Errorf("it belongs to site %s", s.Site)
	case s.Node != uint8(node):
		err = fmt.Errorf("it belongs to node %c", 'a'+s.Node)
	default:
		err = e.vol.Attach(volume.Leg{Data: data, Meta: mt, Side: md}, boot)
	}
	if err != nil {
		data.Close()
		mt.Close()
	}
	return err
}

// Grant obeys a grant: when it returns, nothing more is issued under the old one.
func (m *Mirror) Grant(g control.Grant) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case !m.configured:
		return errors.New("no configuration yet")
	case g.BootID != m.config.BootID:
		return fmt.Errorf("grant of boot %s, this is boot %s", g.BootID, m.config.BootID)
	case m.granted && g.Sequence < m.grant.Sequence:
		return fmt.Errorf("grant %d is older than %d", g.Sequence, m.grant.Sequence)
	case g.Mode > control.Solo:
		return fmt.Errorf("unknown mode %d", g.Mode)
	}
	if m.granted && sameRight(g, m.grant) {
		m.grant = g
		m.extend()
		return nil
	}
	m.granted, m.grant = true, g
	if g.Session != m.copy.session {
		m.copy.end()
	}
	m.applyGrant()
	return nil
}

// sameRight says that only sequence and deadline moved.
func sameRight(g, o control.Grant) bool {
	g.Sequence, g.Deadline = o.Sequence, o.Deadline
	return reflect.DeepEqual(g, o)
}

// Revoke takes the grant away but remembers its sequence.
func (m *Mirror) Revoke() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.grant = control.Grant{BootID: m.config.BootID, Sequence: m.grant.Sequence}
	m.copy.end()
	m.applyGrant()
	return nil
}

// applyGrant gives every volume its part and the link its session. The caller holds mu.
func (m *Mirror) applyGrant() {
	g := m.grant
	session := g.Session
	if g.Mode == control.Revoked {
		session = 0
	}
	m.link.SetRight(link.Right{Session: session, Epoch: g.Epoch, Prepared: g.Prepared})
	if m.lane != nil && m.lane.Session != session {
		m.lane = nil // its end is on the way; nothing of it counts any more
		m.forgetRecords()
	}
	for id, e := range m.volumes {
		r := m.rightOf(id)
		if e.synced != nil && (r.Version != e.synced.LegsVersion || r.Session != e.synced.Session) {
			e.synced = nil
		}
		e.vol.Grant(r, g.Deadline)
	}
	m.negotiate()
}

// legFailed: a leg of this node is dead. It is reported, so that the membership takes it out, only when the other leg may
// stand alone: it was in step at that moment, or its node says that it ran through since. The source of a reconcile that is
// not finished may be the only leg with what was acknowledged, and is never dropped (replication.md 9.5).
func (m *Mirror) legFailed(e *entry, inStep bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	e.dead = true
	if inStep {
		m.reportFailed(e)
	}
	m.negotiate()
	m.weighFailed(e)
}

// weighFailed looks again when the other node has said something of its leg. The caller holds mu.
func (m *Mirror) weighFailed(e *entry) {
	if e.dead && !e.failed && e.theirs != nil && e.theirs.Leg.State == handshake.UpToDate && !e.theirs.Leg.Rebooted {
		m.reportFailed(e)
	}
}

func (m *Mirror) reportFailed(e *entry) {
	if e.failed {
		return
	}
	e.failed = true
	m.emit(control.Event{LegFailed: &control.LegFailed{Volume: e.id}})
}

// extend moves the deadline only.
func (m *Mirror) extend() {
	for id, e := range m.volumes {
		e.vol.Grant(m.rightOf(id), m.grant.Deadline)
	}
}

// rightOf is the volume's part of the grant; a volume that the grant does not name has no right at all.
func (m *Mirror) rightOf(id string) volume.Right {
	g := m.grant
	for _, vg := range g.Volumes {
		if vg.Volume != id {
			continue
		}
		return volume.Right{
			Mode: g.Mode, Epoch: g.Epoch, Prepared: g.Prepared, Session: g.Session,
			Owner: vg.Owner, Legs: effective(g, vg, m.config.Node), Version: vg.LegsVersion,
		}
	}
	return volume.Right{}
}

// effective is Legs[v] ∩ Members (protocol.md section 3). A prepared node is a member of what it prepared.
func effective(g control.Grant, vg control.VolumeGrant, self control.Node) control.Set {
	switch g.Mode {
	case control.Solo:
		return vg.Legs & (1 << self)
	case control.Joining:
		return vg.Legs & (1 << (self ^ 1))
	case control.Prepared, control.Paired:
		return vg.Legs
	case control.Revoked, control.Frozen, control.Resolving:
	}
	return vg.Legs
}

// fault reports and remembers.
func (m *Mirror) fault(f control.Fault) {
	m.mu.Lock()
	m.faultLocked(f)
	m.mu.Unlock()
}

func (m *Mirror) faultLocked(f control.Fault) {
	if len(m.faults) == maxStandingFaults {
		m.faults = m.faults[1:]
	}
	m.faults = append(m.faults, f)
	m.emit(control.Event{Fault: &f})
}

// LinkFault is the link's report of a stranger.
func (m *Mirror) LinkFault(f control.Fault) { m.fault(f) }

// Standing is what a new client of the control socket must know.
func (m *Mirror) Standing() []control.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []control.Event
	if m.lane != nil {
		out = append(out, control.Event{Link: &control.LinkEvent{Session: m.lane.Session, Up: true, Path: m.lane.Path}})
	}
	if m.copy.done != nil {
		done := *m.copy.done
		out = append(out, control.Event{CopyDone: &done})
	}
	for _, e := range m.volumes {
		if e.failed {
			out = append(out, control.Event{LegFailed: &control.LegFailed{Volume: e.id}})
		}
		if e.synced != nil {
			synced := *e.synced
			out = append(out, control.Event{LegSynced: &synced})
		}
	}
	for i := range m.faults {
		f := m.faults[i]
		out = append(out, control.Event{Fault: &f})
	}
	return out
}

// Status is a snapshot.
func (m *Mirror) Status() control.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.grant
	st := control.Status{Instance: m.opts.Instance, Grant: g}
	live := g.Mode == control.Solo && g.Deadline == 0 || m.opts.Clock() < g.Deadline
	st.Held = !live || g.Mode != control.Solo && g.Mode != control.Paired
	if m.lane != nil {
		st.LinkUp, st.LinkPath = true, m.lane.Path
	}
	for _, vc := range m.config.Volumes {
		if e := m.volumes[vc.ID]; e != nil {
			v := e.vol.Status()
			m.scrubStatus(e, &v)
			st.Volumes = append(st.Volumes, v)
		}
	}
	return st
}

// stopGrace is how long requests in progress may take at a planned stop (replication.md section 14).
const stopGrace = time.Second

// scrubGrace is how long a scrub may take to end: longer only in a disk that hangs.
const scrubGrace = time.Second

// Close stops everything: no new request, those in progress get a moment, legs are closed clean if they may be.
func (m *Mirror) Close() error {
	m.mu.Lock()
	m.closed = true
	entries := make([]*entry, 0, len(m.volumes))
	for _, e := range m.volumes {
		entries = append(entries, e)
	}
	m.mu.Unlock()
	grace, cancel := context.WithTimeout(context.Background(), m.grace)
	defer cancel()
	for _, e := range entries {
		e.vol.Quiesce(grace)
	}
	m.link.Close()
	m.stop()
	select {
	case <-m.scrubsOver: // a repair writes, so it must end before its leg is closed
	case <-time.After(scrubGrace):
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, e.vol.Close())
	}
	m.wg.Wait()
	return errors.Join(errs...)
}
