package fence

// The planner: what to ask and to switch, and when the node counts as off. It has no clock, no socket and no random
// source; every time is inside an input. Rules P1-P9 of hardware.md section 4.3 are cited where they are carried out.

// Boottime is nanoseconds on CLOCK_BOOTTIME; 0 is never, or none.
type Boottime int64

// Second on CLOCK_BOOTTIME.
const Second Boottime = 1_000_000_000

// The times of a run, and their reasons.
const (
	bmcPoll      = Second / 4  // between readings
	bmcApart     = Second / 5  // from one answer to the next question: closer, two readings are one, as a BMC may answer from a cache
	bmcRepeat    = Second      // between commands
	bmcSilence   = 2 * Second  // without any answer: the outlets begin (P3); two tries of one datagram
	bmcDeadline  = 5 * Second  // a BMC alone has this long (P2)
	outletsPoll  = Second / 2  // between readings of the PDU
	outletsRetry = Second      // between commands to the PDU
	holdUp       = Second      // a power supply's capacitors feed a node for up to this long after its outlet went off
	runDeadline  = 10 * Second // P3
	lookDeadline = 2 * Second  // a run that may not switch: a silent BMC is known by then
	meterLag     = 3 * Second  // a meter shows averages: what it says is old by up to this
)

// BMCAnswer is what a request to the BMC came to.
type BMCAnswer uint8

// The answers of a BMC.
const (
	BMCSilent   BMCAnswer = iota // nothing, or nothing that can be believed
	BMCSaysOff                   // authenticated, and it is the peer's BMC
	BMCSaysOn                    // likewise
	BMCDone                      // the command was taken
	BMCRejected                  // the command was not
	BMCNoLogin                   // it answers and does not let this node in
	BMCStranger                  // it answers and is another system's BMC
)

// PDUAnswer is what a request to the PDU came to.
type PDUAnswer uint8

// The answers of a PDU.
const (
	PDUSilent  PDUAnswer = iota // nothing, or nothing that can be believed
	OutletsOn                   // all of the node's outlets read on
	OutletsMix                  // some on, some off
	OutletsOut                  // all read off, and no earlier "on" is on its way
	PDUDone                     // the commands were taken
	PDURefused                  // they were not, or it is another device
)

// Load is what the meters of all outlets of the node say together, against what the live test learned.
type Load uint8

// The loads.
const (
	LoadUnknown Load = iota // not metered, or nothing was learned
	LoadNone                // as with the outlets off
	LoadDraws               // more than that
	LoadRuns                // more than a node in standby, by far
)

// Input is one thing that happened.
type Input interface{ input() }

type (
	// Begin starts a run. UseBMC and UseOutlets are the paths that there are; outlets without a valid map proof are
	// none. Means is what may be switched (R21b). RelayOnly is a PDU that nothing tells from another: what it says is
	// no evidence. Strict wants both to say off.
	Begin struct {
		Now                Boottime
		UseBMC, UseOutlets bool
		Means              Means
		Until              Boottime // zero: runDeadline
		RelayOnly, Strict  bool
	}

	// Woke is the timer of Wake.
	Woke struct{ Now Boottime }

	// BMCReplied ends an AskBMC or DownBMC that was sent at Sent.
	BMCReplied struct {
		Now, Sent Boottime
		Answer    BMCAnswer
	}

	// PDUReplied ends a ReadOutlets or OutletsDown that was sent at Sent.
	PDUReplied struct {
		Now, Sent Boottime
		Answer    PDUAnswer
		Load      Load
	}

	// Cancelled: the session is back, or the peer stated that it stopped (P6).
	Cancelled struct{}
)

func (Begin) input()      {}
func (Woke) input()       {}
func (BMCReplied) input() {}
func (PDUReplied) input() {}
func (Cancelled) input()  {}

// Effect is one thing to do.
type Effect interface{ effect() }

type (
	// AskBMC asks for identity and power state in one session.
	AskBMC struct{}
	// DownBMC commands power down, hard.
	DownBMC struct{}
	// ReadOutlets reads all outlets of the node over a new connection.
	ReadOutlets struct{}
	// OutletsDown switches all outlets of the node off.
	OutletsDown struct{}
	// Wake asks for Woke at that time; it replaces the last Wake.
	Wake struct{ At Boottime }
	// Finish ends the run. Nothing is sent after it.
	Finish struct {
		Kind    Kind
		Verdict Verdict
		Seen    Seen
		At      Boottime // of the last read-back
		Why     Reason
	}
)

func (AskBMC) effect()      {}
func (DownBMC) effect()     {}
func (ReadOutlets) effect() {}
func (OutletsDown) effect() {}
func (Wake) effect()        {}
func (Finish) effect()      {}

// Reason is why a run ended as it did.
type Reason uint8

