package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"duet/replication/block"
	"duet/replication/link"
	"duet/replication/volume/stage"
)

// A volume has one coordinator at a time (stage.Coordinates). Requests of the other node's clients are forwarded to it
// over the lane and carried out there as if they were its own, so both nodes may have the disk open (a live migration)
// and an owner whose leg failed goes on over the other node's leg, with one order of writes (replication.md section 14).
//
// A forwarded request is in one place at a time. The node that forwards waits for the answer, or for the end of the lane;
// only then may it try again, here or there. The coordinator gives a request of a lane that ended no new begin, so what
// is repeated on the next lane, or carried out here, cannot be overtaken by its own past; one that had begun keeps its
// range locked until it is done. Repeating is right because a write is idempotent while its client has no answer.

const (
	// forwardsMax bounds what one volume forwards at a time, within what all may (Env.Room): one that is held leaves places.
	forwardsMax = 8
	// forwardAgain is when a request is tried again that met a node which does not know yet, or not any more, that it
	// coordinates. Grants of one change reach both nodes within a round trip between them.
	forwardAgain = 10 * time.Millisecond
)

// errElsewhere: neither node took the request, because each goes by another grant. It is tried again.
var errElsewhere = errors.New("the other node does not coordinate the volume")

// turn waits until a request may begin, and says whether here or at the other node. A request that came from there is not
// sent back: errElsewhere.
func (v *Volume) turn(ctx context.Context, from *link.Lane, mine func(stage.Facts) bool) (here bool, err error) {
	err = v.await(ctx, func(f stage.Facts) bool {
		here = mine(f)
		if from != nil {
			return here || !stage.Coordinates(f)
		}
		return here || stage.Forwards(f)
	})
	if err == nil && !here && from != nil {
		err = errElsewhere
	}
	return here, err
}

// forward has one request carried out by the coordinator; done is false when it must be tried again. data is what is
// written, or where to put what is read. It is the client's, so what travels is a copy: the client may leave first.
func (v *Volume) forward(ctx context.Context, f *link.Frame, data []byte) (done bool, err error) {
	leave, err := v.place(ctx, f)
	if err != nil {
		return false, err
	}
	lane := v.beginForward(f)
	if lane == nil {
		leave()
		return false, nil
	}
	var own []byte
	if len(data) > 0 {
		own = block.Get(len(data))
	}
	answer := make(chan error, 1)
	take := func(status uint32, err error) {
		switch {
		case err == nil && status == statusDamaged:
			err = errDamaged
		case err == nil && status != statusDone:
			err = errElsewhere
		}
		answer <- err
	}
	if f.Type == link.ProxyRead {
		lane.Ask(f, own, take)
	} else {
		copy(own, data)
		f.Payload = own
		lane.Send(f, take)
	}
	end := func() {
		if own != nil {
			block.Put(own)
		}
		v.endForward()
		leave()
	}
	select {
	case err = <-answer:
	case <-ctx.Done():
		go func() { <-answer; end() }() // it comes, or the lane ends
		return false, ctx.Err()
	}
	if err == nil && f.Type == link.ProxyRead {
		copy(data, own)
	}
	end()
	switch {
	case errors.Is(err, errElsewhere):
		err = v.pause(ctx, forwardAgain)
		return false, err
	case errors.Is(err, errDamaged):
		return false, err
	}
	return err == nil, nil // ErrLost: tried again when there is a way
}

// place waits until a request may be sent: there is room, and nothing that overlaps it is on its way. A client that leaves does
// not take its request back, so what it repeats must not pass it. leave gives all back, when the answer is there.
func (v *Volume) place(ctx context.Context, f *link.Frame) (leave func(), err error) {
	var got []func()
	leave = func() {
		for _, g := range got {
			g()
		}
	}
	for _, room := range []chan struct{}{v.forwards, v.env.Room} {
		if room == nil {
			continue
		}
		select {
		case room <- struct{}{}:
			got = append(got, func() { <-room })
		case <-ctx.Done():
			leave()
			return nil, ctx.Err()
		case <-v.ctx.Done():
			leave()
			return nil, ErrClosed
		}
	}
	if f.Type == link.ProxyFlush {
		return leave, nil
	}
	off, n := int64(f.Offset), int64(f.Length)
	c, err := v.onTheWay.lock(ctx, off/Block, n/Block, f.Type != link.ProxyRead)
	if err != nil {
		leave()
		return nil, err
	}
	got = append(got, func() { v.onTheWay.release(c) })
	return leave, nil
}

func (v *Volume) forwardWrite(ctx context.Context, q *request) (done bool, err error) {
	f := &link.Frame{Type: link.ProxyWrite, Offset: uint64(q.off), Length: uint32(q.n), Sums: q.sums}
	if q.zero {
		f.Type, f.Sums = link.ProxyZero, nil
	}
	if q.fua {
		f.Flags |= link.FUA
	}
	return v.forward(ctx, f, q.p)
}

// beginForward counts a request among the forwarded ones; nil: it may not be forwarded any more.
func (v *Volume) beginForward(f *link.Frame) *link.Lane {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed || v.lane == nil || !stage.Forwards(v.facts) {
		return nil
	}
	v.forwarding++
	f.Volume = v.handle
	return v.lane
}

func (v *Volume) endForward() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.forwarding--; v.forwarding == 0 && v.waiters > 0 {
		v.wake()
	}
}

// pause waits, but not longer than the client or the daemon stays.
func (v *Volume) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-v.ctx.Done():
		return ErrClosed
	}
}

// proxied takes a forwarded request of the other node's clients. It waits for nothing; the answer follows.
func (v *Volume) proxied(l *link.Lane, f *link.Frame) error {
	off, n := int64(f.Offset), int64(f.Length)
	payload := int64(0)
	if f.Type == link.ProxyWrite {
		payload = n
	}
	bad := f.Request == 0 || int64(len(f.Payload)) != payload
	if f.Type != link.ProxyFlush {
		bad = bad || v.inRange(off, n) != nil || n > MaxRequest
	}
	if bad {
		return drop(f, fmt.Errorf("%w: range of a forwarded request", link.ErrFrame))
	}
	v.mu.Lock()
	ctx, mine := v.laneCtx, v.lane == l && !v.closed
	v.mu.Unlock()
	if !mine {
		return drop(f, fmt.Errorf("%w: volume %s has no such lane", link.ErrFrame, v.ID))
	}
	v.spawn(func() { v.serve(ctx, l, f) })
	return nil
}

// serve carries out a forwarded request for as long as this node coordinates the volume.
func (v *Volume) serve(ctx context.Context, l *link.Lane, f *link.Frame) {
	off, n := int64(f.Offset), int64(f.Length)
	var err error
	switch f.Type {
	case link.ProxyRead:
		buf := block.Get(int(n))
		if err = v.read(ctx, buf, off, l); err == nil {
			l.Reply(f.Request, buf, func() { block.Put(buf) })
			return
		}
		block.Put(buf)
	case link.ProxyFlush:
		err = v.flush(ctx, l)
	default:
		q := &request{zero: f.Type == link.ProxyZero, off: off, n: n, p: f.Payload, sums: sumsIn(f), fua: f.Flags&link.FUA != 0, from: l}
		err = v.run(ctx, q)
	}
	_ = drop(f, nil) //nolint:errcheck // always nil
	status := uint32(statusDone)
	switch {
	case errors.Is(err, errDamaged):
		status = statusDamaged
	case err != nil:
		status = statusElsewhere // or the lane is over, and nobody hears it
	}
	l.Ack(f.Request, status)
}
