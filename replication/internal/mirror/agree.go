package mirror

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"duet/replication/block"
	"duet/replication/control"
	"duet/replication/handshake"
	"duet/replication/link"
	"duet/replication/meta"
)

// record is a LEG frame.
type record struct {
	Volume string
	Handle uint32
	Round  uint64
	Mode   control.Mode
	Leg    handshake.Leg
}

// decision is a DECISION frame of node a, and with the LAST flag node b's answer.
type decision struct {
	Volume   string
	RoundA   uint64
	RoundB   uint64
	Decision handshake.Decision
	Agreed   bool // in the answer
}

// same says that two records lead to the same decision. Counts move all the time while a node serves alone; only
// whether there are any matters.
func (r *record) same(o *record) bool {
	if o == nil {
		return false
	}
	return r.Mode == o.Mode && digest(r.Leg) == digest(o.Leg)
}

// digest of what a decision depends on.
func digest(l handshake.Leg) [sha256.Size]byte {
	if l.Right.Legs != 3 {
		l.DirtyBlocks, l.InFlightBlocks, l.SuspectBlocks = 0, 0, 0 // the grant alone gives the direction
	}
	l.DirtyBlocks, l.InFlightBlocks, l.SuspectBlocks = min(l.DirtyBlocks, 1), min(l.InFlightBlocks, 1), min(l.SuspectBlocks, 1)
	return sha256.Sum256(encode(l))
}

// purpose of an agreement under both modes.
type purpose uint8

const (
	nothing    purpose = iota
	toServe            // paired: equal, or made equal inside the session
	toReturn           // paired: a leg that was taken out comes back, proved (R24)
	toComplete         // a copy that ends in a common proof
)

func (m *Mirror) purpose(mine, theirs *record) purpose {
	return m.purposeOf(mine.Mode, theirs.Mode, mine.Leg.Right.Legs == bothLegs)
}

// bothLegs is the set of a grant in which both legs hold every acknowledged write.
const bothLegs = 3

func (m *Mirror) purposeOf(mine, theirs control.Mode, both bool) purpose {
	serving := func(x control.Mode) bool { return x == control.Paired || x == control.Prepared }
	switch {
	case serving(mine) && serving(theirs) && !both:
		if mine == control.Paired && theirs == control.Paired {
			return toReturn
		}
		return nothing
	case serving(mine) && serving(theirs) && (mine == control.Paired || theirs == control.Paired):
		return toServe
	case !m.copy.asked || m.copy.done != nil:
		return nothing
	case mine == control.Resolving && theirs == control.Resolving,
		mine == control.Solo && theirs == control.Joining, mine == control.Joining && theirs == control.Solo:
		return toComplete
	}
	return nothing
}

// forgetRecords: a new lane begins from nothing. The caller holds mu.
func (m *Mirror) forgetRecords() {
	m.peers = map[uint32]*entry{}
	for _, e := range m.volumes {
		e.mine, e.theirs = nil, nil
		e.proposed, e.decided, e.again = false, false, false
		e.told = ""
	}
	m.copy.restart()
}

// LaneUp is the begin of an incarnation.
func (m *Mirror) LaneUp(l *link.Lane) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgetRecords()
	m.lane = l
	for _, e := range m.volumes {
		e.vol.LaneUp(l, e.handle)
	}
	m.emit(control.Event{Link: &control.LinkEvent{Session: l.Session, Up: true, Path: l.Path}})
	if m.copy.ordered && !m.copy.failed && m.copy.session == l.Session {
		m.askCopy()
	}
	for _, e := range m.volumes {
		if e.synced != nil && e.synced.Session == l.Session && !e.returning {
			m.post(link.Returned, 0, e.synced)
		}
	}
	m.negotiate()
}

// LaneDown is its end.
func (m *Mirror) LaneDown(l *link.Lane, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lane == l {
		m.lane = nil
		m.forgetRecords()
	}
	for _, e := range m.volumes {
		e.vol.LaneDown(l, e.synced == nil && (m.copy.done == nil || m.grant.Mode == control.Paired))
	}
	m.emit(control.Event{Link: &control.LinkEvent{Session: l.Session, Up: false, Path: l.Path}})
}

