package ns

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"duet/build/lab/control"
)

// service is one unit and what became of it.
type service struct {
	unit      Unit
	state     control.Service
	listeners []*os.File
	notify    string      // path of its notify socket
	deaths    []time.Time // within restartWindow
	stopped   bool        // by a verb: no restart
	again     bool        // start when it has ended
}

// The states of a service, as Status shows them.
const (
	stateStarting = "starting"
	stateReady    = "ready"
	stateRunning  = "running"
	stateWaiting  = "waiting"
	stateStopped  = "stopped"
)

func (s *supervisor) add(u Unit) error {
	if u.Name == "" || len(u.Name) > nameBytesMax || strings.ContainsAny(u.Name, "/ ") || len(u.Argv) == 0 {
		return fmt.Errorf("unit %q: needs a name without slash and blank, and a command", u.Name)
	}
	if s.units[u.Name] != nil {
		return fmt.Errorf("unit %s: named twice", u.Name)
	}
	svc := &service{unit: u, stopped: u.Stopped, state: control.Service{State: stateStopped, Since: time.Now()}}
	for _, sock := range u.Sockets {
		f, err := listen(sock)
		if err != nil {
			return fmt.Errorf("unit %s: socket %s: %w", u.Name, sock.Name, err)
		}
		svc.listeners = append(svc.listeners, f)
	}
	if u.Notify {
		if err := s.listenNotify(svc); err != nil {
			return fmt.Errorf("unit %s: notify socket: %w", u.Name, err)
		}
	}
	s.units[u.Name] = svc
	return nil
}

// listen opens a listening unix socket. It stays open over all restarts of the service, so clients that connect in
// between wait in the backlog.
func listen(sock Socket) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(sock.Path), 0o755); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), sock.Name)
	mode := os.FileMode(sock.Mode)
	if mode == 0 {
		mode = defaultSocketMod
	}
	if err := errors.Join(
		unix.Bind(fd, &unix.SockaddrUnix{Name: sock.Path}),
		os.Chmod(sock.Path, mode),
		unix.Listen(fd, listenBacklog),
	); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// listenNotify serves sd_notify(3) for one service: READY=1 is all the lab needs.
func (s *supervisor) listenNotify(svc *service) error {
	if err := os.MkdirAll("/run/lab", 0o755); err != nil {
		return err
	}
	svc.notify = "/run/lab/notify-" + svc.unit.Name
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: svc.notify, Net: "unixgram"})
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, notifyBytesMax)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if slices.Contains(strings.Split(string(b[:n]), "\n"), "READY=1") {
				s.inbox <- func() {
					if svc.state.PID != 0 {
						s.set(svc, stateReady, "ready")
					}
				}
			}
		}
	}()
	return nil
}

func (s *supervisor) set(svc *service, state, event string) {
	svc.state.State, svc.state.Since = state, time.Now()
	if state == stateWaiting || state == stateStopped {
		svc.state.PID = 0
	}
	st := svc.state
	_ = s.conn.Send(report{Unit: svc.unit.Name, Service: &st, Event: event})
}

// start runs a service once. A failure to start counts as a quick death.
func (s *supervisor) start(svc *service) {
	if svc.state.PID != 0 || svc.stopped {
		return
	}
	pid, err := s.spawn(svc)
	if err != nil {
		svc.state.LastExit = err.Error()
		s.restartLater(svc)
		return
	}
	s.byPID[pid] = svc
	svc.state.PID = pid
	if svc.unit.Notify {
		s.set(svc, stateStarting, "started")
	} else {
		s.set(svc, stateRunning, "started")
	}
}