// The reasons.
const (
	NoReason      Reason = iota
	SeenOff              // read off, twice
	BMCStaysOn           // the BMC says "on" at the deadline, or rejected the command
	OutletsStayOn        // an outlet reads "on" at the deadline
	NobodyAnswers        // no path said anything that can be believed
	WrongBMC             // the BMC is another system's: a swapped address could switch this node off
	Contradiction        // the outlets read off and the BMC still answers: they do not feed this node
	WasCancelled         // P6
	NoMeans              // no path may be used
	StillDraws           // the outlets read off and power flows: a stuck relay or a crossed outlet
	RunsThough           // the BMC says off and the node draws as a running one
	RelaysOff            // the relays say off, and this product cannot say more
	NotMyTurn            // it is on, and this run might not switch
)

// State is a run in progress. The zero State has not begun.
type State struct {
	Begun, Finished bool
	Start, Until    Boottime
	Means           Means
	Strict          bool
	BMC             BMCState
	PDU             PDUState
}

// BMCState is what a run knows by the BMC.
type BMCState struct {
	Use, Busy  bool
	Last       BMCAnswer // the newest reading: BMCSaysOff, BMCSaysOn, or BMCSilent before the first
	Heard      bool      // it answered a reading at least once
	AnswerSent Boottime  // when the newest answered reading was sent
	AnsweredAt Boottime  // when the newest answer of any kind came: until then it had power
	FirstOff   Boottime  // when the first of the successive "off" came; zero: none
	NextAsk    Boottime
	Commanded  Boottime // last power down; zero: none
	Rejected   bool
	Out        bool // the path is over for this run: no login
	Off        bool // two successive "off" were seen (P9: silence does not undo it)
}

// PDUState is what a run knows by the PDU.
type PDUState struct {
	Use, Busy bool
	Looked    bool      // the first reading came back: P1 reads before anything is switched
	Switching bool      // P3 has begun
	Last      PDUAnswer // the newest reading
	FirstOff  Boottime  // when the first of the successive all-off readings was asked for; zero: none
	LastOff   Boottime  // and the newest of them
	NextRead  Boottime
	Commanded Boottime // last command; zero: none
	Done      bool     // a command was acknowledged
	RelayOnly bool
	Load      Load     // the newest that is known
	LoadSent  Boottime // when it was asked for
	FirstNone Boottime // when the first of the successive readings without load was asked for; zero: none
}

// Step is the planner. It is total: every input is legal in every state.
func Step(s State, in Input) (State, []Effect) {
	if s.Finished {
		return s, nil
	}
	var now Boottime
	switch in := in.(type) {
	case Begin:
		if s.Begun {
			return s, nil
		}
		s = begin(in)
		now = in.Now
	case Cancelled:
		return finish(s, Finish{Why: WasCancelled})
	case Woke:
		now = in.Now
	case BMCReplied:
		now = in.Now
		if in.Answer == BMCStranger { // P1: nothing is believed and nothing is switched
			return finish(s, Finish{Why: WrongBMC})
		}
		s.BMC = s.BMC.heard(in)
	case PDUReplied:
		now = in.Now
		s.PDU = s.PDU.heard(in)
	}
	if !s.Begun {
		return s, nil
	}
	if end, ok := judge(s, now); ok {
		return finish(s, end)
	}
	return act(s, now)
}

func begin(in Begin) State {
	s := State{Begun: true, Start: in.Now, Until: in.Until, Means: in.Means, Strict: in.Strict}
	deadline := in.Now + runDeadline
	if in.Means == Looking {
		deadline = in.Now + lookDeadline
	}
	if s.Until == 0 || s.Until > deadline {
		s.Until = deadline
	}
	s.BMC = BMCState{Use: in.UseBMC, NextAsk: in.Now}
	s.PDU = PDUState{Use: in.UseOutlets, NextRead: in.Now, RelayOnly: in.RelayOnly}
	return s
}

func finish(s State, end Finish) (State, []Effect) {
	s.Finished = true
	return s, []Effect{end}
}

func (b BMCState) heard(in BMCReplied) BMCState {
	b.Busy = false
	b.NextAsk = max(in.Sent+bmcPoll, in.Now)
	switch in.Answer {
	case BMCSaysOff:
		b.Last, b.Heard, b.AnswerSent, b.AnsweredAt = in.Answer, true, in.Sent, in.Now
		b.NextAsk = max(b.NextAsk, in.Now+bmcApart)
		if b.FirstOff == 0 {
			b.FirstOff = in.Now
		}
		b.Off = b.Off || in.Sent >= b.FirstOff+bmcApart
	case BMCSaysOn:
		b.Last, b.Heard, b.AnswerSent, b.AnsweredAt, b.FirstOff, b.Off = in.Answer, true, in.Sent, in.Now, 0, false
	case BMCSilent:
		b.Last, b.FirstOff = BMCSilent, 0 // successive means without a gap
	case BMCDone:
		b.NextAsk, b.AnsweredAt = in.Now, in.Now
	case BMCRejected:
		b.Rejected, b.AnsweredAt = true, in.Now
	case BMCNoLogin:
		b.Out, b.FirstOff = true, 0
	case BMCStranger: // ended the run
	}
	return b
}

