// Package ns is a machine made of namespaces: PID, mount, network, UTS, IPC and time; its root is an overlay over the
// machine's own root; PID 1 is a small Go init that is this same executable.
//
// Body is the core's side: start, kill without farewell, freeze, exec, orders to the init. Init (reached through
// Reexec) is the inside: it puts the root together, configures the network, starts and supervises the services.
//
// What a power-on makes new, as real hardware does: boot id, CLOCK_BOOTTIME and CLOCK_MONOTONIC, /run, /tmp, process
// ids. What stays: the overlay's upper (the machine's own files), the drives. What is shared with the machine and
// cannot be otherwise: the kernel, its log, CLOCK_REALTIME, the page cache (which is why drives are outside).
//
// A body refuses nothing and repairs nothing: Kill kills, whatever state the init is in. Freeze is SIGSTOP of every
// process of the PID namespace instead of a freezer cgroup: it works on every machine, and it leaves no cgroup behind
// when the lab is killed. Seen from the network both are the same: the kernel goes on answering.
package ns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"duet/build/lab/control"
)

// Clocks are the offsets of the machine's monotonic and boot clocks against the real ones.
type Clocks struct{ Offset time.Duration }

// Body is one machine from power-on to death.
type Body struct {
	machine string
	pid     int
	conn    *control.Conn
	done    chan struct{} // closed when PID 1 is reaped: then no process of the machine is left
	onEvent func(unit, event string, s control.Service)

	mu       sync.Mutex
	nextID   uint64
	waiting  map[uint64]chan report
	services map[string]control.Service
}

// Start clones the namespaces and returns when the init is there. It waits for Boot; until then the core can put
// network interfaces into the namespace of PID. Not earlier: while a thread of the process executes the init, the
// kernel knows the process id but no namespaces of it (ESRCH, met). onEvent is called for every change of a service, from one goroutine.
func Start(machine string, clocks Clocks, log *os.File, onEvent func(unit, event string, s control.Service)) (*Body, error) {
	conn, far, err := control.Pair()
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       []string{initName, strconv.FormatInt(int64(clocks.Offset), 10)},
		Env:        []string{"PATH=" + searchPath},
		Stdout:     log,
		Stderr:     log,
		ExtraFiles: []*os.File{far}, // descriptor 3
		Dir:        "/",
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS |
				syscall.CLONE_NEWIPC,
			Setsid: true,
		},
	}
	b := &Body{
		machine: machine, conn: conn, done: make(chan struct{}), onEvent: onEvent,
		waiting: map[uint64]chan report{}, services: map[string]control.Service{},
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // keep fork and wait on one thread of known state
		err := cmd.Start()
		if err == nil {
			b.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // how PID 1 ended is no news: bodies end by being killed
			close(b.done)
		}
	}()
	err = <-started
	far.Close() // the init's copy is the only one now: its end is heard
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start of machine %s: %w", machine, err)
	}
	var hello report
	if _, err := conn.Receive(&hello); err != nil || hello.Event != awake { // the end of the init ends the wait
		conn.Close()
		return nil, errors.Join(fmt.Errorf("machine %s: its init did not start (see init.log): %w", machine, err), b.Kill())
	}
	go b.listen()
	return b, nil
}

// PID of the init, in the core's PID namespace.
func (b *Body) PID() int { return b.pid }

// Done is closed when no process of the machine is left.
func (b *Body) Done() <-chan struct{} { return b.done }

// Boot gives the init its specification and waits until root, network and services are set up (services are started,
// not necessarily ready).
func (b *Body) Boot(ctx context.Context, s Spec) error {
	_, err := b.order(ctx, order{Op: opBoot, Spec: &s})
	return err
}

// Exec runs argv in the machine with the given stdin, stdout and stderr and returns its exit code. When ctx ends the
// process is killed.
func (b *Body) Exec(ctx context.Context, argv []string, files [3]*os.File) (int, error) {
	r, err := b.order(ctx, order{Op: opExec, Argv: argv}, files[:]...)
	return r.Exit, err
}

// KillUnit sends SIGKILL to a service; the init restarts it.
func (b *Body) KillUnit(ctx context.Context, unit string) error {
	_, err := b.order(ctx, order{Op: opKill, Unit: unit})
	return err
}

// StopUnit ends a service and leaves it stopped.
func (b *Body) StopUnit(ctx context.Context, unit string) error {
	_, err := b.order(ctx, order{Op: opStop, Unit: unit})
	return err
}

// StartUnit starts a stopped service.
func (b *Body) StartUnit(ctx context.Context, unit string) error {
	_, err := b.order(ctx, order{Op: opStart, Unit: unit})
	return err
}

// Services is what the init last said.
func (b *Body) Services() map[string]control.Service {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[string]control.Service, len(b.services))
	maps.Copy(out, b.services)
	return out
}

// Kill ends PID 1 at once and does not wait: most of the time until Done is reaping.
func (b *Body) Kill() error {
	if err := syscall.Kill(b.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill of machine %s: %w", b.machine, err)
	}
	return nil
}

// errGone answers orders to a machine that died.
var errGone = errors.New("the machine is gone")

func (b *Body) order(ctx context.Context, o order, files ...*os.File) (report, error) {
	answer := make(chan report, 1)
	b.mu.Lock()
	b.nextID++
	o.ID = b.nextID
	b.waiting[o.ID] = answer
	// Sent under the lock: two senders must not interleave, and a datagram never blocks for long.
	err := b.conn.Send(o, files...)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.waiting, o.ID)
		b.mu.Unlock()
	}()
	if err != nil {
		return report{}, fmt.Errorf("machine %s: %w", b.machine, err)
	}
	select {
	case r := <-answer:
		if r.Error != "" {
			return r, fmt.Errorf("machine %s: %s", b.machine, r.Error)
		}
		return r, nil
	case <-b.done:
		return report{}, fmt.Errorf("machine %s: %w", b.machine, errGone)
	case <-ctx.Done():
		if o.Op == opExec {
			b.mu.Lock()
			_ = b.conn.Send(order{Op: opCancel, Of: o.ID}) // a dead machine has nothing left to cancel
			b.mu.Unlock()
		}
		return report{}, fmt.Errorf("machine %s: %s: %w", b.machine, o.Op, ctx.Err())
	}
}

// listen hands reports to those who wait for them, until the machine is gone.
func (b *Body) listen() {
	defer b.conn.Close()
	for {
		var r report
		if _, err := b.conn.Receive(&r); err != nil {
			return
		}
		b.mu.Lock()
		if r.Service != nil {
			b.services[r.Unit] = *r.Service
		}
		answer := b.waiting[r.ID]
		b.mu.Unlock()
		switch {
		case answer != nil:
			answer <- r
		case r.Service != nil:
			b.onEvent(r.Unit, r.Event, *r.Service)
		}
	}
}
