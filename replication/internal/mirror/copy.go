package mirror

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"duet/replication/control"
	"duet/replication/handshake"
	"duet/replication/link"
	"duet/replication/meta"
	"duet/replication/volume"
)

// copyState is the copy of one session: the volumes of which this node is the source, the results so far.
type copyState struct {
	session uint64
	ordered bool // this node's duetd ordered it: this node coordinates
	asked   bool // known on this lane
	sources map[string]*work
	results map[string]volume.Result // proved, both nodes' sources; on the coordinator
	ending  bool
	closing bool // the coordinator has begun the end
	failed  bool
	done    *control.CopyDone
}

// work is one volume of which this node is the source.
type work struct {
	e     *entry
	s     *volume.Source
	fresh bool // H4: the volume gets its first generation
}

// restart forgets what belongs to a lane; the order and a completed copy stay.
func (c *copyState) restart() {
	c.asked, c.ending, c.closing = false, false, false
	c.sources, c.results = map[string]*work{}, map[string]volume.Result{}
}

// end forgets everything: another session.
func (c *copyState) end() {
	*c = copyState{sources: map[string]*work{}, results: map[string]volume.Result{}}
}

// asked is the COPY message.
type asked struct{ Volumes []string }

// Copy begins the copy of a session, as duetd of this node ordered.
func (m *Mirror) Copy(session uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if session == 0 || session != m.grant.Session {
		return fmt.Errorf("the grant is of session %d", m.grant.Session)
	}
	if m.grant.Mode != control.Solo && m.grant.Mode != control.Resolving {
		return fmt.Errorf("no copy is coordinated in mode %d", m.grant.Mode)
	}
	if m.copy.session == session && m.copy.done != nil {
		done := *m.copy.done
		m.emit(control.Event{CopyDone: &done})
		return nil
	}
	if m.copy.session == session && m.copy.ordered {
		return nil
	}
	m.copy.session, m.copy.ordered = session, true
	if m.copy.sources == nil {
		m.copy.restart()
	}
	if m.lane != nil && m.lane.Session == session {
		m.askCopy()
		m.negotiate()
	}
	return nil
}

// askCopy tells the peer. The caller holds mu and there is a lane.
func (m *Mirror) askCopy() {
	if m.copy.done != nil {
		return
	}
	m.copy.asked = true
	m.post(link.CopyAsked, 0, asked{m.grantedVolumes()})
}

// grantedVolumes lists the volumes of the grant.
func (m *Mirror) grantedVolumes() []string {
	var ids []string
	for _, vg := range m.grant.Volumes {
		ids = append(ids, vg.Volume)
	}
	slices.Sort(ids)
	return ids
}

// failCopy reports the end of a copy, once per session.
func (m *Mirror) failCopy(reason string) {
	if m.copy.failed || m.copy.session == 0 {
		return
	}
	m.copy.failed = true
	m.emit(control.Event{CopyFailed: &control.CopyFailed{Session: m.copy.session, Reason: reason}})
}

// copyMessage takes the frames of a copy. The caller holds mu.
func (m *Mirror) copyMessage(l *link.Lane, f *link.Frame) error {
	switch f.Type {
	case link.CopyAsked:
		var a asked
		if err := parse(f, &a); err != nil {
			return err
		}
		if !slices.Equal(a.Volumes, m.grantedVolumes()) {
			return errors.New("the grants of the nodes name different volumes")
		}
		if m.copy.session != l.Session {
			m.copy.end()
			m.copy.session = l.Session
		}
		m.copy.asked = true
		m.negotiate()
		return m.advance()
	case link.Progress:
		var results []volume.Result
		if err := parse(f, &results); err != nil {
			return err
		}
		for _, r := range results {
			m.copy.results[r.Volume] = r
		}
		return m.advance()
	case link.Finish:
		var results []volume.Result
		if err := parse(f, &results); err != nil {
			return err
		}
		request := f.Request
		m.spawn(func() { m.finishHere(l, results, request) })
	case link.Done:
		var results []volume.Result
		if err := parse(f, &results); err != nil {
			return err
		}
		m.completed(l, results)
	case link.Returned:
		var synced control.LegSynced
		if err := parse(f, &synced); err != nil {
			return err
		}
		m.heardReturned(synced)
	default:
		return fmt.Errorf("%w: type %d", link.ErrFrame, f.Type)
	}
	return nil
}

// beginSource makes this node the source of a volume. The caller holds mu.
func (m *Mirror) beginSource(e *entry, d handshake.Decision, p purpose) error {
	s, err := e.vol.BeginSource(m.lane, d.How, p != toServe)
	if err != nil {
		return err
	}
	w := &work{e: e, s: s, fresh: d.Action == handshake.Found}
	l := m.lane
	switch p {
	case toServe:
		m.spawn(func() { m.reconcile(l, w) })
		return nil
	case toReturn:
		m.spawn(func() { m.giveBack(l, w) })
		return nil
	case toComplete, nothing:
	}
	m.copy.sources[e.id] = w
	return nil
}

