package node

import (
	"testing"

	"duet/appliance/membership"
)

// Every order to found names a register of its own, also when the last founding was cut or its session ended before the
// witness had answered (membership duty 7; protocol.md 9.2).
func TestEveryFoundingOrderHasARegisterOfItsOwn(t *testing.T) {
	fresh := func(session membership.Session) membership.State {
		return membership.State{Session: session, Peer: membership.PeerView{Hello: true, Fresh: true}}
	}
	founded := membership.State{Session: 4, Mode: membership.Paired}
	founded.Rec.Site, founded.Rec.Ep, founded.Peer = membership.ID{1}, 1, membership.PeerView{Hello: true, Ep: 1}
	pushing := founded
	pushing.Push.Nonce = 7
	var f foundingOrders
	for i, c := range []struct {
		st   membership.State
		want foundingStep
	}{
		{membership.State{}, foundingWait},
		{membership.State{Session: 1}, foundingWait}, // no HELLO yet
		{fresh(1), foundingOrder},
		{fresh(1), foundingWait},
		{membership.State{}, foundingWait}, // cut
		{fresh(2), foundingRegister},
		{membership.State{}, foundingWait}, // cut again, before an order named it
		{fresh(3), foundingOrder},
		{fresh(4), foundingRegister},
		{fresh(4), foundingOrder},
		{pushing, foundingWait},
		{founded, foundingDone},
	} {
		if got := f.next(c.st); got != c.want {
			t.Errorf("look %d: %d, want %d", i, got, c.want)
		}
	}
}
