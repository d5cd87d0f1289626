package fence

// Seen is the verdict of each kind of evidence about one node, all of one run.
type Seen struct {
	BMC     Verdict // BMCOff
	Outlets Verdict // OutletsOff
	Load    Verdict // LoadGone: refused means that power flows though the outlets read off
	Person  Verdict // a person's word (R26); never refused

	Contradiction bool // the BMC says "off" and the node draws what a running one draws
}

// Allows says what evidence lets the survivor do.
type Allows struct {
	StartResources bool // the peer's, at once (R10 → R8). If not: by peerWait only, which needs no evidence
	WitnessLess    bool // go solo without a witness (R21b). If not: the next turn, or a person
	PowerOnByBMC   bool // later, by R10b
	OutletsOnFirst bool // and before it, the outlets
	Latch          bool // never by itself: a person said "off and stays off"
}

// Allow is the policy table of hardware.md section 4.2, whole: what each set of evidence allows. Strict is the option
// for sites whose BMC was once caught lying: BMC and outlets must both say off.
//
// The order of the rows is their weight. A person's word was given with the evidence on the screen, by a role that may
// override it (R26), so it comes first: nothing the machine sees may wedge a site. After it, what speaks against goes
// before what speaks for.
func Allow(s Seen, strict bool) Allows {
	off := s.BMC == Confirmed || s.Outlets == Confirmed
	if strict {
		off = s.BMC == Confirmed && s.Outlets == Confirmed
	}
	switch {
	case s.Person == Confirmed:
		return Allows{StartResources: true, WitnessLess: true, Latch: true}
	case s.Contradiction, s.Load == Refused, !off:
		return Allows{}
	default:
		return Allows{StartResources: true, WitnessLess: true, PowerOnByBMC: true, OutletsOnFirst: s.Outlets == Confirmed}
	}
}

// Whole is the verdict of all kinds together, as the core hears it.
func (s Seen) Whole(strict bool) Verdict {
	switch {
	case Allow(s, strict).StartResources:
		return Confirmed
	case s.Contradiction:
		return Unknown
	case s.BMC == Refused, s.Outlets == Refused, s.Load == Refused:
		return Refused
	default:
		return Unknown
	}
}

// ByPerson is a person's word that a node is off and stays off: confirmed, once, for this epoch (protocol.md R26).
func ByPerson(node Node, epoch uint64, at Boottime, who string) Evidence {
	return Evidence{
		Kind: Person, Verdict: Confirmed, Node: node, Epoch: epoch, At: at, Seen: Seen{Person: Confirmed},
		Why: "confirmed by person: " + who,
	}
}
