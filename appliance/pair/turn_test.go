package pair

import (
	"fmt"
	"testing"

	"duet/appliance/membership"
	"duet/appliance/pair/peerlink"
	"duet/replication/control"
)

// A timer that a step of the same pass has set anew fires at its new time, not at the old one (membership duty 3).
func TestATimerSetAnewInAPassKeepsItsTime(t *testing.T) {
	r := newDrainRig(t)
	r.cfg.RunDir, r.link = t.TempDir(), peerlink.New(peerlink.Config{})
	r.cfg.Hooks.Reported = func(membership.ReportCode) {}
	st := &r.state
	st.Rec = membership.Record{
		Seq: 1, Site: membership.ID{1}, Ep: 1, High: 1, Members: membership.Both, Consistent: true,
		Arb: membership.Arb{Kind: membership.ArbWitness, RID: testRID},
	}
	now := r.now()
	r.timers[membership.TimerArbitrate], r.timers[membership.TimerRepeat] = now, now
	if err := r.dueTimers(now); err != nil {
		t.Fatal(err)
	}
	r.heard(membership.Timer{Timer: membership.TimerArbitrate})
	if at := r.timers[membership.TimerRepeat]; st.Ask.Nonce == 0 || at < now+st.Cfg.AskAgain {
		t.Errorf("asks again %d ns after it began", at-now)
	}
}

// There is one HELLO in a session: one that cannot be taken, for want of a document, ends it, and the next brings both.
func TestAHelloWithoutItsDocumentEndsTheSession(t *testing.T) {
	for doc := range len(membership.Docs{}) {
		t.Run(fmt.Sprint("document ", doc), func(t *testing.T) { helloWithout(t, membership.DocID(doc)) }) //nolint:gosec // two
	}
}

func helloWithout(t *testing.T, doc membership.DocID) {
	r := newRig(t)
	here := false
	d, stop, _ := r.run(func(d *Driver) { d.cfg.Hooks.Holds = func(membership.Digest) bool { return here } })
	until(t, "solo", func() bool { return d.View().State.Mode == membership.Solo && r.mirror.mode() == control.Solo })
	hello := membership.Hello{Record: r.recordOnDisk()}
	hello.Record.Ep, hello.Record.High, hello.Record.Members = 1, 1, membership.Both
	hello.Record.Docs[doc] = membership.DocRef{Ep: 1, Version: 9, Hash: membership.Digest{9}}
	said := func(e peerlink.Event) {
		d.post(input{try: func() error { return d.linkSaid(e) }})
	}
	session := func(id uint64) {
		said(peerlink.Event{Kind: peerlink.Began, Session: id, PeerIncarnation: 1})
		said(peerlink.Event{
			Kind: peerlink.Message, Session: id, PeerIncarnation: 1, Sequence: 1,
			Body: append([]byte{kindCore}, membership.MarshalMessage(hello)...),
		})
	}
	ask := func() (st membership.State, resume peerlink.Resume) {
		seen := make(chan struct{})
		d.post(input{do: func() { st, resume = d.state, d.resume; close(seen) }})
		await(t, "the loop", seen)
		return st, resume
	}
	session(5)
	if st, resume := ask(); st.Session != 0 || resume.Session != 0 || st.Peer.Hello {
		t.Errorf("session %d goes on without a HELLO (%d)", st.Session, resume.Session)
	}
	d.post(input{do: func() { here = true }})
	session(6)
	if st, _ := ask(); st.Session != 6 || !st.Peer.Hello {
		t.Errorf("session %d: its HELLO was not taken", st.Session)
	}
	_ = stop()
	r.sane()
}
