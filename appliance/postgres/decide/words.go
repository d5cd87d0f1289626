package decide

import "duet/appliance/membership"

// Words are the classic view of one node, with the words that its users know.
type Words struct {
	Status     string // pg_status: PRI, HS:sync, HS:async, HS:connected, HS:alone, STOP, UNKNOWN
	Data       string // data_status: LATEST, STREAMING|SYNC, STREAMING|ASYNC, DISCONNECT
	Role       string // primary, standby, none
	Activity   string
	Promotable bool
	Why        string // latest sync stale lock failcount drained timeline rejoining frozen
}

// Describe says it. Facts that are not fresh make everything UNKNOWN: no old word is shown as a present one.
func Describe(s State, in Input, fresh bool) Words {
	t := turn{s: s, in: in, rec: in.Docs.Newest()}
	l := &in.Local
	holds := t.rec.Version != 0 && t.rec.Copies.Has(in.Self)
	w := Words{Status: "UNKNOWN", Data: "DISCONNECT", Role: "none", Activity: s.Doing.String()}
	if !fresh || l.Proc == ProcUnseen {
		w.Why = "stale"
		return w
	}
	if s.Doing == Idle && s.Checkpoint {
		w.Activity = Checkpointing.String()
	}
	switch l.Proc {
	case ProcPrimary:
		w.Status, w.Data, w.Role = "PRI", "LATEST", "primary"
		if s.Doing == Idle && s.Opened != s.Life {
			w.Activity = "gated"
		}
	case ProcStandby:
		w.Role = "standby"
		w.Status, w.Data = t.standbyWords(holds)
	default:
		w.Status = "STOP"
	}
	w.Promotable, w.Why = t.promotable(holds)
	return w
}

func (t *turn) standbyWords(holds bool) (status, data string) {
	l := &t.in.Local
	switch {
	case l.Receiving && holds:
		return "HS:sync", "STREAMING|SYNC"
	case l.Receiving:
		return "HS:async", "STREAMING|ASYNC"
	case holds: // its place in copies has not been taken away yet
		return "HS:connected", "STREAMING|SYNC"
	case t.peerServes():
		return "HS:connected", "DISCONNECT"
	}
	return "HS:alone", "DISCONNECT"
}

// promotable: what would keep this node from being the primary, worst first.
func (t *turn) promotable(holds bool) (bool, string) {
	l, s := &t.in.Local, &t.s
	_, fork, same, known := t.rec.Left(l.Timeline)
	switch {
	case l.Dir == DirUnfinished || s.Rejoin != RejoinNone || t.in.Grant.Mode == membership.Joining:
		return false, "rejoining"
	case !holds:
		return false, "stale"
	case l.Dir != DirOurs:
		return false, "lock"
	case !same && known && l.End > fork:
		return false, "timeline"
	case t.in.Grant.Mode == membership.Frozen || t.in.Grant.Mode == membership.Resolving:
		return false, "frozen"
	case s.Fails >= s.Cfg.FailMost && t.in.Now-s.FailFirst <= s.Cfg.FailWindow:
		return true, "failcount" // not preferred; need beats preference
	case l.Proc == ProcPrimary:
		return true, "latest"
	}
	return true, "sync"
}
