package membership

// Step is the whole protocol of one node: what it becomes and what it must do when in happens.
// It is total (every input is legal in every state; one without a matching rule changes nothing) and pure.
func Step(s State, in Input) (State, []Effect) {
	t := turn{s: s, in: in}
	t.take(in.Event)
	return t.s, mutateOrder(t.out)
}

// turn is one Step in progress.
type turn struct {
	s   State
	in  Input
	out []Effect
}

func (t *turn) take(e Event) {
	switch e := e.(type) {
	case Boot:
		t.r1Boot(e.Record)
	case Resume:
		t.resume()
	case Connected:
		t.r2Connected(e.Session)
	case PeerLost:
		if t.s.Session != 0 && e.Session == t.s.Session {
			t.r3PeerLost()
		}
	case Received:
		if t.s.Session != 0 && (e.Session == t.s.Session || mutant("M8")) {
			t.receive(e.Message)
		}
	case Timer:
		t.timer(e.Timer)
	case Beat:
		t.r11Beat()
	case WitnessReply:
		t.witnessReply(e)
	case FenceResult:
		t.r10Result(e)
	case CopyDone:
		t.copyDone(e)
	case CopyFailed:
		t.copyFailed(e.Session)
	case Want:
		t.want(e.Resource)
	case Found:
		t.r27Found(e)
	case PeerPowered:
		t.r10bPowered(e.OK)
	case Drained:
		t.r22Drained(e)
	default:
		t.order(e)
	}
}

// order is what a person or a manager asks for. A refused one changes nothing; Allows has told why.
func (t *turn) order(e Event) {
	if why := t.s.Allows(e); why != Granted {
		t.report(ReportOrderRefused)
		return
	}
	switch e := e.(type) {
	case Leave:
		t.r18Leave()
	case Move:
		t.r22Drain(e.Resource)
	case SetArbiter:
		t.setArbiter(e.Kind)
	case PeerOff:
		t.r26PeerOff()
	case ForceSolo:
		t.r26Force(e.Text)
	case ChangeDoc:
		t.r25Change(e)
	case LegFailed:
		t.r23Failed(e.Volume)
	case LegSynced:
		t.r24Synced(e)
	}
}

func (t *turn) receive(m Message) {
	if h, ok := m.(Hello); ok {
		t.hello(h.Record)
		return
	}
	if !t.s.Peer.Hello { // HELLO is the first message of a session (section 5.2)
		return
	}
	switch m := m.(type) {
	case Join:
		t.r12bJoin(m)
	case Prepare:
		t.r15Prepare(m)
	case PreparedMsg:
		t.r16Prepared(m.Ep)
	case Commit:
		t.r16bCommit(m.Ep)
	case BeatMsg:
		t.r11Receive(m)
	case BeatAck:
		t.r11Ack(m)
	case Yield:
		t.r18Yield(m.Record)
	case Give:
		t.r22Take(m)
	case Taken:
		t.r22Taken(m)
	default:
		t.receiveChange(m)
	}
}

// receiveChange: arbitration, documents, legs.
func (t *turn) receiveChange(m Message) {
	switch m := m.(type) {
	case WDrop:
		t.r21aDrop(m)
	case WDropped:
		t.r21aDropped(m)
	case WSet:
		t.r21aSet(m)
	case DocPrepare:
		t.r25Prepare(m)
	case DocPrepared:
		t.r25Prepared(m)
	case DocCommit:
		t.r25Commit(m)
	case LegBad:
		t.r23Bad(m.Volume)
	case LegOut:
		t.r23Out(m)
	case LegOutOK:
		t.r23OutOK(m)
	case LegPrepare:
		t.r24Prepare(m)
	case LegPrepared:
		t.r24Prepared(m)
	case LegCommit:
		t.r24Commit(m)
	}
}

func (t *turn) timer(id TimerID) {
	switch id {
	case TimerArbitrate:
		t.r4Arbitrate()
	case TimerFence:
		t.r10Fence()
	case TimerPowerOn:
		t.r10bPowerOn()
	case TimerPrepare:
		t.r17TooLate()
	case TimerLease:
		t.r11LeaseEnd()
	case TimerPeerWait:
		t.r8WaitOver()
	case TimerRepeat:
		t.repeat()
	}
}

// do appends effects.
func (t *turn) do(e ...Effect) { t.out = append(t.out, e...) }

func (t *turn) report(c ReportCode) { t.do(Report{c}) }

func (t *turn) send(m Message) { t.do(Send{m}) }

// arm sets a timer, never at 0, which would disarm it.
func (t *turn) arm(id TimerID, at Boottime) { t.do(Arm{id, max(at, 1)}) }

// persist makes r the record. The remembered R of R7 and the fence attempt are beliefs about the old one.
func (t *turn) persist(r Record) {
	old := t.s.Rec
	r.Seq = old.Seq + 1
	r.High = max(old.High, r.High, r.Ep, r.Prep.Ep)
	if r.Ep != old.Ep || r.Members != old.Members || r.Prep != old.Prep || r.Arb != old.Arb {
		t.forget()
	}
	if r.Ep != old.Ep {
		t.cancelFence()
		if !mutant("N22") {
			t.s.Create = Create{} // its content is no longer true
		}
	}
	t.s.Rec = r
	t.do(Persist{r})
}

// forget is R7's second half: kept across a session or a record change, R splits the brain (M29).
func (t *turn) forget() {
	if !mutant("M29") {
		t.s.Remembered = RegisterContent{}
	}
}

// cancelFence: a late result changes nothing, because its id is dead.
func (t *turn) cancelFence() {
	if t.s.Fence != 0 && !mutant("N7b") {
		t.s.Fence = 0
		t.do(CancelFence{})
	}
}

func (t *turn) stopAll() { t.do(Stop{All: true}) }

// stop kills these; nothing for the empty set.
func (t *turn) stop(rs Resources) {
	if rs != 0 {
		t.do(Stop{Resources: rs})
	}
}

// revoke empties the lease too (R11).
func (t *turn) revoke() {
	t.s.Lease = 0
	t.do(Revoke{})
}

// to changes the mode by the table of modes.go.
func (t *turn) to(m Mode) {
	checkTransition(t.s.Mode, m)
	if m != t.s.Mode {
		t.cancelFence() // evidence was asked for by what this node no longer is (R21b)
	}
	t.s.Mode = m
}
