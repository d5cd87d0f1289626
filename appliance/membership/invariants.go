package membership

import (
	"errors"
	"fmt"
)

// ErrInvariant is wrapped by every violation.
var ErrInvariant = errors.New("membership invariant violated")

func violated(id, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrInvariant, id, fmt.Sprintf(format, args...))
}

// CheckState is what one node can see of the invariants in one state (protocol.md section 12.1).
func CheckState(s State) error {
	r := &s.Rec
	switch {
	case r.High < max(r.Ep, r.Prep.Ep):
		return violated("I9 monotone", "high %d is below epoch %d or prepared %d", r.High, r.Ep, r.Prep.Ep)
	case r.Prep.Ep != 0 && r.Prep.Ep <= r.Ep:
		return violated("I9 monotone", "prepared %d is not above epoch %d", r.Prep.Ep, r.Ep)
	case s.Mode == Solo && (r.Members != Only(s.self()) || r.Prep.Ep != 0 || !r.Consistent):
		return violated("I2 one-authority", "solo with members %v, prepared %d", r.Members, r.Prep.Ep)
	case s.Committed() && r.Members != Both:
		return violated("I2 one-authority", "paired and committed with members %v", r.Members)
	case s.Mode == Joining && (r.Members != Only(s.peer()) || r.Consistent || s.Session == 0):
		return violated("I3 server-holds-all", "joining with members %v, consistent %t", r.Members, r.Consistent)
	case (s.Mode == Paired || s.Mode == Resolving) && s.Session == 0:
		return violated("I2 one-authority", "%v without a session", s.Mode)
	case s.Ask.Nonce != 0 && (s.Session != 0 && !s.Peer.Fresh || !s.waits()):
		return violated("I2 one-authority", "asks the witness while %v in session %x", s.Mode, uint64(s.Session))
	case s.Fresh() && (r.Ep != 0 || r.Members != Nobody || r.Prep.Ep != 0):
		return violated("I9 monotone", "a fresh record with epoch %d", r.Ep)
	case s.Copy == PrepareSent && s.Plan.Ep == 0:
		return violated("I4 honest-commit", "PREPARE without a tuple")
	}
	return checkLegs(r)
}

func checkLegs(r *Record) error {
	for i := range r.Legs {
		if r.Legs[i].Version != 0 && r.Legs[i].Set == Nobody {
			return violated("I11 leg-nonempty", "volume slot %d has no leg", i)
		}
	}
	return nil
}

// CheckStep is what one node can see of the invariants over one Step: I9 and I10, and the order of effects of section 5.1.
func CheckStep(before, after State, in Input, effects []Effect) error {
	if _, boot := in.Event.(Boot); boot {
		return checkOrder(before, after, effects)
	}
	b, a := &before.Rec, &after.Rec
	switch {
	case a.Seq < b.Seq || a.High < b.High || a.Ep < b.Ep:
		return violated("I9 monotone", "seq %d→%d, epoch %d→%d, high %d→%d", b.Seq, a.Seq, b.Ep, a.Ep, b.High, a.High)
	case *a != *b && a.Seq == b.Seq:
		return violated("I9 monotone", "record changed without Persist")
	}
	// Versions are compared within an epoch, between its members. R12 takes the table of the only member, and a commit
	// that of its coordinator, whole. A founding that was dropped leaves a fresh record (R27).
	if a.Ep == b.Ep && a.Members.Has(after.Cfg.Self) {
		for i := range a.Owners {
			if a.Owners[i].Version < b.Owners[i].Version {
				return violated("I9 monotone", "owner version of resource %d: %d→%d", i, b.Owners[i].Version, a.Owners[i].Version)
			}
		}
		for i := range a.Legs {
			if a.Legs[i].Version < b.Legs[i].Version {
				return violated("I9 monotone", "leg version of volume %d: %d→%d", i, b.Legs[i].Version, a.Legs[i].Version)
			}
		}
	}
	return checkOrder(before, after, effects)
}

// checkOrder: take away, record, tell, give.
func checkOrder(_, after State, effects []Effect) error {
	persisted, told := false, false
	for _, e := range effects {
		switch e := e.(type) {
		case Stop, Revoke, Drain:
			if d, is := e.(Drain); is && d.Resources == 0 { // releases
				continue
			}
			if persisted || told {
				return violated("order", "%T after Persist, Send or Grant", e)
			}
		case Persist:
			if told {
				return violated("order", "Persist after Send or Grant")
			}
			persisted = true
		case Send, Grant, Copy, AskWitness, PushWitness:
			told = true
		case Start:
			told = true
			o := after.Rec.Owners[e.Resource]
			if o.Version == 0 || o.Node != after.Cfg.Self || e.Epoch != after.Rec.Ep {
				return violated("I10 owned-before-run", "resource %d starts without an owner's record", e.Resource)
			}
		}
	}
	return nil
}
