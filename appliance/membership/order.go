package membership

// Refusal says why an order is not possible now. The zero value grants it.
type Refusal uint8

// The refusals. Each has a text and a next step where orders are taken.
const (
	Granted             Refusal = iota
	RefusedUnknown              // no such resource, volume or document
	RefusedNotPaired            // both nodes must be paired and committed, and know it of each other
	RefusedNotPairOwner         // the pair owner has to be asked
	RefusedNotOwner             // this node does not own it
	RefusedBusy                 // another change is under way
	RefusedLegMissing           // the peer does not hold every write of each volume
	RefusedNotSolo              // only a node that goes on alone may
	RefusedSession              // the peer is connected
	RefusedAlready              // it is so already
	RefusedEpoch                // the statement is about another epoch
	RefusedPeerNotOff           // nobody has said that the peer is off
	RefusedNotHolding           // this node may lack acknowledged writes
	RefusedAuthority            // this node may go on by its own record
	RefusedNotNext              // the version is not above the present one
	refusalCount
)

var refusalWords = [refusalCount]string{
	"granted", "unknown", "not-paired", "not-pair-owner", "not-owner", "busy", "leg-missing", "not-solo", "session", "already",
	"epoch", "peer-not-off", "not-holding", "authority", "not-next",
}

// String is the word of the API.
func (r Refusal) String() string {
	if r >= refusalCount {
		return "refusal?"
	}
	return refusalWords[r]
}

// Allows says whether Step would carry the order out now. An event that is no order is granted.
func (s State) Allows(e Event) Refusal {
	switch e := e.(type) {
	case Leave:
		return s.allowsLeave(e)
	case Move:
		return s.allowsMove(e.Resource)
	case SetArbiter:
		return s.allowsArbiter(e.Kind)
	case PeerOff:
		return s.allowsPeerOff(e.Epoch)
	case ForceSolo:
		return s.allowsForce(e.PeerOff)
	case ChangeDoc:
		return s.allowsDoc(e)
	case LegFailed:
		if !s.volume(e.Volume) {
			return RefusedUnknown
		}
	case LegSynced:
		if !s.volume(e.Volume) {
			return RefusedUnknown
		}
	}
	return Granted
}

// busy says whether a change of the pair or of a resource is under way. Changes that cross would each need a story of
// their own.
func (s *State) busy() bool {
	return s.Change.Number != 0 || s.Create.Nonce != 0 || s.Gives|s.Draining != 0 || s.Writing != Docs{} || s.Rec.Pending != Docs{} || s.legsMove()
}

func (s *State) legsMove() bool {
	for v, at := range s.LegWork {
		if at != LegSteady || s.Rec.Legs[v].Pending {
			return true
		}
	}
	return false
}

func (s *State) resource(r ResourceID) bool {
	return int(r) < MaxResources && s.Rec.Owners[r].Version != 0
}

func (s *State) volume(v VolumeSlot) bool { return int(v) < MaxVolumes && s.Rec.Legs[v].Version != 0 }

// holds says whether n has every acknowledged write of each volume of r. The pair has none.
func (s *State) holds(n Node, r ResourceID) bool {
	for i := range s.Rec.Legs {
		l := &s.Rec.Legs[i]
		if l.Version != 0 && l.Resource == r && r != PairResource && !l.Set.Has(n) {
			return false
		}
	}
	return true
}
