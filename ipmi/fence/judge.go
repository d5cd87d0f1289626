package fence

// judge says whether the run is over, and with what.
func judge(s State, now Boottime) (Finish, bool) {
	b, p := s.BMC, s.PDU
	seen := s.seen()
	switch {
	case !b.Use && !p.Use:
		return Finish{Why: NoMeans}, true
	case now >= s.Until:
		return s.verdictAtEnd(), true
	case s.runsThough() && now < b.FirstOff+meterLag: // the meter is asked again
		return Finish{}, false
	case seen.Whole(s.Strict) == Confirmed:
		return s.confirmed(seen), true
	case p.RelayOnly && p.offFor(b) >= holdUp && !s.bmcGoesOn(now):
		return Finish{Seen: seen, Why: RelaysOff}, true
	case s.nothingMoreToCome(now):
		return s.verdictAtEnd(), true
	}
	return Finish{}, false
}

// seen is what is known by now, of each kind.
func (s State) seen() Seen {
	b, p := s.BMC, s.PDU
	var seen Seen
	if b.Use && b.Off {
		seen.BMC = Confirmed
	}
	off := p.Use && !p.RelayOnly && p.offFor(b) >= holdUp
	switch {
	case !off:
	case p.FirstNone != 0 && p.LastOff-p.FirstNone >= holdUp:
		seen.Outlets, seen.Load = Confirmed, Confirmed
	case p.Load == LoadUnknown || p.LoadSent < p.FirstOff: // no meter spoke since they read off
		seen.Outlets = Confirmed
	}
	seen.Contradiction = s.runsThough()
	return seen
}

// runsThough: the BMC says "off", and the newest reading of the meters, taken before or after that, is what only a
// running node draws. One taken before is asked again; one that stays is a contradiction (hardware.md 4.1).
func (s State) runsThough() bool {
	return s.BMC.Off && s.PDU.Use && s.PDU.Load == LoadRuns && s.PDU.Last != PDUSilent
}

func (s State) confirmed(seen Seen) Finish {
	end := Finish{Verdict: Confirmed, Seen: seen, Why: SeenOff}
	if seen.BMC == Confirmed {
		end.Kind, end.At = BMCOff, s.BMC.AnswerSent
		return end
	}
	end.Kind, end.At = OutletsOff, s.PDU.LastOff
	if seen.Load == Confirmed {
		end.Kind = LoadGone
	}
	return end
}

// offFor is how long the outlets have been read off while the BMC did not answer: a BMC without AC is silent, so one
// that answers is fed by something else. As long as it has answered every question of this run, the one in flight is
// waited for: slow is not silent.
func (p PDUState) offFor(b BMCState) Boottime {
	if p.FirstOff == 0 || b.Heard && b.Busy && b.Last != BMCSilent {
		return 0
	}
	return p.LastOff - max(p.FirstOff, b.AnsweredAt)
}

// bmcGoesOn says whether the BMC may still bring evidence.
func (s State) bmcGoesOn(now Boottime) bool {
	return s.BMC.Use && !s.BMC.Out && now < s.Start+bmcDeadline
}

// nothingMoreToCome: no path that may be used is left, or a look has seen that the node is on.
func (s State) nothingMoreToCome(now Boottime) bool {
	b, p := s.BMC, s.PDU
	bmcOver := !s.bmcGoesOn(now)
	switch s.Means {
	case Looking: // what is on stays on; silence may end
		return b.Last == BMCSaysOn || (bmcOver && p.FirstOff == 0 && (!p.Use || p.Looked))
	case ByBMC:
		return bmcOver && (!p.Use || p.Looked && p.FirstOff == 0)
	case Everything:
		return bmcOver && !p.Use
	default:
		return true
	}
}

// verdictAtEnd is what is left when time is up: refused if somebody who can be believed says "on", else unknown.
func (s State) verdictAtEnd() Finish {
	b, p := s.BMC, s.PDU
	seen := s.seen()
	if b.Use && !b.Out && (b.Rejected || b.Last == BMCSaysOn) {
		seen.BMC = Refused
	}
	if p.Use && p.Done && (p.Last == OutletsOn || p.Last == OutletsMix) {
		seen.Outlets = Refused
	}
	draws := p.Use && p.FirstOff != 0 && p.LoadSent >= p.FirstOff && (p.Load == LoadDraws || p.Load == LoadRuns)
	if draws {
		seen.Load = Refused
	}
	end := Finish{Seen: seen, Verdict: seen.Whole(s.Strict)}
	switch {
	case end.Verdict == Confirmed:
		return s.confirmed(seen)
	case seen.Contradiction:
		end.Why = RunsThough
	case p.Use && p.FirstOff != 0 && b.Heard && b.AnswerSent > p.FirstOff:
		end.Verdict, end.Why = Unknown, Contradiction
	case seen.Load == Refused:
		end.Kind, end.At, end.Why = LoadGone, p.LastOff, StillDraws
	case seen.BMC == Refused && s.Means == Looking:
		end.Kind, end.At, end.Why = BMCOff, b.AnswerSent, NotMyTurn
	case seen.BMC == Refused:
		end.Kind, end.At, end.Why = BMCOff, b.AnswerSent, BMCStaysOn
	case seen.Outlets == Refused:
		end.Kind, end.At, end.Why = OutletsOff, p.LastOff, OutletsStayOn
	case p.RelayOnly && p.offFor(b) >= holdUp:
		end.Why = RelaysOff
	default:
		end.Why = NobodyAnswers
	}
	return end
}
