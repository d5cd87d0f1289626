package pdu

import "time"

// SetClock gives a client another clock for the settle rule.
func SetClock(c *Client, now func() time.Time) { c.now = now }
