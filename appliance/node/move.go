package node

import (
	"context"
	"fmt"

	"duet/appliance/event"
	"duet/appliance/membership"
)

// MoveVM hands a VM and its volumes to the other node (protocol.md R22): it is killed here, what it wrote is finished on
// both legs, the ownership goes over, and the other node starts it if it is wanted. Wanted is one fact for the whole
// site, so a VM that a person has stopped stays stopped there. The guest is not asked: for it, this is a power cut.
func (n *Node) MoveVM(ctx context.Context, name, by, reason string) error {
	vm, err := n.orderable(name)
	if err != nil {
		return err
	}
	id := membership.ResourceID(vm.Slot) //nolint:gosec // bounded by site.Check
	what := "the move of VM " + name
	if n.testsPeer() {
		return event.New(event.OrderRefused, "what", what, "reason", testingReason, "next", testingNext)
	}
	session := n.driver.View().State.Session
	if err := n.order(ctx, what, membership.Move{Resource: id}); err != nil {
		return err
	}
	n.driver.Note("vm-moving", name+", by "+by+": "+reason)
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	kept := false
	err = await(ctx, func() (over bool, _ error) {
		over, kept = moveOver(n.driver.View().State, id, session)
		return over, nil
	})
	switch {
	case err != nil:
		return event.New(event.DeadlinePassed, "what", what, "seconds", fmt.Sprint(int(orderWait.Seconds())))
	case kept:
		return event.New(event.OrderRefused, "what", what, "reason", "what it wrote could not be finished on both nodes in time, or the other node was lost, so it stays here",
			"next", "Look at the volumes, then order it again")
	}
	n.driver.Note("vm-moved", name)
	return nil
}

// moveOver says whether a move that was ordered in this session has ended, and whether the VM stayed here. That nothing is
// being given any more shows that the other node has taken it only while the session lasts: its end forgets what was being
// given. Then the next session tells, when both nodes have agreed on the owners, or this node goes on alone and owns it.
func moveOver(st membership.State, id membership.ResourceID, session membership.Session) (over, kept bool) {
	kept = st.Owns(id) && !st.Draining.Has(id)
	taken := !st.Owns(id) && !st.Gives.Has(id) && (st.Session == session || st.Committed())
	return kept || taken, kept
}
