package nbd

import (
	"net"
	"sync"
)

// outbox combines replies: a request that is done joins the queue, and whoever finds nobody writing writes until
// the queue is empty. At depth one this is a write by the goroutine that has the answer, without a wake-up; at
// depth it is one writev for all that got ready meanwhile (replication.md section 13).
type outbox struct {
	mu      sync.Mutex
	queue   []*request
	writing bool

	// Owned by the writer.
	batch   []*request
	vectors net.Buffers
}

// answer sends the reply of r, now or with the batch that is being collected.
func (c *conn) answer(r *request) {
	o := &c.out
	o.mu.Lock()
	o.queue = append(o.queue, r)
	if o.writing {
		o.mu.Unlock()
		return
	}
	o.writing = true
	o.mu.Unlock()
	for c.nextBatch() {
		if c.permit() {
			c.send()
		}
		c.releaseBatch()
	}
}

// nextBatch takes what is queued; false: the outbox is idle now.
func (c *conn) nextBatch() bool {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 {
		o.writing = false
		return false
	}
	o.batch, o.queue = o.queue, o.batch[:0]
	return true
}

// permit asks the volume whether it may answer, waits until it may, and sends reads that may be stale by then
// back to be done again. It says whether anything is to be sent: nothing once ctx ended, because from then on
// the errors of the volume only say that this connection is over, and the client will repeat (P6).
func (c *conn) permit() bool {
	if c.guard == nil {
		return c.ctx.Err() == nil
	}
	lapsed := false
	for !c.guard.Live() {
		lapsed = true
		if err := c.guard.Wait(c.ctx); err != nil {
			c.cancel()
			return false
		}
	}
	term := c.term()
	fresh := c.out.batch[:0]
	for _, r := range c.out.batch {
		if r.tells() && r.err == eOK && (lapsed || r.term != term) {
			c.running.Add(1) // the caller is itself counted, so the wait group is not at zero
			go c.serve(r)
			continue
		}
		fresh = append(fresh, r)
	}
	clear(c.out.batch[len(fresh):])
	c.out.batch = fresh
	return c.ctx.Err() == nil
}

// term is the volume's, if it has any.
func (c *conn) term() uint64 {
	if c.terms == nil {
		return 0
	}
	return c.terms.Term()
}

// send writes the batch with one writev.
func (c *conn) send() {
	o := &c.out
	o.vectors = o.vectors[:0]
	for _, r := range o.batch {
		o.vectors = append(o.vectors, r.head(c.offer.structured))
		if r.command == cmdRead && r.err == eOK {
			for i := range r.pieces {
				o.vectors = append(o.vectors, r.wanted(i))
			}
		}
	}
	left := o.vectors // WriteTo consumes what it is called on
	if _, err := left.WriteTo(c.net); err != nil {
		c.cancel() // part of a reply may be out: nothing can follow it
	}
	clear(o.vectors)
}

func (c *conn) releaseBatch() {
	for i, r := range c.out.batch {
		r.release()
		c.out.batch[i] = nil
	}
}
