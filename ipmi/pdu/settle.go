package pdu

import (
	"slices"
	"time"
)

const (
	settleAfter = 10 * time.Second // how late a PDU may carry out what it did not answer (hardware.md section 3.2)
	settleReads = 2                // that agree, each over a new connection
)

// pending are the commands to one outlet that got no answer and may still be carried out.
type pending struct {
	off, on time.Time // the last attempt of each; zero: none
	reads   []bool    // readings after settleAfter, newest last
}

func (p pending) last() time.Time {
	if p.on.After(p.off) {
		return p.on
	}
	return p.off
}

// Settling says whether "on" is blocked for one of these outlets now, and for how long at least. Two readings after
// that time end it.
func (c *Client) Settling(outlets []int) (wait time.Duration, blocked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for outlet, p := range c.unsettled {
		if slices.Contains(outlets, outlet) && !p.off.IsZero() {
			blocked = true
			wait = max(wait, p.last().Add(settleAfter).Sub(c.now()))
		}
	}
	return wait, blocked
}

// attempt notes a command before it is sent: from then on it may be carried out, whatever this side learns. An answer
// takes the note back; what was open before stays open.
func (c *Client) attempt(outlet int, on bool) (answered func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, was := c.unsettled[outlet]
	next := pending{off: before.off, on: before.on}
	if on {
		next.on = c.now()
	} else {
		next.off = c.now()
	}
	c.unsettled[outlet] = next
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if was {
			c.unsettled[outlet] = pending{off: before.off, on: before.on}
		} else {
			delete(c.unsettled, outlet)
		}
	}
}

// reading enters one reading over a new connection and says what it is worth.
func (c *Client) reading(states []bool) []Outlet {
	c.mu.Lock()
	defer c.mu.Unlock()
	outlets := make([]Outlet, len(states))
	for i, on := range states {
		number := i + 1
		p, open := c.unsettled[number]
		if open && c.now().Sub(p.last()) >= settleAfter {
			if len(p.reads) > 0 && p.reads[0] != on {
				p.reads = nil
			}
			p.reads = append(p.reads, on)
			if c.unsettled[number] = p; len(p.reads) >= settleReads {
				delete(c.unsettled, number)
				p = pending{}
			}
		}
		contrary := p.on
		if on {
			contrary = p.off
		}
		outlets[i] = Outlet{Number: number, On: on, Settled: contrary.IsZero()}
	}
	return outlets
}
