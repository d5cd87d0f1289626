package ns

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"duet/build/lab/control"
)

// supervisor is PID 1 after the boot. One goroutine, run, owns all of it: children are started, reaped and counted in
// one place, so a child's death is never seen before its start is recorded.
//
// SIGCHLD is caught, never ignored: an ignored SIGCHLD is inherited over exec and libvirt's probe of QEMU then fails
// with "Cannot find suitable emulator". Children are reaped with wait4(-1) only; exec.Cmd.Wait beside it would lose
// exits (lab.md section 15).
type supervisor struct {
	conn   *control.Conn
	logs   *os.Root
	units  map[string]*service
	byPID  map[int]*service
	execs  map[int]uint64 // pid → the order it answers
	orders chan incoming
	inbox  chan func() // notify messages, timers
}

type incoming struct {
	order order
	files []*os.File
	err   error
}

func runInit() error {
	unix.CloseOnExec(3)
	conn, err := control.FromFile(os.NewFile(3, "core"))
	if err != nil {
		return err
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	s := &supervisor{
		conn: conn, units: map[string]*service{}, byPID: map[int]*service{}, execs: map[int]uint64{},
		orders: make(chan incoming), inbox: make(chan func()),
	}
	if err := conn.Send(report{Event: awake}); err != nil {
		return err
	}
	go s.receive()
	return s.run(children)
}

func (s *supervisor) receive() {
	for {
		var in incoming
		in.files, in.err = s.conn.Receive(&in.order)
		s.orders <- in
		if in.err != nil {
			return
		}
	}
}

func (s *supervisor) run(children <-chan os.Signal) error {
	for {
		select {
		case in := <-s.orders:
			if in.err != nil { // the core is gone, and this namespace with it in a moment
				if errors.Is(in.err, io.EOF) {
					return errors.New("the core closed the connection")
				}
				return in.err
			}
			s.obey(in)
		case f := <-s.inbox:
			f()
		case <-children:
			s.reap()
		}
	}
}

func (s *supervisor) obey(in incoming) {
	o := in.order
	switch o.Op {
	case opBoot:
		s.answer(o.ID, 0, s.boot(o.Spec))
	case opExec:
		s.exec(o, in.files)
	case opCancel:
		for pid, id := range s.execs {
			if id == o.Of {
				_ = syscall.Kill(-pid, syscall.SIGKILL) // its own session, so this is the whole command
			}
		}
	case opKill, opStop, opStart:
		s.answer(o.ID, 0, s.unitOrder(o))
	}
	for _, f := range in.files {
		f.Close()
	}
}

func (s *supervisor) answer(id uint64, exit int, err error) {
	r := report{ID: id, Exit: exit}
	if err != nil {
		r.Error = err.Error()
	}
	_ = s.conn.Send(r) // when the core is gone so are we
}

func (s *supervisor) boot(spec *Spec) error {
	syscall.Umask(0o022)
	var err error
	if s.logs, err = buildRoot(spec); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	if err := writeFiles(spec); err != nil {
		return err
	}
	if err := configureNetwork(spec.Interfaces); err != nil {
		return err
	}
	for _, u := range spec.Units {
		if err := s.add(u); err != nil {
			return err
		}
	}
	for _, u := range spec.Units {
		if !u.Stopped {
			s.start(s.units[u.Name])
		}
	}
	return nil
}

// exec starts a command for the core; its exit is reported by reap.
func (s *supervisor) exec(o order, files []*os.File) {
	if len(files) != 3 || len(o.Argv) == 0 {
		s.answer(o.ID, 127, errors.New("exec needs a command and three files"))
		return
	}
	if len(s.execs) >= execsPerNodeMax {
		s.answer(o.ID, 127, fmt.Errorf("already %d commands run here", execsPerNodeMax))
		return
	}
	path, err := lookPath(o.Argv[0])
	if err != nil {
		s.answer(o.ID, 127, err)
		return
	}
	pid, err := syscall.ForkExec(path, o.Argv, &syscall.ProcAttr{
		Dir: "/", Env: environment(nil),
		Files: []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		s.answer(o.ID, 126, fmt.Errorf("%s: %w", path, err))
		return
	}
	s.execs[pid] = o.ID
}

// reap collects every dead child: services, commands, and orphans such as the QEMU processes libvirt detaches.
func (s *supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if svc := s.byPID[pid]; svc != nil {
			delete(s.byPID, pid)
			s.died(svc, status)
		}
		if id, ok := s.execs[pid]; ok {
			delete(s.execs, pid)
			s.answer(id, exitCode(status), nil)
		}
	}
}

func exitCode(w syscall.WaitStatus) int {
	if w.Signaled() {
		return 128 + int(w.Signal())
	}
	return w.ExitStatus()
}

// later runs f on the owner's goroutine after d.
func (s *supervisor) later(d time.Duration, f func()) { time.AfterFunc(d, func() { s.inbox <- f }) }
