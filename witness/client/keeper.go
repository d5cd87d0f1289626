package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"duet/witness/wire"
)

// keeper owns the connections and the waiting requests of a client; its loop is the only code that touches them.
type keeper struct {
	c     *Client
	asks  map[key]*waiting
	late  []wire.Reply // oldest first
	lines []*line      // oldest first
	dials []*dial      // oldest first

	wanted   bool          // somebody asked once: keep a connection from then on
	retry    time.Duration // pause after the next failure
	lastDial time.Time
	nextDial time.Time
	lastErr  error

	dialed chan dialResult
	events chan lineEvent
}

type waiting struct {
	request wire.Request
	waiters []*waiter
}

type dial struct{ cancel context.CancelFunc }

type dialResult struct {
	dial *dial
	conn net.Conn
	err  error
}

func newKeeper(c *Client) *keeper {
	return &keeper{c: c, asks: make(map[key]*waiting), retry: retryFirst, dialed: make(chan dialResult), events: make(chan lineEvent)}
}

func (k *keeper) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		k.c.open.Store(len(k.lines) > 0)
		timer.Reset(k.act(time.Now()))
		select {
		case a := <-k.c.asks:
			k.ask(a)
		case w := <-k.c.quits:
			k.quit(w)
		case r := <-k.dialed:
			k.dialEnded(r)
		case e := <-k.events:
			k.lineEvent(e)
		case <-timer.C:
		case <-k.c.ctx.Done():
			for _, l := range k.lines {
				l.close()
			}
			return
		}
	}
}

// ask enters a call: a reply that came before it, or the newest line, or the next one.
func (k *keeper) ask(a ask) {
	k.wanted = true
	for i, reply := range k.late {
		if (key{reply.Op, reply.Nonce}) == a.waiter.key {
			k.late = slices.Delete(k.late, i, i+1)
			a.waiter.answer <- answer{reply: reply}
			return
		}
	}
	w := k.asks[a.waiter.key]
	if w == nil {
		if len(k.asks) >= asksMax {
			a.waiter.answer <- answer{err: ErrBusy}
			return
		}
		w = &waiting{request: a.request}
		k.asks[a.waiter.key] = w
	}
	w.waiters = append(w.waiters, a.waiter)
	if len(k.lines) > 0 {
		k.lines[len(k.lines)-1].send(a.request)
		return
	}
	k.hurry()
}

// hurry ends the patience of an idle client: a question to the witness may be all that stands between a frozen node and
// its lease, so it does not wait for the next try of a connection that nobody needed.
func (k *keeper) hurry() {
	if len(k.dials) > 0 || errors.Is(k.lastErr, ErrKeyRefused) || errors.Is(k.lastErr, ErrServerKey) {
		return
	}
	k.retry = retryFirst
	if soon := k.lastDial.Add(retryFirst); soon.Before(k.nextDial) {
		k.nextDial = soon
	}
}

// quit ends a call whose context ended.
func (k *keeper) quit(w *waiter) {
	if entry := k.asks[w.key]; entry != nil {
		entry.waiters = slices.DeleteFunc(entry.waiters, func(other *waiter) bool { return other == w })
		if len(entry.waiters) == 0 {
			delete(k.asks, w.key)
		}
	}
	select {
	case w.answer <- answer{err: k.why()}:
	default: // it was answered at the same moment
	}
}

// why says what stands between a call and its answer.
func (k *keeper) why() error {
	switch {
	case len(k.lines) > 0:
		return fmt.Errorf("witness %s: no reply on an open connection", k.c.cfg.Address)
	case k.lastErr != nil:
		return k.lastErr
	default:
		return fmt.Errorf("witness %s: no connection", k.c.cfg.Address)
	}
}

// act starts what is due and says when to look again.
func (k *keeper) act(now time.Time) time.Duration {
	due, at := k.dialDue()
	if !due {
		return time.Hour
	}
	if wait := at.Sub(now); wait > 0 {
		return wait
	}
	k.startDial(now)
	return hedgeAfter
}