// generation that the volume has after the copy.
func (m *Mirror) generation(w *work) meta.Generation {
	g := w.e.vol.Generation()
	if w.fresh && g.IsZero() {
		return volume.NewGeneration(max(m.grant.Epoch, m.grant.Prepared))
	}
	return g
}

// reconcile makes the legs of one volume equal inside a session; both count, so nothing needs to be proved to
// the membership: the compare was of every block that may differ.
func (m *Mirror) reconcile(l *link.Lane, w *work) {
	err := w.s.Run()
	if err == nil {
		err = w.s.Hold()
	}
	if err == nil {
		err = w.s.Flush()
	}
	if err == nil {
		m.mu.Lock()
		r := volume.Result{Volume: w.e.id, Generation: m.generation(w), Epoch: m.grant.Epoch}
		m.mu.Unlock()
		if w.fresh {
			err = w.e.vol.Found(r.Generation)
		}
		if err == nil {
			err = m.sendFinish(l, []volume.Result{r})
		}
		if err == nil {
			err = w.e.vol.FinishSource(l, r)
		}
	}
	if err != nil {
		l.Close(fmt.Errorf("reconcile of volume %s: %w", w.e.id, err))
	}
}

// giveBack brings one leg that was taken out up to date while the volume is served from this one, and proves it. What
// follows is the membership's (R24); until its grant comes, writes are held. The target reports after this node has: from
// its report on it may count as in sync, so nothing may be acknowledged here alone.
func (m *Mirror) giveBack(l *link.Lane, w *work) {
	works := []*work{w}
	results, err := m.copyAndProve(works)
	if err == nil {
		err = m.sendFinish(l, results)
	}
	if err == nil {
		err = w.e.vol.FinishSource(l, results[0])
	}
	if err != nil {
		l.Close(fmt.Errorf("return of a leg of volume %s: %w", w.e.id, err))
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lane == l && m.legSynced(w.e, digestOf(results)) {
		m.post(link.Returned, 0, w.e.synced)
	}
}

// legSynced reports the end of a return, on either node. The caller holds mu.
func (m *Mirror) legSynced(e *entry, digest [32]byte) bool {
	r := m.rightOf(e.id)
	if r.Legs == bothLegs || m.grant.Mode != control.Paired {
		return false
	}
	e.synced = &control.LegSynced{Volume: e.id, Session: m.grant.Session, LegsVersion: r.Version, Digest: digest}
	synced := *e.synced
	m.emit(control.Event{LegSynced: &synced})
	return true
}

// heardReturned is the target's part: it has recorded the same end before, maybe on an earlier lane.
func (m *Mirror) heardReturned(s control.LegSynced) {
	e := m.volumes[s.Volume]
	if e == nil || e.recorded != s.Digest || s.Session != m.grant.Session || e.synced != nil {
		return
	}
	m.legSynced(e, s.Digest)
}

// sendFinish waits until the peer has recorded the end.
func (m *Mirror) sendFinish(l *link.Lane, results []volume.Result) error {
	done := make(chan error, 1)
	f := &link.Frame{Type: link.Finish, Payload: encode(results)}
	l.Send(f, func(status uint32, err error) {
		if err == nil && status != 0 {
			err = errors.New("the other node did not record the end of the copy")
		}
		done <- err
	})
	return <-done
}

// advance starts what is due: the copy of all own sources when every volume is decided, and on the coordinator
// the end when every volume is proved. The caller holds mu.
func (m *Mirror) advance() error {
	c := &m.copy
	if !c.asked || m.lane == nil {
		return nil
	}
	ids := m.grantedVolumes()
	for _, id := range ids {
		if e := m.volumes[id]; e == nil || !e.decided {
			return nil
		}
	}
	if !c.ending && c.sources != nil {
		c.ending = true
		l, works := m.lane, sorted(c.sources)
		m.spawn(func() { m.complete(l, works) })
	}
	if !c.ordered || c.closing {
		return nil
	}
	all := make([]volume.Result, 0, len(ids))
	for _, id := range ids {
		if m.volumes[id].sole {
			continue
		}
		r, ok := c.results[id]
		if !ok {
			return nil
		}
		all = append(all, r)
	}
	c.closing = true
	l := m.lane
	m.spawn(func() { m.conclude(l, all) })
	return nil
}

func sorted(sources map[string]*work) []*work {
	out := make([]*work, 0, len(sources))
	for _, w := range sources {
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b *work) int { return cmp.Compare(a.e.id, b.e.id) })
	return out
}

// complete copies and proves every volume of which this node is the source: one after the other, then all are
// held together for the proof, so that it speaks of one moment.
func (m *Mirror) complete(l *link.Lane, works []*work) {
	results, err := m.copyAndProve(works)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lane != l {
		return
	}
	if err != nil {
		m.opts.Log.Warn("copy", "error", err)
		if errors.Is(err, errProof) {
			m.failCopy(err.Error())
		}
		l.Close(err)
		return
	}
	if !m.copy.ordered {
		m.post(link.Progress, 0, results)
		return
	}
	for _, r := range results {
		m.copy.results[r.Volume] = r
	}
	if err := m.advance(); err != nil {
		l.Close(err)
	}
}

