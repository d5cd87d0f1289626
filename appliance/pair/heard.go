package pair

import (
	"fmt"

	"duet/appliance/membership"
	"duet/appliance/pair/peerlink"
	"duet/replication/control"
)

// The first byte of a session message.
const (
	kindCore byte = 1 // a membership.Message
	kindApp  byte = 2 // the composition root's; its own kind byte follows
)

// linkSaid turns what the link reports into inputs.
func (d *Driver) linkSaid(e peerlink.Event) error {
	switch e.Kind {
	case peerlink.Began:
		d.resume = peerlink.Resume{Session: e.Session, PeerIncarnation: e.PeerIncarnation}
		d.peerKey = e.PeerKey
		d.log.Info("session began", "session", fmt.Sprintf("%016x", e.Session))
		for _, body := range d.cfg.Hooks.Documents() { // they come before HELLO, in order
			d.link.Send(e.Session, append([]byte{kindApp}, body...))
		}
		if err := d.step(membership.Connected{Session: membership.Session(e.Session)}); err != nil {
			return err
		}
		d.cfg.Hooks.Began(membership.Session(e.Session), e.PeerFresh)
	case peerlink.Lost:
		d.resume = peerlink.Resume{}
		d.log.Warn("peer lost", "session", fmt.Sprintf("%016x", e.Session), "why", e.Why)
		d.trail.note("peer-lost", e.Why)
		return d.step(membership.PeerLost{Session: membership.Session(e.Session)})
	case peerlink.Message:
		return d.message(e)
	case peerlink.Loose:
		return d.coreMessage(membership.Session(e.Session), e.Body)
	}
	return nil
}

// message takes a reliable message and acknowledges it when the snapshot says that it was taken.
func (d *Driver) message(e peerlink.Event) error {
	d.resume.PeerIncarnation, d.resume.Consumed = e.PeerIncarnation, e.Sequence
	session := membership.Session(e.Session)
	if len(e.Body) > 1 && e.Body[0] == kindApp {
		if session == d.state.Session {
			d.cfg.Hooks.Told(e.Body[1], e.Body[2:])
		}
	} else if err := d.coreMessage(session, e.Body); err != nil {
		return err
	}
	if err := d.saveSnapshot(); err != nil {
		return err
	}
	d.link.Consume(e.Session, e.PeerIncarnation, e.Sequence)
	return nil
}

func (d *Driver) coreMessage(session membership.Session, body []byte) error {
	if len(body) == 0 || body[0] != kindCore {
		d.log.Warn("message of an unknown kind from the peer", "bytes", len(body))
		return nil
	}
	m, err := membership.ParseMessage(body[1:])
	if err != nil {
		d.log.Error("malformed message from the peer", "error", err.Error())
		return nil
	}
	switch m := m.(type) {
	case membership.Prepare:
		if d.state.Fresh() && session == d.state.Session {
			if err := d.cfg.Hooks.Adopt(m, d.peerKey); err != nil {
				d.log.Error("founding refused", "error", err.Error())
				d.trail.note("founding-refused", err.Error())
				return nil
			}
		}
	case membership.BeatAck:
		d.noteAck(m)
	}
	if ref, missing := d.missing(m); missing {
		d.log.Error("the peer names a document that is not here: its message is not taken", "message", fmt.Sprintf("%T", m),
			"version", ref.Version, "epoch", uint64(ref.Ep))
		d.trail.note("document-missing", fmt.Sprintf("version %d of epoch %d", ref.Version, ref.Ep))
		if _, hello := m.(membership.Hello); hello && session == d.state.Session {
			return d.sessionWithoutHello(session)
		}
		return nil // DOCPREP comes again; without its PREPARE the peer ends the session (R17)
	}
	return d.step(membership.Received{Session: session, Message: m})
}

// sessionWithoutHello ends a session whose HELLO cannot be taken: there is one HELLO in a session, and without it the core takes
// nothing else. The documents come again with the next one, which leaves time for an answer of the witness, as in dueLane.
func (d *Driver) sessionWithoutHello(session membership.Session) error {
	d.dropSession()
	d.link.Pause(laneHoldOff)
	return d.step(membership.PeerLost{Session: session})
}

