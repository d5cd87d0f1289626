package pair

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"duet/appliance/membership"
)

// leaseGuard kills every workload when the deadline of the last grant passes, whatever the core is doing (protocol.md
// section 5.1, 4; hardware.md section 7, link 1). It lives on a thread of its own and waits on CLOCK_BOOTTIME in the
// kernel, so that neither a busy scheduler nor a stuck driver can hold it up.
type leaseGuard struct {
	deadline atomic.Int64 // 0: none
	wake     int          // eventfd
	timer    int          // timerfd
	stopped  atomic.Bool
	done     chan struct{}
	ended    func(at membership.Boottime) // kills; called on the guard's thread
}

func newLeaseGuard(ended func(membership.Boottime)) (*leaseGuard, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("lease guard: %w", err)
	}
	timer, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lease guard: %w", err), unix.Close(wake))
	}
	g := &leaseGuard{wake: wake, timer: timer, done: make(chan struct{}), ended: ended}
	go g.run()
	return g, nil
}

// set moves the deadline; 0 takes it away.
func (g *leaseGuard) set(at membership.Boottime) {
	if g.deadline.Swap(int64(at)) != int64(at) {
		g.kick()
	}
}

func (g *leaseGuard) kick() {
	one := [8]byte{1}
	_, _ = unix.Write(g.wake, one[:]) //nolint:errcheck // full means that the thread is about to wake anyway
}

// stop ends the thread; the deadline is not enforced any more.
func (g *leaseGuard) stop() {
	g.stopped.Store(true)
	g.kick()
	<-g.done
}

func (g *leaseGuard) run() {
	runtime.LockOSThread()
	defer close(g.done)
	defer func() { _ = errors.Join(unix.Close(g.wake), unix.Close(g.timer)) }() //nolint:errcheck // nothing is in them
	var buf [8]byte
	for !g.stopped.Load() {
		at := g.deadline.Load()
		spec := unix.ItimerSpec{Value: unix.NsecToTimespec(at)} // zero disarms
		if err := unix.TimerfdSettime(g.timer, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
			panic(fmt.Sprintf("lease guard: %v", err)) // a node without a lease guard must not run
		}
		fds := []unix.PollFd{{Fd: int32(g.wake), Events: unix.POLLIN}, {Fd: int32(g.timer), Events: unix.POLLIN}} //nolint:gosec // descriptors
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			panic(fmt.Sprintf("lease guard: %v", err))
		}
		if fds[0].Revents != 0 {
			_, _ = unix.Read(g.wake, buf[:]) //nolint:errcheck // it only empties the counter
		}
		if fds[1].Revents != 0 && at != 0 && g.deadline.CompareAndSwap(at, 0) {
			g.ended(membership.Boottime(at))
		}
	}
}