// negotiate does the next step for every volume: arm the leg, send its record when that changed, decide. The
// caller holds mu.
func (m *Mirror) negotiate() {
	if m.lane == nil || m.closed || m.lane.Session != m.grant.Session {
		return
	}
	for _, e := range m.volumes {
		m.tell(e)
	}
	if m.config.Node != 0 {
		return
	}
	for _, e := range m.volumes { // after all records are new: which leg comes back first depends on the others
		m.decide(e)
	}
}

// tell sends the record of a leg. A leg is armed first: its open flag is durable before anything can be written
// (O4). Arming is disk work, so it runs behind and comes back here.
func (m *Mirror) tell(e *entry) {
	leg, ok := e.vol.Record()
	if !ok || e.arming {
		return
	}
	r := &record{Volume: e.id, Handle: e.handle, Mode: m.grant.Mode, Leg: leg}
	if r.same(e.mine) && !e.again {
		return
	}
	if leg.State != handshake.Failed && !e.vol.Armed() {
		e.arming = true
		m.spawn(func() { m.arm(e) })
		return
	}
	e.round++
	r.Round = e.round
	e.mine, e.proposed, e.again = r, false, false
	m.reopen(e)
	m.post(link.Leg, 0, r)
}

func (m *Mirror) arm(e *entry) {
	err := e.vol.Arm()
	m.mu.Lock()
	defer m.mu.Unlock()
	e.arming = false
	if err != nil {
		m.opts.Log.Error("leg cannot be armed", "volume", e.id, "error", err)
	}
	m.negotiate()
}

// post sends a small message. The caller holds mu.
func (m *Mirror) post(t link.Type, flags uint8, v any) {
	m.lane.Post(&link.Frame{Type: t, Flags: flags, Payload: encode(v)})
}

// evaluate is the decision for one volume from the records that were exchanged.
func (m *Mirror) evaluate(e *entry) (handshake.Decision, purpose) {
	p := m.purpose(e.mine, e.theirs)
	if e.synced != nil {
		p = nothing // reported: the membership may count both legs already, so neither is touched before its grant
	}
	if p == nothing {
		return handshake.Decision{Action: handshake.Wait, Row: "H2"}, p
	}
	d := handshake.Decide(e.mine.Leg, e.theirs.Leg, e.mine.Leg.Right)
	switch {
	case p == toComplete && d.Action == handshake.InSync:
		d.Action, d.How = handshake.Copy, handshake.ByMap
	case p == toReturn && d.Action == handshake.Copy && m.anotherReturns(e):
		d = handshake.Decision{Action: handshake.Wait, Row: "H2"}
	case p == toComplete && d.Action == handshake.Wait && d.Row == "H3" && e.mine.Leg.Right.Legs == bothLegs:
		// Both count, and one is dead. The other may stand alone if its node ran through: else the dead one may be the only
		// leg with what was acknowledged.
		for _, l := range []handshake.Leg{e.mine.Leg, e.theirs.Leg} {
			if l.State == handshake.UpToDate && !l.Rebooted {
				return handshake.Decision{Action: handshake.Sole, Row: "H3", Source: l.Node}, p
			}
		}
	}
	return d, p
}

// anotherReturns: legs come back one at a time, in the order of the volumes: the membership takes one at a time, a disk serves
// one copy better than several, and both nodes know the same order. The caller holds mu.
func (m *Mirror) anotherReturns(e *entry) bool {
	for _, o := range m.volumes {
		if o.id >= e.id || o.mine == nil || o.theirs == nil {
			continue
		}
		legs := control.Set(o.mine.Leg.Right.Legs)
		if legs != 1 && legs != 2 {
			continue
		}
		out := o.mine.Leg
		if legs.Has(m.config.Node) {
			out = o.theirs.Leg
		}
		switch out.State {
		case handshake.Failed, handshake.Ejected, handshake.Missing:
		case handshake.New, handshake.UpToDate, handshake.Inconsistent, handshake.Outdated:
			if !o.decided || o.vol.Busy() || o.synced != nil {
				return true
			}
		}
	}
	return false
}