// dialDue says whether another connection is wanted, and from when on.
func (k *keeper) dialDue() (bool, time.Time) {
	if len(k.lines) == 0 {
		return len(k.asks) > 0 || (k.wanted && len(k.dials) == 0), k.nextDial
	}
	if len(k.asks) == 0 {
		return false, time.Time{}
	}
	// The age of a request counts from its first sending on this line, not from the call that waits now: a caller
	// that repeats each 2 s must not keep a dead line alive.
	newest := k.lines[len(k.lines)-1]
	oldest := time.Now()
	for at := range k.asks {
		// One that was not sent found the line full of requests without an answer: it waits as long as the line is silent.
		if since := newest.sent[at]; since.Before(oldest) {
			oldest = since
		}
	}
	return true, later(k.nextDial, later(oldest, newest.heard).Add(hedgeAfter))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (k *keeper) startDial(now time.Time) {
	k.lastDial, k.nextDial = now, now.Add(hedgeAfter)
	if len(k.dials) >= dialsMax {
		k.dials[0].cancel()
		k.dials = k.dials[1:]
	}
	ctx, cancel := context.WithTimeout(k.c.ctx, dialLimit)
	d := &dial{cancel}
	k.dials = append(k.dials, d)
	k.c.done.Go(func() {
		defer cancel()
		conn, err := connect(ctx, k.c.cfg, k.c.tls)
		select {
		case k.dialed <- dialResult{d, conn, err}:
		case <-k.c.ctx.Done():
			if conn != nil {
				conn.Close()
			}
		}
	})
}

func (k *keeper) dialEnded(r dialResult) {
	current := slices.Contains(k.dials, r.dial)
	k.dials = slices.DeleteFunc(k.dials, func(d *dial) bool { return d == r.dial })
	if r.err != nil {
		if current { // a replaced dial fails because it was replaced
			k.failed(r.err)
		}
		return
	}
	for _, d := range k.dials { // this one was faster
		d.cancel()
	}
	k.dials = nil
	l := newLine(k, r.conn)
	k.lines = append(k.lines, l)
	if len(k.lines) > linesMax {
		k.lines[0].close()
		k.lines = k.lines[1:]
	}
	for _, w := range k.asks {
		l.send(w.request)
	}
}

// failed notes why a connection could not be made or kept, and when the next may be tried.
func (k *keeper) failed(err error) {
	if k.lastErr == nil || k.lastErr.Error() != err.Error() {
		k.c.cfg.Log.Warn("no connection to the witness", "address", k.c.cfg.Address, "error", err)
	}
	k.lastErr = err
	pause := k.retry
	k.retry = min(2*k.retry, retryIdleMax)
	if len(k.asks) > 0 {
		pause = min(pause, hedgeAfter)
	}
	if errors.Is(err, ErrKeyRefused) || errors.Is(err, ErrServerKey) {
		pause = max(pause, hedgeAfter)
		k.fail(err) // waiting would not mend it; the caller asks again
	}
	k.nextDial = time.Now().Add(pause)
}

// fail ends all calls that wait.
func (k *keeper) fail(err error) {
	for at, w := range k.asks {
		for _, waiter := range w.waiters {
			waiter.answer <- answer{err: err}
		}
		delete(k.asks, at)
	}
}

func (k *keeper) lineEvent(e lineEvent) {
	if !slices.Contains(k.lines, e.line) {
		return // closed by this side meanwhile
	}
	if e.err != nil {
		k.lines = slices.DeleteFunc(k.lines, func(l *line) bool { return l == e.line })
		e.line.close()
		if len(k.lines) == 0 {
			if e.line.replies > 0 {
				k.retry = retryFirst
			}
			k.failed(e.err)
		}
		return
	}
	e.line.heard = time.Now()
	e.line.replies++
	k.retry, k.lastErr = retryFirst, nil
	k.deliver(e.line, e.reply)
}

// deliver gives a reply to all who wait for it, or keeps it for a repeat.
func (k *keeper) deliver(from *line, reply wire.Reply) {
	at := key{reply.Op, reply.Nonce}
	if _, asked := from.sent[at]; !asked {
		return // answers nothing that was asked here
	}
	delete(from.sent, at)
	w := k.asks[at]
	if w == nil {
		if k.late = append(k.late, reply); len(k.late) > lateMax {
			k.late = k.late[1:]
		}
		return
	}
	delete(k.asks, at)
	for _, waiter := range w.waiters {
		waiter.answer <- answer{reply: reply}
	}
}
