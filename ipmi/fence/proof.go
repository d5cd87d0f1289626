package fence

// The standing proof, pure: what each check of a path means, and when the next one is due (hardware.md section 5). The
// Watch carries the checks out. Nothing here switches anything.

// Rhythm is how often the paths are asked, and how long an answer counts.
type Rhythm struct {
	Ping        Boottime // RMCP ping: no session, no password, not logged
	SignIn      Boottime // with a session: some BMCs log each to their event log, so it may be slower
	Outlets     Boottime
	Again       Boottime // ping and outlets, while the path is withdrawn
	SignInAgain Boottime // the same for signing in; the client keeps to its pauses after a refused login
	Fresh       Boottime // a path that was not proven for this long is not counted
}

// DefaultRhythm is the table of hardware.md section 5.
func DefaultRhythm() Rhythm {
	return Rhythm{
		Ping: 30 * Second, SignIn: 300 * Second, Outlets: 30 * Second, Again: 5 * Second, SignInAgain: 30 * Second,
		Fresh: 15 * 60 * Second,
	}
}

// jitterPart spreads the checks of many sites and of both nodes: an interval is shortened by up to a tenth, so that
// nothing is asked later than the table says.
const jitterPart = 10

func jittered(d Boottime, random uint32) Boottime { return d - d/jitterPart*Boottime(random%100)/100 }

// Proof is how one path stands.
type Proof struct {
	Kind     PathKind
	State    PathState // the newest reading
	ProvenAt Boottime  // when everything about it was last proven; zero: never since this daemon began
	Next     Boottime  // when it is proven again
	Fault    *Fault    // why it is withdrawn; nil: it is not
	Notice   *Fault    // something to mend that does not withdraw it
}

// Fresh says whether a fencing by this path would be expected to bring evidence.
func (p Proof) Fresh(now Boottime, rhythm Rhythm) bool {
	return p.Fault == nil && p.ProvenAt != 0 && now < p.ProvenAt+rhythm.Fresh
}

// Proofs is the standing proof of one node's paths.
type Proofs struct {
	BMC, Outlets       Proof
	PingAt, SignInAt   Boottime // when each check is due; never: there is no such path
	OutletsAt          Boottime
	alive, aliveKnown  bool // the last ping was answered
	hasBMC, hasOutlets bool

	// What speaks against a path while the peer is heard is believed the second time: a node that has just lost its power
	// is heard for a moment longer.
	bmcDoubted, outletsDoubted bool
}

// StartProofs begins with everything due.
func StartProofs(now Boottime, bmc, outlets bool) Proofs {
	p := Proofs{
		BMC: Proof{Kind: PathBMC, State: PathUnknown}, Outlets: Proof{Kind: PathOutlets, State: PathUnknown},
		PingAt: never, SignInAt: never, OutletsAt: never, hasBMC: bmc, hasOutlets: outlets,
	}
	if bmc {
		p.PingAt, p.SignInAt = now, now
	}
	if outlets {
		p.OutletsAt = now
	}
	p.setNext()
	return p
}

func (p *Proofs) setNext() {
	p.BMC.Next, p.Outlets.Next = p.SignInAt, p.OutletsAt
}

// Due is when the earliest check is due.
func (p Proofs) Due() Boottime { return min(p.PingAt, p.SignInAt, p.OutletsAt) }

// Pinged takes the answer of a ping. A BMC that is alive again is signed in to at once: that it lives proves nothing else.
func (p Proofs) Pinged(now Boottime, fault *Fault, r Rhythm, random uint32) Proofs {
	was := p.alive || !p.aliveKnown
	p.alive, p.aliveKnown = fault == nil, true
	if fault != nil {
		p.BMC.Fault, p.BMC.State = fault, PathUnknown
		p.PingAt = now + jittered(r.Again, random)
		p.setNext()
		return p
	}
	p.PingAt = now + jittered(r.Ping, random)
	if !was {
		p.SignInAt = now
	}
	p.setNext()
	return p
}

// SignedIn takes the answer of a sign-in. here says whether the peer is heard: then its BMC must say "on".
func (p Proofs) SignedIn(now Boottime, answer BMCAnswer, here bool, fault *Fault, saysOff func() *Fault, r Rhythm, random uint32) Proofs {
	p.BMC.State = PathUnknown
	switch {
	case fault != nil:
	case answer == BMCSaysOn:
		p.BMC.State = PathOn
	case answer == BMCSaysOff:
		p.BMC.State = PathOff
		if here {
			fault = saysOff()
		}
	}
	if doubt := fault != nil && answer == BMCSaysOff; doubt && !p.bmcDoubted {
		p.bmcDoubted = true
		p.SignInAt = now + jittered(r.Again, random)
		p.setNext()
		return p
	} else if !doubt {
		p.bmcDoubted = false
	}
	p.BMC.Fault = fault
	if fault != nil {
		p.SignInAt = now + jittered(r.SignInAgain, random)
		p.setNext()
		return p
	}
	p.alive, p.aliveKnown = true, true
	p.BMC.ProvenAt = now
	p.SignInAt, p.PingAt = now+jittered(r.SignIn, random), now+jittered(r.Ping, random)
	p.setNext()
	return p
}

// OutletsSeen takes a reading of the outlets. standing is a fault of the path that no reading mends: an unproven map, a
// product that cannot be told apart.
func (p Proofs) OutletsSeen(now Boottime, answer PDUAnswer, load Load, here bool, fault, standing *Fault, word func(code string) *Fault, r Rhythm, random uint32) Proofs {
	p.Outlets.State, p.Outlets.Notice = PathUnknown, nil
	switch answer {
	case OutletsOn:
		p.Outlets.State = PathOn
		if fault == nil && here && load == LoadNone {
			fault = word(CodeCrossed) // the node runs, and not by them
		}
	case OutletsOut:
		p.Outlets.State = PathOff
		if fault == nil && here {
			fault = word(CodeCrossed)
		}
	case OutletsMix:
		p.Outlets.State = PathMixed
		if here {
			p.Outlets.Notice = word(CodeOutletOff)
		}
	case PDUSilent, PDUDone, PDURefused:
	}
	if doubt := fault != nil && fault.Code == CodeCrossed; doubt && !p.outletsDoubted {
		p.outletsDoubted = true
		p.OutletsAt = now + jittered(r.Again, random)
		p.setNext()
		return p
	} else if !doubt {
		p.outletsDoubted = false
	}
	fault = firstFault(fault, standing)
	p.Outlets.Fault = fault
	again := r.Outlets
	if fault != nil && fault != standing {
		again = r.Again
	}
	if fault == nil {
		p.Outlets.ProvenAt = now
	}
	p.OutletsAt = now + jittered(again, random)
	p.setNext()
	return p
}

// At is how the paths stand now: one that was not proven for too long is withdrawn by that alone.
func (p Proofs) At(now Boottime, r Rhythm, stale func(kind PathKind) *Fault) []Proof {
	var all []Proof
	for _, path := range []struct {
		has   bool
		proof Proof
	}{{p.hasBMC, p.BMC}, {p.hasOutlets, p.Outlets}} {
		if !path.has {
			continue
		}
		if path.proof.Fault == nil && path.proof.ProvenAt != 0 && !path.proof.Fresh(now, r) {
			path.proof.Fault = stale(path.proof.Kind)
		}
		all = append(all, path.proof)
	}
	return all
}