// decide is node a's part. The caller holds mu.
func (m *Mirror) decide(e *entry) {
	if e.decided || e.proposed || e.mine == nil || e.theirs == nil {
		return
	}
	d, p := m.evaluate(e)
	switch d.Action {
	case handshake.Wait:
		m.refuse(e, d, p)
		return
	case handshake.Refused:
		m.refuse(e, d, p)
	case handshake.InSync, handshake.Found, handshake.Copy, handshake.Sole:
	}
	e.proposed = true
	m.post(link.Decide, 0, decision{Volume: e.id, RoundA: e.mine.Round, RoundB: e.theirs.Round, Decision: d})
}

// refuse tells a person, once.
func (m *Mirror) refuse(e *entry, d handshake.Decision, p purpose) {
	if d.Code == "" || p == nothing || e.told == d.Row || p == toServe && d.Row == "H3" {
		return // of a dead leg its own node has told, and R23 follows
	}
	e.told = d.Row
	m.faultLocked(control.Fault{
		Code: d.Code, Volume: e.id,
		What: "The two legs of volume " + e.vol.Name + " cannot be brought together",
		Why:  d.Why + " (" + d.Row + ").",
		Next: "Nothing was changed on either leg. Collect a support bundle before anything else.",
	})
	if p == toComplete {
		m.failCopy(fmt.Sprintf("%s: volume %s: %s", d.Code, e.vol.Name, d.Why))
	}
}

// LaneFrame takes a frame in lane order.
func (m *Mirror) LaneFrame(l *link.Lane, f *link.Frame) error {
	switch f.Type {
	case link.Leg, link.Decide, link.CopyAsked, link.Progress, link.Finish, link.Done, link.Returned:
		err := m.message(l, f)
		if f.Payload != nil {
			block.Put(f.Payload)
		}
		return err
	default:
	}
	m.mu.Lock()
	e := m.peers[f.Volume]
	m.mu.Unlock()
	if e == nil {
		if f.Payload != nil {
			block.Put(f.Payload)
		}
		return fmt.Errorf("%w: unknown volume handle %d", link.ErrFrame, f.Volume)
	}
	return e.vol.Frame(l, f)
}

// message takes the frames that are about the volumes, not about blocks.
func (m *Mirror) message(l *link.Lane, f *link.Frame) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lane != l {
		return errors.New("the session ended")
	}
	switch f.Type {
	case link.Leg:
		var r record
		if err := parse(f, &r); err != nil {
			return err
		}
		return m.heardLeg(&r)
	case link.Decide:
		var d decision
		if err := parse(f, &d); err != nil {
			return err
		}
		return m.heardDecision(d, f.Flags&link.Last != 0)
	default:
	}
	return m.copyMessage(l, f)
}

func parse(f *link.Frame, v any) error {
	if err := json.Unmarshal(f.Payload, v); err != nil {
		return fmt.Errorf("%w: %w", link.ErrFrame, err)
	}
	return nil
}

func (m *Mirror) heardLeg(r *record) error {
	e := m.volumes[r.Volume]
	if e == nil {
		return nil // the peer's site document is newer; it will tell again on the next lane or round
	}
	if r.Handle == 0 || r.Leg.Node != uint8(m.config.Node^1) {
		return fmt.Errorf("%w: record of node %d", link.ErrFrame, r.Leg.Node)
	}
	m.peers[r.Handle] = e
	e.theirs, e.proposed = r, false
	m.weighFailed(e)
	m.reopen(e)
	if r.Leg.State == handshake.Failed && e.decided {
		e.vol.PeerFailed()
	}
	m.negotiate()
	return nil
}

// reopen takes back a decision that the records have overtaken while nothing of it is under way: a leg was taken out and
// the two are not known to be equal any more, or a leg that is out can come back. Both sides see the same two records.
func (m *Mirror) reopen(e *entry) {
	if !e.decided || e.mine == nil || e.theirs == nil || e.synced != nil || e.vol.Busy() {
		return
	}
	if was := e.agreed; was.legs == e.mine.Leg.Right.Legs && was.mine == e.mine.Leg.State && was.theirs == e.theirs.Leg.State {
		return
	}
	e.decided = false
}