func (s *supervisor) spawn(svc *service) (int, error) {
	path, err := lookPath(svc.unit.Argv[0])
	if err != nil {
		return 0, err
	}
	out, err := s.openLog(svc.unit.Name)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	files := []uintptr{null.Fd(), out.Fd(), out.Fd()}
	env := environment(svc.unit.Env)
	argv := svc.unit.Argv
	if svc.notify != "" {
		env = append(env, "NOTIFY_SOCKET="+svc.notify)
	}
	if len(svc.listeners) > 0 {
		var names []string
		for i, l := range svc.listeners {
			files = append(files, l.Fd())
			names = append(names, svc.unit.Sockets[i].Name)
		}
		env = append(env, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
		// LISTEN_PID must be the process's own id (sd_listen_fds(3)), known only after the fork: the shell's $$ is
		// it, and exec keeps it.
		argv = append([]string{"sh", "-c", `export LISTEN_PID=$$; exec "$0" "$@"`, path}, argv[1:]...)
		path = "/bin/sh"
	}
	return syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir: "/", Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
}

// openLog returns the write end of a pipe whose lines go to the unit's log with time stamps. The log lies outside the
// node's drives.
func (s *supervisor) openLog(unit string) (*os.File, error) {
	log, err := s.logs.OpenFile(unit+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		log.Close()
		return nil, err
	}
	go stampLines(log, r)
	return w, nil
}

// stampLines copies lines with the time in front until every writer is gone. A line longer than logLineBytesMax is
// split.
func stampLines(log *os.File, r *os.File) {
	defer log.Close()
	defer r.Close()
	in := bufio.NewReaderSize(r, logLineBytesMax)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			b := time.Now().UTC().AppendFormat(nil, "2006-01-02T15:04:05.000000Z ")
			b = append(b, line...)
			if line[len(line)-1] != '\n' {
				b = append(b, '\n')
			}
			_, _ = log.Write(b) // a full disk outside must not stop the service
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if !errors.Is(err, io.EOF) {
				_, _ = fmt.Fprintf(log, "log pipe: %v\n", err)
			}
			return
		}
	}
}

// died records an exit and decides whether to start again.
func (s *supervisor) died(svc *service, w syscall.WaitStatus) {
	if w.Signaled() {
		svc.state.LastExit = "signal " + w.Signal().String()
	} else {
		svc.state.LastExit = fmt.Sprintf("exit code %d", w.ExitStatus())
	}
	svc.state.PID = 0
	switch {
	case svc.again:
		svc.again, svc.stopped = false, false
		s.start(svc)
	case svc.stopped:
		s.set(svc, stateStopped, "stopped")
	case svc.unit.Once && w.Exited() && w.ExitStatus() == 0:
		s.set(svc, stateStopped, "exited")
	default:
		s.restartLater(svc)
	}
}

// restartLater starts the service after restartDelay, or later when it dies again and again.
func (s *supervisor) restartLater(svc *service) {
	now := time.Now()
	svc.deaths = slices.DeleteFunc(svc.deaths, func(t time.Time) bool { return now.Sub(t) > restartWindow })
	svc.deaths = append(svc.deaths, now)
	delay := backOff(len(svc.deaths))
	svc.state.Restarts++
	s.set(svc, stateWaiting, "exited")
	s.later(delay, func() { s.start(svc) })
}

// backOff is the wait before the next start after n deaths within restartWindow.
func backOff(n int) time.Duration {
	delay := restartDelay
	for ; n > restartQuick && delay < restartDelayMax; n-- {
		delay *= 2
	}
	return min(delay, restartDelayMax)
}

func (s *supervisor) unitOrder(o order) error {
	svc := s.units[o.Unit]
	if svc == nil {
		return fmt.Errorf("no unit %q here", o.Unit)
	}
	pid := svc.state.PID
	switch o.Op {
	case opKill:
		if pid == 0 {
			return fmt.Errorf("unit %s is not running", o.Unit)
		}
		return syscall.Kill(pid, syscall.SIGKILL)
	case opStop:
		svc.stopped, svc.again = true, false
		if pid == 0 {
			s.set(svc, stateStopped, "stopped")
			return nil
		}
		s.later(stopGrace, func() {
			if svc.state.PID == pid {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may just have ended
			}
		})
		return syscall.Kill(pid, syscall.SIGTERM)
	case opStart:
		if pid != 0 {
			svc.again = svc.stopped // still on its way down: start when it is there
			return nil
		}
		svc.stopped = false
		s.start(svc)
	default: // the others as below
	}
	return nil
}

// environment of everything that runs in a machine: nothing of the caller's leaks in.
func environment(more []string) []string {
	return append([]string{"PATH=" + searchPath, "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"}, more...)
}

// lookPath finds a program in the machine's search path.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for dir := range strings.SplitSeq(searchPath, ":") {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: not found in %s", name, searchPath)
}
