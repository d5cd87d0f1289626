package pair

import "duet/appliance/membership"

// Recorder keeps every decision, so that it can be made again (appliance/support/flight). It is told on the driver's
// goroutine before the effects are carried out, returns at once, and cannot fail: what it cannot keep it leaves out.
type Recorder interface {
	Decided(before membership.State, in membership.Input, after membership.State, effects []membership.Effect)
	// Died is told of an input in which Step panicked, before the panic goes on.
	Died(before membership.State, in membership.Input)
}

// nobody is a recorder of none.
type nobody struct{}

// Decided forgets.
func (nobody) Decided(membership.State, membership.Input, membership.State, []membership.Effect) {}

// Died forgets.
func (nobody) Died(membership.State, membership.Input) {}