func (m *Mirror) heardDecision(d decision, answer bool) error {
	e := m.volumes[d.Volume]
	if e == nil || e.mine == nil || e.theirs == nil {
		return fmt.Errorf("%w: decision without records", link.ErrFrame)
	}
	if answer {
		return m.heardAnswer(e, d)
	}
	if m.config.Node == 0 {
		return fmt.Errorf("%w: decision of node b", link.ErrFrame)
	}
	own, p := m.evaluate(e)
	fresh, ok := e.vol.Record()
	still := ok && (&record{Mode: m.grant.Mode, Leg: fresh}).same(e.mine)
	d.Agreed = still && !e.decided && e.mine.Round == d.RoundB && e.theirs.Round == d.RoundA && own.Equal(d.Decision)
	if !d.Agreed {
		m.opts.Log.Debug("decision is stale", "volume", e.id, "row", d.Decision.Row, "own", own.Row)
		m.post(link.Decide, link.Last, d)
		// Node a waits for a record only if it decided on the newest ones. Of older ones the newer is on its way, and what a
		// decides on that must not be made stale by yet another: two such decisions in flight would chase each other for ever.
		e.again = e.again || e.mine.Round == d.RoundB && e.theirs.Round == d.RoundA
		m.tell(e)
		return nil
	}
	// The answer goes out before anything that follows from it, so node a has adopted the decision first.
	m.post(link.Decide, link.Last, d)
	return m.adopt(e, own, p)
}

func (m *Mirror) heardAnswer(e *entry, d decision) error {
	if m.config.Node != 0 || !e.proposed && d.Agreed && e.mine.Round == d.RoundA {
		return fmt.Errorf("%w: answer to no decision", link.ErrFrame)
	}
	if !d.Agreed {
		if e.mine.Round == d.RoundA && e.theirs.Round == d.RoundB { // else it is about an older proposal
			e.proposed = false
		}
		m.tell(e)
		return nil
	}
	if e.mine.Round != d.RoundA || e.theirs.Round != d.RoundB {
		// Both sides have acted on records of which one has moved: begin anew (H0).
		return errors.New("a record changed while its decision was agreed")
	}
	// While a leg is armed for a newer grant its record is still the old one.
	fresh, ok := e.vol.Record()
	own, p := m.evaluate(e)
	if !ok || e.mine.Mode != m.grant.Mode || fresh.Right != e.mine.Leg.Right || !own.Equal(d.Decision) {
		return errors.New("the grant changed while a decision was agreed")
	}
	return m.adopt(e, own, p)
}

// adopt does what both sides agreed on. It only sets facts; what needs a device runs behind. The caller holds mu.
func (m *Mirror) adopt(e *entry, d handshake.Decision, p purpose) error {
	e.agreed = agreement{e.mine.Leg.Right.Legs, e.mine.Leg.State, e.theirs.Leg.State}
	m.opts.Log.Info("legs agreed", "volume", e.id, "row", d.Row, "action", d.Action, "source", d.Source, "how", d.How)
	e.decided, e.sole = true, d.Action == handshake.Sole
	switch d.Action {
	case handshake.Refused:
		m.refuse(e, d, p)
		if p == toReturn { // the leg that is out stays out, and its node's requests go to the one that counts
			e.vol.Linked(m.lane)
		}
		return m.advance()
	case handshake.InSync:
		e.vol.InStep(m.lane)
	case handshake.Found, handshake.Copy:
		if err := m.begin(e, d, p); err != nil {
			return err
		}
	case handshake.Sole:
		e.out = control.Node(d.Source) ^ 1
	case handshake.Wait:
	}
	e.vol.Linked(m.lane)
	return m.advance()
}

// begin takes this node's part in a copy.
func (m *Mirror) begin(e *entry, d handshake.Decision, p purpose) error {
	e.returning, e.recorded = false, [32]byte{}
	if control.Node(d.Source) == m.config.Node {
		return m.beginSource(e, d, p)
	}
	e.returning = p == toReturn
	excluded := !control.Set(e.mine.Leg.Right.Legs).Has(m.config.Node)
	return e.vol.BeginSink(m.lane, meta.Generation(e.theirs.Leg.Current), excluded, d.How)
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs only
	}
	return b
}
