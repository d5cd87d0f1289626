// Package batch lets each hop of the data path do once, for everything that it had at hand, what costs a call into the kernel:
// one submission to the disk, one write to the peer, one write of replies (replication.md section 13).
//
// Who works through a queue (requests of a socket, frames of a lane, completions of a disk) has a Batch, hands it to what it
// calls, and ends it before it waits for more. What it calls does its part at once, except the call into the kernel: that it
// owes to the batch. So a lone request is carried out at once, and a full queue in few calls, without a timer and without
// another goroutine.
package batch

import "slices"

// Flusher has something to be done at the end of a batch. It is compared by identity, so it is a pointer.
type Flusher interface {
	// Flush does what is owed. A batch of a lane's reader calls it, too, so it must not wait for the peer or for a device.
	Flush()
}

// Batch is used by one goroutine. Its zero value is empty.
type Batch struct{ owed []Flusher }

// Owe has f flushed when the batch ends, once.
func (b *Batch) Owe(f Flusher) {
	if !slices.Contains(b.owed, f) {
		b.owed = append(b.owed, f)
	}
}

// End flushes what is owed. The batch is empty then, and can be used again.
func (b *Batch) End() {
	for len(b.owed) > 0 { // a flush may owe again
		f := b.owed[0]
		b.owed = slices.Delete(b.owed, 0, 1)
		f.Flush()
	}
}
