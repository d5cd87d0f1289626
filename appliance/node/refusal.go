package node

import (
	"context"
	"fmt"

	"duet/appliance/event"
	"duet/appliance/membership"
)

// refusals are the words for people: why the core does not carry an order out now, and what would help.
var refusals = map[membership.Refusal]struct{ reason, next string }{
	membership.RefusedUnknown:      {"there is no such thing in this site", "Look at the names in the status"},
	membership.RefusedNotPaired:    {"the nodes are not paired, or not both committed", "Wait until the status says paired, then order it again"},
	membership.RefusedNotPairOwner: {"the other node owns the pair", "Order it on the other node"},
	membership.RefusedNotOwner:     {"the other node owns it", "Order it on the other node"},
	membership.RefusedBusy:         {"another change is under way", "Wait some seconds and order it again"},
	membership.RefusedLegMissing:   {"the other node does not hold every write", "Wait until every volume is in sync"},
	membership.RefusedNotSolo:      {"this node neither goes on alone nor has run since it was paired: that the other one is off now says nothing about before", "Bring the other node back, or force this one: duet override force-solo"},
	membership.RefusedSession:      {"the other node is connected", "Look at the status"},
	membership.RefusedAlready:      {"it is so already", "Nothing is to be done"},
	membership.RefusedEpoch:        {"the site has changed since that was said", "Look at the status and say it again"},
	membership.RefusedPeerNotOff:   {"nobody has said that the other node is off", "Switch the other node off, make sure that it stays off, and say so"},
	membership.RefusedNotHolding:   {"this node was being brought up to date: its copy is not whole", "Bring the other node back"},
	membership.RefusedAuthority:    {"two sides went on alone, and a fault holds this one", "Decide which side to keep before doing anything"},
	membership.RefusedNotNext:      {"somebody else has changed it meanwhile", "Look at it and order it again"},
}

// order gives the core an order; a refusal says why in words.
func (n *Node) order(ctx context.Context, what string, e membership.Event) error {
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	why, err := n.driver.Order(ctx, e)
	if err != nil {
		return err
	}
	if why == membership.Granted {
		return nil
	}
	return refusal(what, why)
}

// orderThen gives an order that something here follows from. Once given, it is not taken back by a client that goes away
// or by a deadline: then learns the answer in every case, and is told OrderRefused only if nothing has changed. Whoever
// waits for the answer waits no longer than for other orders.
func (n *Node) orderThen(ctx context.Context, what string, e membership.Event, then func(error) error) error {
	answered, given := make(chan error, 1), context.WithoutCancel(ctx)
	n.tasks.Go(func() {
		why, err := n.driver.Order(given, e) // ends with the driver at the latest
		if err == nil && why != membership.Granted {
			err = refusal(what, why)
		}
		answered <- then(err)
	})
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return event.New(event.DeadlinePassed, "what", what, "seconds", fmt.Sprint(int(orderWait.Seconds()))).Because(ctx.Err())
	}
}

func refusal(what string, why membership.Refusal) error {
	words := refusals[why]
	return event.New(event.OrderRefused, "what", what, "reason", words.reason, "next", words.next)
}