// errProof: the legs stayed different although everything was copied.
var errProof = errors.New("REPL-2005: the legs differ after the copy: a disk or a cache loses writes")

// proofRounds is how often the differing extents are copied again before the copy fails.
const proofRounds = 3

func (m *Mirror) copyAndProve(works []*work) ([]volume.Result, error) {
	for _, w := range works {
		if err := w.s.Run(); err != nil {
			return nil, err
		}
	}
	for range proofRounds {
		results, equal, err := m.proofRound(works)
		if err != nil || equal {
			for _, w := range works {
				w.s.Proved()
			}
			return results, err
		}
		for _, w := range works {
			w.s.Release()
		}
	}
	return nil, errProof
}

// proofRound holds everything and compares all roots. On success the hold stays: until the next grant.
func (m *Mirror) proofRound(works []*work) (results []volume.Result, equal bool, err error) {
	for _, w := range works {
		if err := w.s.Hold(); err != nil {
			return nil, false, err
		}
	}
	equal = true
	for _, w := range works {
		root, same, err := w.s.Prove()
		if err != nil {
			return nil, false, err
		}
		if !same {
			equal = false
			m.fault(control.Fault{
				Code: "REPL-2005", Volume: w.e.id,
				What: "A copy of volume " + w.e.vol.Name + " was not identical",
				Why:  "The digests of both legs differ although every difference was sent.",
				Next: "The differing parts are copied again. If it repeats, replace the drive of the target node.",
			})
			continue
		}
		m.mu.Lock()
		results = append(results, volume.Result{
			Volume: w.e.id, Generation: m.generation(w), Root: root, Epoch: m.grant.Epoch,
		})
		m.mu.Unlock()
	}
	return results, equal, nil
}

// conclude is the coordinator's end of the copy: the peer records, this node records, both report.
func (m *Mirror) conclude(l *link.Lane, all []volume.Result) {
	err := m.sendFinish(l, all)
	if err == nil {
		err = m.recordResults(l, all)
	}
	if err != nil {
		l.Close(fmt.Errorf("end of the copy: %w", err))
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lane != l {
		return
	}
	m.post(link.Done, 0, all)
	m.completed(l, all)
}

// finishHere is the peer's part of Finish.
func (m *Mirror) finishHere(l *link.Lane, results []volume.Result, request uint32) {
	status := uint32(0)
	if err := m.recordResults(l, results); err != nil {
		m.opts.Log.Error("end of a copy not recorded", "error", err)
		status = 1
	}
	m.mu.Lock()
	if len(results) == 1 && status == 0 {
		if e := m.volumes[results[0].Volume]; e.returning {
			e.recorded = digestOf(results)
		}
	}
	m.mu.Unlock()
	l.Ack(request, status)
}

// recordResults makes the end durable for each volume, as its source or as its target.
func (m *Mirror) recordResults(l *link.Lane, results []volume.Result) error {
	for _, r := range results {
		m.mu.Lock()
		e, w := m.volumes[r.Volume], m.copy.sources[r.Volume]
		m.mu.Unlock()
		if e == nil {
			return fmt.Errorf("unknown volume %s", r.Volume)
		}
		var err error
		if w != nil {
			err = e.vol.FinishSource(l, r)
		} else {
			err = e.vol.FinishSink(l, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// completed reports. The caller holds mu.
func (m *Mirror) completed(l *link.Lane, results []volume.Result) {
	out := m.leftOut()
	done := control.CopyDone{Session: l.Session, Digest: digestOf(results, out[0], out[1]), Out: out}
	m.copy.session, m.copy.done = l.Session, &done
	m.opts.Log.Info("copy done", "session", l.Session, "volumes", len(results))
	event := done
	m.emit(control.Event{CopyDone: &event})
}

// leftOut are the volumes whose leg of a node is broken and stays out, by node, in order. The caller holds mu.
func (m *Mirror) leftOut() (out [2][]string) {
	for _, id := range m.grantedVolumes() {
		if e := m.volumes[id]; e != nil && e.sole {
			out[e.out] = append(out[e.out], id)
		}
	}
	return out
}

// digestOf binds volumes, generations and roots, and which legs of each node were left out.
func digestOf(results []volume.Result, out ...[]string) [32]byte {
	results = slices.SortedFunc(slices.Values(results), func(a, b volume.Result) int { return cmp.Compare(a.Volume, b.Volume) })
	h := sha256.New()
	for _, r := range results {
		fmt.Fprintf(h, "%s %d %d %x\n", r.Volume, r.Generation.Epoch, r.Generation.Nonce, r.Root)
	}
	for node, ids := range out {
		for _, id := range ids {
			fmt.Fprintf(h, "%s without %d\n", id, node)
		}
	}
	return [32]byte(h.Sum(nil))
}
