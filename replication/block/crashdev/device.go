package crashdev

import "duet/replication/block"

// Device is an in-memory block.Device.
type Device struct{ block.Device }

// New makes a device full of zeroes.
func New(size int64) *Device { panic("unfinished") }

// Cut is the device after a power cut now: a new device; the old one is left as it is.
func (d *Device) Cut(seed uint64) *Device { panic("unfinished") }

// FailNth makes the k-th call from now (1 = the next) fail with err; sticky: all later ones too.
func (d *Device) FailNth(k int, err error) { panic("unfinished") }
