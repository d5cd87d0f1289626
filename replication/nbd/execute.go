package nbd

import (
	"errors"
	"syscall"

	"duet/replication/block"
	"duet/replication/internal/batch"
)

// begin begins a request that the volume can carry out without a goroutine, and says whether it did.
func (c *conn) begin(r *request) bool {
	if c.begins == nil || r.err != eOK {
		return false
	}
	if r.command == cmdFlush {
		return c.begins.BeginFlush(c.ctx, &c.read, func(b *batch.Batch, err error) { c.ended(b, r, err) })
	}
	if len(r.pieces) != 1 || r.ragged() {
		return false
	}
	p := &r.pieces[0]
	switch r.command {
	case cmdRead:
		r.term = c.term() // before the read: what lapses after this makes it stale
		return c.begins.BeginRead(c.ctx, &c.read, p.off, p.n, func(b *batch.Batch, buf []byte, err error) {
			p.buf = buf
			if err != nil {
				r.failedAt, r.at = true, r.off
			}
			c.ended(b, r, err)
		})
	case cmdWrite:
		r.span = span{from: r.from, to: r.to}
		if r.fua() || !c.ranges.try(&r.span) {
			return false
		}
		begun := c.begins.BeginWrite(c.ctx, &c.read, p.buf, p.off, func(b *batch.Batch, err error) {
			c.ranges.unlock(&r.span)
			c.ended(b, r, err)
		})
		if !begun {
			c.ranges.unlock(&r.span)
		}
		return begun
	}
	return false
}

// ended is told of the end of what begin began. The reply goes out with the batch.
func (c *conn) ended(b *batch.Batch, r *request, err error) {
	if c.judge(r, err) {
		c.out.add(r)
		b.Owe(c)
	}
}

// serve carries a request out and answers it.
func (c *conn) serve(r *request) {
	if r.err == eOK {
		r.term = c.term() // before the read: what lapses after this makes it stale
		if !c.judge(r, c.execute(r)) {
			return
		}
	}
	c.answer(r)
}

// judge makes a reply of the end of a request; false: there will be none. An error that is only the end of ctx goes no further than
// permit.
func (c *conn) judge(r *request, err error) bool {
	if errors.Is(err, ErrGone) {
		c.cancel()
		c.forget(r)
		return false
	}
	r.err = errnoOf(err)
	return true
}

// forget gives a request back that was answered, or never will be.
func (c *conn) forget(r *request) {
	r.release()
	c.running.Done()
}

func (c *conn) execute(r *request) error {
	switch r.command {
	case cmdRead:
		r.allocate()
		for _, p := range r.pieces {
			if err := c.volume.ReadAt(c.ctx, p.buf, p.off); err != nil {
				r.failedAt, r.at = true, max(uint64(p.off), r.off)
				return err
			}
		}
		return nil
	case cmdWrite:
		return c.locked(r, c.write)
	case cmdWriteZeroes:
		return c.locked(r, c.zero)
	case cmdTrim:
		return c.locked(r, c.trim)
	case cmdFlush:
		return c.volume.Flush(c.ctx)
	case cmdBlockStatus:
		return c.blockStatus(r)
	}
	return nil // CACHE: nothing to do (replication.md section 9.4)
}

// locked runs a changing request under the range lock: whole blocks share, ragged ones are alone.
func (c *conn) locked(r *request, f func(*request) error) error {
	if r.from == r.to {
		return nil
	}
	r.span = span{from: r.from, to: r.to, alone: r.ragged() && r.command != cmdTrim}
	if err := c.ranges.lock(c.ctx, &r.span); err != nil {
		return err
	}
	defer c.ranges.unlock(&r.span)
	return f(r)
}

func (c *conn) write(r *request) error {
	if r.ragged() {
		if err := c.completeEdges(r); err != nil {
			return err
		}
	}
	for _, p := range r.pieces {
		if err := c.volume.WriteAt(c.ctx, p.buf, p.off, r.fua()); err != nil {
			return err
		}
	}
	return nil
}

// completeEdges reads what the first and the last block keep around the payload.
func (c *conn) completeEdges(r *request) error {
	old := block.Get(block.Unit)
	defer block.Put(old)
	first, last := &r.pieces[0], &r.pieces[len(r.pieces)-1]
	begin, end := int64(r.off), int64(r.off)+int64(r.n)
	if keep := begin - r.from; keep > 0 {
		if err := c.volume.ReadAt(c.ctx, old, r.from); err != nil {
			return err
		}
		copy(first.buf[:keep], old)
	}
	if keep := r.to - end; keep > 0 {
		if err := c.volume.ReadAt(c.ctx, old, r.to-block.Unit); err != nil {
			return err
		}
		copy(last.buf[last.n-keep:], old[block.Unit-keep:])
	}
	return nil
}

// zero zeroes whole blocks and rewrites ragged edges.
func (c *conn) zero(r *request) error {
	begin, end := int64(r.off), int64(r.off)+int64(r.n)
	from := (begin + block.Unit - 1) &^ (block.Unit - 1)
	to := end &^ (block.Unit - 1)
	if begin < from {
		if err := c.zeroEdge(r, begin, min(end, from)); err != nil {
			return err
		}
	}
	for at := from; at < to; at += PieceBytesMax {
		if err := c.volume.Zero(c.ctx, at, min(PieceBytesMax, to-at), r.fua()); err != nil {
			return err
		}
	}
	if end > to && to >= from {
		return c.zeroEdge(r, to, end)
	}
	return nil
}

// zeroEdge zeroes bytes within one block.
func (c *conn) zeroEdge(r *request, begin, end int64) error {
	buf := block.Get(block.Unit)
	defer block.Put(buf)
	at := begin &^ (block.Unit - 1)
	if err := c.volume.ReadAt(c.ctx, buf, at); err != nil {
		return err
	}
	clear(buf[begin-at : end-at])
	return c.volume.WriteAt(c.ctx, buf, at, r.fua())
}

func (c *conn) trim(r *request) error {
	for at := r.from; at < r.to; at += PieceBytesMax {
		if err := c.volume.Trim(c.ctx, at, min(PieceBytesMax, r.to-at)); err != nil {
			return err
		}
	}
	if r.fua() { // a trim that zeroes must be durable, too
		return c.volume.Flush(c.ctx)
	}
	return nil
}

// errnoOf is how an error of a volume looks to the client.
func errnoOf(err error) errno {
	if err == nil {
		return eOK
	}
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		switch e := errno(number); e {
		case ePERM, eNOMEM, eINVAL, eNOSPC, eNOTSUP:
			return e
		default: // nothing for the others
		}
	}
	return eIO
}