func (p PDUState) heard(in PDUReplied) PDUState {
	p.Busy, p.Looked = false, true
	p.NextRead = max(in.Sent+outletsPoll, in.Now)
	if in.Load != LoadUnknown {
		p.Load, p.LoadSent = in.Load, in.Sent
	}
	switch {
	case in.Load != LoadNone && in.Load != LoadUnknown, in.Answer == OutletsOn, in.Answer == OutletsMix:
		p.FirstNone = 0
	case in.Load == LoadNone && p.FirstNone == 0:
		p.FirstNone = in.Sent
	}
	switch in.Answer {
	case OutletsOut:
		p.Last, p.LastOff = in.Answer, in.Sent
		if p.FirstOff == 0 {
			p.FirstOff = in.Sent
		}
	case OutletsOn, OutletsMix:
		p.Last, p.FirstOff = in.Answer, 0
	case PDUSilent:
		p.Last, p.FirstOff = PDUSilent, 0
	case PDUDone:
		p.Done, p.NextRead = true, in.Now
	case PDURefused:
		p.Last, p.FirstOff = PDUSilent, 0
	}
	return p
}

// act sends what is due and asks to be woken for what comes next.
func act(s State, now Boottime) (State, []Effect) {
	var effects []Effect
	wake := s.Until
	if s.bmcGoesOn(now) || (s.BMC.Use && !s.BMC.Out && s.PDU.Use) { // P3: it goes on in parallel
		effect, next := s.BMC.next(now, s.Means != Looking)
		if effect != nil {
			effects = append(effects, effect)
		}
		wake = min(wake, next)
		if s.bmcGoesOn(now) && (!s.PDU.Use || s.Means == ByBMC) {
			wake = min(wake, s.Start+bmcDeadline)
		}
	}
	if effects != nil {
		s.BMC.Busy = true
		if _, down := effects[0].(DownBMC); down {
			s.BMC.Commanded = now
		}
	}
	if s.PDU.Use {
		if !s.PDU.Switching && s.Means == Everything && s.outletsDue(now) {
			s.PDU.Switching = true
		}
		if !s.PDU.Switching && s.Means == Everything {
			wake = min(wake, s.outletsBegin())
		}
		effect, next := s.PDU.next(now, s.runsThough())
		if effect != nil {
			effects = append(effects, effect)
			s.PDU.Busy = true
			if _, down := effect.(OutletsDown); down {
				s.PDU.Commanded = now
			}
		}
		wake = min(wake, next)
	}
	return s, append(effects, Wake{At: max(wake, now)})
}

// never is a time that does not come.
const never Boottime = 1<<63 - 1

// next is the BMC's next request, or when to look again.
func (b BMCState) next(now Boottime, mayDown bool) (Effect, Boottime) {
	switch {
	case b.Busy:
		return nil, never
	case b.Last == BMCSaysOn && mayDown && b.mayCommand(now): // P2
		return DownBMC{}, never
	case now >= b.NextAsk:
		return AskBMC{}, never
	default:
		return nil, b.NextAsk
	}
}

// mayCommand: a command is repeated when a reading behind it says "on" still; a BMC whose answers are slower than the
// rhythm would otherwise be commanded only, and never asked.
func (b BMCState) mayCommand(now Boottime) bool {
	return b.Commanded == 0 || now >= b.Commanded+bmcRepeat && b.AnswerSent > b.Commanded
}

// outletsDue is P3.
func (s State) outletsDue(now Boottime) bool {
	return !s.BMC.Use || s.BMC.Out || s.BMC.Rejected || s.Strict && s.BMC.Off || now >= s.outletsBegin()
}

// outletsBegin is the latest time for the outlets to begin, as things stand.
func (s State) outletsBegin() Boottime {
	if s.BMC.Heard {
		return s.Start + bmcDeadline
	}
	return s.Start + bmcSilence
}

// next is the PDU's next request, or when to look again.
func (p PDUState) next(now Boottime, meterIsAsked bool) (Effect, Boottime) {
	off := p.FirstOff != 0
	readsOn := p.Switching || off || p.Last == PDUSilent || meterIsAsked
	switch {
	case p.Busy:
		return nil, never
	case p.Looked && p.Switching && !off && (p.Commanded == 0 || now >= p.Commanded+outletsRetry): // P4
		return OutletsDown{}, never
	case now >= p.NextRead && readsOn:
		return ReadOutlets{}, never
	case now < p.NextRead && readsOn:
		return nil, p.NextRead
	default:
		return nil, never // they read on, and it is not their time yet
	}
}

// Backoff is the pause before the next run while the core asks (P7), by the number of runs that confirmed nothing.
func Backoff(runs int) Boottime {
	steps := [...]Boottime{5 * Second, 10 * Second, 20 * Second, 30 * Second}
	return steps[min(max(runs, 1), len(steps))-1]
}
