package node

import (
	"testing"

	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

// What membership gives the database in each of its modes: a right only to the owner, under the present epoch, after a Start;
// evidence only where membership has it.
func TestDatabaseGrant(t *testing.T) {
	const slot, now = membership.ResourceID(3), membership.Boottime(100)
	base := func(owner membership.Node) membership.State {
		var st membership.State
		st.Cfg.Self = membership.A
		st.Rec.Site, st.Rec.Ep, st.Rec.Members = membership.ID{1}, 7, membership.Both
		st.Rec.Owners[slot] = membership.Owner{Node: owner, Version: 4}
		st.Mode, st.Session, st.Lease = membership.Paired, 9, now+10
		return st
	}
	for _, c := range []struct {
		name     string
		owner    membership.Node
		started  membership.Epoch
		change   func(*membership.State)
		mode     membership.Mode
		right    bool
		deadline membership.Boottime
		evidence decide.Evidence
	}{
		{"paired, permitted", membership.A, 7, nil, membership.Paired, true, now + 10, decide.EvidenceStated},
		{"paired, not permitted yet", membership.A, 0, nil, membership.Paired, false, now + 10, decide.EvidenceStated},
		{"paired, permitted under an earlier epoch", membership.A, 6, nil, membership.Paired, false, now + 10, decide.EvidenceStated},
		{"paired, the peer's", membership.B, 7, nil, membership.Paired, false, now + 10, decide.EvidenceNone},
		{"paired, lease over", membership.A, 7, func(st *membership.State) { st.Lease = now }, membership.Paired, false, now, decide.EvidenceStated},
		{"frozen", membership.A, 7, func(st *membership.State) { st.Mode, st.Session = membership.Frozen, 0 }, membership.Frozen, false, now + 10, decide.EvidenceNone},
		{"prepared", membership.A, 7, func(st *membership.State) { st.Rec.Prep.Ep = 8 }, membership.Resolving, false, now + 10, decide.EvidenceNone},
		{"joining", membership.B, 7, func(st *membership.State) { st.Mode = membership.Joining }, membership.Joining, false, now + 10, decide.EvidenceNone},
		{"alone with its own", membership.A, 7, alone(now+5, 0), membership.Solo, true, 0, decide.EvidenceOwn},
		{"alone, the peer may still run it", membership.B, 7, alone(now+5, 0), membership.Solo, false, 0, decide.EvidenceNone},
		{"alone, the peer's lease is over", membership.B, 7, alone(now, 0), membership.Solo, false, 0, decide.EvidenceWaited},
		{"alone, evidence", membership.B, 7, alone(now+5, 7), membership.Solo, false, 0, decide.EvidenceConfirmed},
		{"alone, taken over", membership.A, 7, alone(now+5, 7), membership.Solo, true, 0, decide.EvidenceConfirmed},
		{"alone, evidence of an earlier epoch", membership.B, 7, alone(now+5, 6), membership.Solo, false, 0, decide.EvidenceNone},
	} {
		st := base(c.owner)
		if c.change != nil {
			c.change(&st)
		}
		g := databaseGrant(st, slot, c.started, now)
		if g.Mode != c.mode || g.Right != c.right || g.Deadline != c.deadline || g.Evidence != c.evidence || g.Owner != c.owner || g.Version != 4 {
			t.Errorf("%s: %+v", c.name, g)
		}
	}
}

// alone until the peer has certainly stopped at wait, with evidence of an epoch.
func alone(wait membership.Boottime, fenced membership.Epoch) func(*membership.State) {
	return func(st *membership.State) {
		st.Mode, st.Session, st.Lease, st.PeerWait, st.Rec.Fenced = membership.Solo, 0, 0, wait, fenced
		st.Rec.Members = membership.OnlyA
	}
}
