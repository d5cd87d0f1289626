package drive

import (
	"fmt"
	"syscall"
)

// Op is a kind of request.
type Op uint8

// The kinds of request.
const (
	OpRead Op = iota
	OpWrite
	OpFlush
)

// ParseOp reads read, write or flush.
func ParseOp(s string) (Op, error) {
	switch s {
	case "read":
		return OpRead, nil
	case "write":
		return OpWrite, nil
	case "flush":
		return OpFlush, nil
	}
	return 0, fmt.Errorf("request %q: must be read, write or flush", s)
}

// Fault makes requests of one kind fail with EIO or hang.
type Fault struct {
	Skip int  // let so many pass first
	Once bool // strike once, then be gone: fsyncgate
	Hang bool // wait until the power is cut or the fault is lifted, instead of EIO
}

// SetFault sets or, with nil, lifts the fault of one kind of request.
func (d *Drive) SetFault(o Op, f *Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f == nil {
		delete(d.fault, o)
	} else {
		c := *f
		d.fault[o] = &c
	}
	d.gone.Broadcast()
}

// strike applies the fault of this kind of request, if there is one.
func (d *Drive) strike(front int, o Op) syscall.Errno {
	f := d.fault[o]
	if f == nil {
		return 0
	}
	if f.Skip > 0 {
		f.Skip--
		return 0
	}
	if f.Once {
		delete(d.fault, o)
	}
	if !f.Hang {
		return syscall.EIO
	}
	for d.fault[o] == f && front > d.dead {
		d.gone.Wait()
	}
	if front <= d.dead {
		d.count.CutErrors++
		return syscall.EIO
	}
	return 0
}