// missing is a version of a document that a message names, newer than this node's, and that is not durable here. The core
// may come to record it, and a record may only name what its node holds.
func (d *Driver) missing(m membership.Message) (membership.DocRef, bool) {
	var named []membership.Docs
	switch m := m.(type) {
	case membership.Hello:
		if m.Record.Site.IsZero() || !d.state.Fresh() && m.Record.Site != d.state.Rec.Site {
			return membership.DocRef{}, false
		}
		named = append(named, m.Record.Docs, m.Record.Pending)
	case membership.Prepare:
		named = append(named, m.Tuple.Docs)
	case membership.DocPrepare:
		var one membership.Docs
		if int(m.Doc) < len(one) {
			one[m.Doc] = m.Ref
		}
		named = append(named, one)
	}
	for _, docs := range named {
		for doc, ref := range docs {
			if ref.Newer(d.state.Rec.Docs[doc]) && !d.cfg.Hooks.Holds(ref.Hash) {
				return ref, true
			}
		}
	}
	return membership.DocRef{}, false
}

// noteAck feeds the watchdog, which judges how old it is (hardware.md section 7).
func (d *Driver) noteAck(a membership.BeatAck) {
	for _, b := range d.state.Beats {
		if b.Nonce != 0 && b.Nonce == a.Nonce {
			d.pets.acked.Store(max(d.pets.acked.Load(), int64(b.Sent)))
		}
	}
}

// mirrorSaid runs on the mirror's goroutine.
func (d *Driver) mirrorSaid(e control.Event) {
	switch {
	case e.Link != nil:
		d.post(input{do: func() { d.laneIs(*e.Link) }})
	case e.CopyDone != nil:
		d.post(input{try: func() error { return d.step(d.copyDone(*e.CopyDone)) }})
	case e.CopyFailed != nil:
		d.log.Warn("copy failed", "why", e.CopyFailed.Reason)
		d.postEvent(membership.CopyFailed{Session: membership.Session(e.CopyFailed.Session)})
	case e.LegFailed != nil:
		d.post(input{do: func() { d.legFailed(*e.LegFailed) }})
	case e.LegSynced != nil:
		d.post(input{do: func() { d.legSynced(*e.LegSynced) }})
	case e.Fault != nil:
		d.cfg.Hooks.MirrorFault(*e.Fault)
	}
}

func (d *Driver) laneIs(l control.LinkEvent) {
	d.laneSeen = l
	if membership.Session(l.Session) != d.lane.session || d.lane.session == 0 {
		return
	}
	d.log.Info("data lane", "up", l.Up, "path", l.Path)
	if d.lane.up && !l.Up {
		d.lane.by = d.now() + membership.Boottime(laneLost)
	}
	d.lane.up, d.lane.path = l.Up, l.Path
	d.publish()
}

// mirrorGone returns when the core knows that duet-mirrord is gone. Only then may the next process be granted anything:
// it knows nothing of a copy that the one before reported and held writes for. A solo grant of before, given to it while
// PREPARED waits behind a slow disk, would let it acknowledge alone what the commit then counts as on both legs (R14).
func (d *Driver) mirrorGone() {
	known := make(chan struct{})
	d.post(input{do: func() { d.mirrorLost(known) }})
	select {
	case <-known:
	case <-d.done:
	}
}

// mirrorLost: without duet-mirrord there is no lane, and a copy has ended. It runs in the loop.
func (d *Driver) mirrorLost(known chan struct{}) {
	d.laneSeen = control.LinkEvent{}
	if d.lane.up {
		d.lane.up, d.lane.path = false, ""
		d.lane.by = d.now() + membership.Boottime(laneLost)
	}
	session := d.state.Session
	d.wg.Go(func() {
		if session != 0 {
			d.postEvent(membership.CopyFailed{Session: session})
		}
		d.post(input{try: d.forgetLegs})
		d.post(input{do: func() { close(known) }})
	})
}

func (d *Driver) report(c membership.ReportCode) {
	d.log.Info("report", "what", c.String(), "mode", d.state.Mode.String(), "epoch", d.state.Rec.Ep)
	if c != membership.ReportFencing && c != membership.ReportFenceUnknown { // every 2 s; the evidence is noted in fence
		d.trail.note(c.String(), "")
	}
	d.cfg.Hooks.Reported(c)
}
