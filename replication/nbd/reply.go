package nbd

import (
	"errors"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"duet/replication/internal/nowait"
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
	left    net.Buffers // of them, what is not in the socket yet
}

// flushRounds is how many batches are written by one who has other things to do.
const flushRounds = 4

func (o *outbox) add(r *request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = append(o.queue, r)
}

// takePen makes the caller the writer, if there is something to write and nobody does.
func (o *outbox) takePen() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing || len(o.queue) == 0 {
		return false
	}
	o.writing = true
	return true
}

// answer sends the reply of r, now or with the batch that is being collected.
func (c *conn) answer(r *request) {
	c.out.add(r)
	if c.out.takePen() {
		c.writeReplies()
	}
}

// writeReplies writes until the outbox is empty, and waits for the right to answer and for the client.
func (c *conn) writeReplies() {
	for c.nextBatch() {
		lapsed, ok := c.awaitLive()
		if ok && c.permit(lapsed) {
			c.collect()
			c.send()
		}
		c.releaseBatch()
	}
}

// Flush is batch.Flusher: what would have to wait goes on in a goroutine.
func (c *conn) Flush() {
	if !c.out.takePen() {
		return
	}
	for range flushRounds {
		if c.raw == nil || c.guard != nil && !c.guard.Live() {
			break
		}
		if !c.nextBatch() {
			return
		}
		if c.permit(false) {
			c.collect()
			if !c.put(false) {
				go func() {
					c.send()
					c.releaseBatch()
					c.writeReplies()
				}()
				return
			}
		}
		c.releaseBatch()
	}
	go c.writeReplies()
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

// awaitLive waits until the volume may answer. lapsed: there was a moment when it might not; !ok: the client is gone.
func (c *conn) awaitLive() (lapsed, ok bool) {
	for c.guard != nil && !c.guard.Live() {
		lapsed = true
		if err := c.guard.Wait(c.ctx); err != nil {
			c.cancel()
			return lapsed, false
		}
	}
	return lapsed, true
}

// permit sends reads that may be stale by now back to be done again. It says whether anything is to be sent: nothing once ctx
// ended, because from then on the errors of the volume only say that this connection is over, and the client will repeat (P6).
func (c *conn) permit(lapsed bool) bool {
	term := c.term()
	fresh := c.out.batch[:0]
	for _, r := range c.out.batch {
		if c.guard != nil && r.tells() && r.err == eOK && (lapsed || r.term != term) {
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

// collect makes a batch ready to be sent.
func (c *conn) collect() {
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
	o.left = o.vectors
}

// send writes what is left of a batch, and waits for the client to take it.
func (c *conn) send() {
	if c.raw != nil {
		c.put(true)
		return
	}
	if _, err := c.out.left.WriteTo(c.net); err != nil {
		c.cancel() // part of a reply may be out: nothing can follow it
	}
}

// put writes what is left of a batch with one writev, if the socket takes it, and says whether that was all, or all that can be
// done; wait: until it is.
func (c *conn) put(wait bool) (all bool) {
	o := &c.out
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		for len(o.left) > 0 && failed == nil {
			n, err := nowait.Writev(fd, o.left)
			switch {
			case err == nil:
				o.left = rest(o.left, n)
			case errors.Is(err, unix.EAGAIN):
				return !wait
			default:
				failed = err
			}
		}
		return true
	})
	if failed != nil || err != nil {
		c.cancel() // part of a reply may be out: nothing can follow it
		return true
	}
	return len(o.left) == 0
}

// rest is what remains of vectors when n bytes are written.
func rest(vectors net.Buffers, n int) net.Buffers {
	for len(vectors) > 0 && n >= len(vectors[0]) {
		n -= len(vectors[0])
		vectors = vectors[1:]
	}
	if n > 0 {
		vectors[0] = vectors[0][n:]
	}
	return vectors
}

func (c *conn) releaseBatch() {
	o := &c.out
	clear(o.vectors)
	o.left = nil
	for i, r := range o.batch {
		c.forget(r)
		o.batch[i] = nil
	}
}
