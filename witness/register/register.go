// Package register is the third vote: one register of a few bytes per admission of a witness to a site, and its
// three operations. It is pure: the store makes it durable before any reply, the server says who asks.
//
// It promises that a compare-and-swap succeeds only from exactly the content the caller names (the full tuple:
// "newer epoch" is not enough, protocol.md mutant M2), that repeating a request that took effect is answered as the
// first time, and that a push only ever raises the epoch. It refuses to create anything by accident: a register id
// that this store did not make is unknown, for ever (protocol.md section 11).
package register

// ID is the register id (rid): 128 random bits made by the store at CREATE. It names one register made for one
// admission, never a machine.
type ID [16]byte

// Epoch is the number of a membership.
type Epoch uint64

// Set is a set of nodes: bit 0 is a, bit 1 is b.
type Set uint8

// The sets.
const (
	Nobody Set = 0
	OnlyA  Set = 1
	OnlyB  Set = 2
	Both   Set = 3
)

// Content is the deciding part of a register.
type Content struct {
	Epoch Epoch
	Set   Set
}

// Register is what a store keeps.
type Register struct {
	RID         ID
	Site        ID
	CreateNonce uint64 // a repeated CREATE of the same site and nonce is answered with this rid
	Content     Content
	Sequence    uint64 // +1 with every change
}

// CAS stores next if the register holds expected, or already holds next (a repeat). It returns the register
// afterwards, whether the operation counts as done, and whether anything changed (then it must be made durable
// before the reply).
func (r Register) CAS(expected, next Content) (after Register, done, changed bool) {
	switch r.Content {
	case next:
		return r, true, false
	case expected:
		r.Content = next
		r.Sequence++
		return r, true, true
	}
	return r, false, false
}

// Push stores (ep, {a,b}) iff ep is higher than the register's. It is confirmed iff the register then equals it.
func (r Register) Push(ep Epoch) (after Register, confirmed, changed bool) {
	next := Content{Epoch: ep, Set: Both}
	if ep > r.Content.Epoch {
		r.Content = next
		r.Sequence++
		return r, true, true
	}
	return r, r.Content == next, false
}
