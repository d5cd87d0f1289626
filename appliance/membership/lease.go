package membership

// r11Beat: R11, each committed node beats the other, so there are two leases.
func (t *turn) r11Beat() {
	if t.s.Committed() {
		t.beat()
	}
}

// beat sends one and remembers when: the lease runs from the send time.
func (t *turn) beat() {
	s := &t.s
	oldest := 0
	for i, b := range s.Beats {
		if b.Nonce == 0 {
			oldest = i
			break
		}
		if b.Sent < s.Beats[oldest].Sent {
			oldest = i
		}
	}
	nonce := t.in.Fresh
	if mutant("M28") {
		nonce = 1 + nonce%2
	}
	s.Beats[oldest] = SentBeat{nonce, t.in.Now}
	t.send(BeatMsg{nonce, s.Rec.Ep, s.Rec.Prep.Ep, s.Rec.Arb})
}

// r11Receive: peerWait first, then the ack: with the ack the peer may run for L.
func (t *turn) r11Receive(b BeatMsg) {
	if t.s.Mode != Paired {
		return
	}
	if !mutant("R11 wait") {
		t.s.PeerWait = t.in.Now + t.s.Cfg.PeerWait
	}
	t.peerSaid(b.Ep, b.Prep, b.Arb)
	t.send(BeatAck{b.Nonce, t.s.Rec.Ep, t.s.Rec.Prep.Ep, t.s.Rec.Arb})
}

// r11Ack extends the lease. Beats whose ack could no longer extend it are forgotten.
func (t *turn) r11Ack(a BeatAck) {
	s := &t.s
	if !s.Committed() {
		return
	}
	t.peerSaid(a.Ep, a.Prep, a.Arb)
	for i, b := range s.Beats {
		if b.Nonce == 0 || b.Nonce != a.Nonce {
			continue
		}
		s.Beats[i] = SentBeat{}
		from := b.Sent
		if mutant("M3") {
			from = t.in.Now
		}
		t.extend(from + s.Cfg.Lease)
	}
}

func (t *turn) extend(until Boottime) {
	s := &t.s
	if until <= s.Lease || until <= t.in.Now {
		return
	}
	s.Lease = until
	for i, b := range s.Beats {
		if b.Sent+s.Cfg.Lease <= until {
			s.Beats[i] = SentBeat{}
		}
	}
	t.grant()
	t.armLease()
}

// r11LeaseEnd: the lease guard has killed already; this makes the state and the grant say so. In a session a node keeps
// its lanes: it only loses the right to run and read. Revoking would end what duet-mirrord holds since a barrier, and the beat
// that brings the lease back would release writes that the barrier's proof does not know (seed lease-end-in-barrier).
func (t *turn) r11LeaseEnd() {
	s := &t.s
	if s.Mode == Solo || s.Lease == 0 || t.in.Now < s.Lease {
		return
	}
	t.stopAll()
	if s.Mode == Resolving || s.Prepared() || s.Committed() && !mutant("R24 lease") {
		s.Lease = 0
		t.grant()
	} else {
		t.revoke()
	}
	t.report(ReportLeaseEnded)
}

// peerSaid notes the hints of a beat. One that shows our epoch committed ends the repeats of COMMIT.
func (t *turn) peerSaid(ep, prep Epoch, arb Arb) {
	s := &t.s
	s.Peer.Ep, s.Peer.Prep = ep, prep
	if s.Committing && ep == s.Rec.Ep && prep == 0 {
		s.Committing = false
	}
	t.r21aShown(arb)
}
