package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"duet/build/lab/control"
	"duet/build/lab/core"
)

// upTimeout bounds Up; endTimeout the end of the core after its socket closed. Budgets are 3 s and 1 s (lab.md
// section 14); a loaded machine takes longer.
const (
	upTimeout  = 90 * time.Second
	endTimeout = 20 * time.Second
)

// child is the core as a process of this one.
type child struct {
	conn *control.Conn
	done chan struct{} // closed when the core, and with it everything below, is gone
	pid  int
	keep bool
	dir  string
}

// launch starts the core in its namespaces and waits until it is up.
func launch(ctx context.Context, cfg core.Config, keep bool, lock *os.File, progress func(string)) (*child, error) {
	conn, far, err := control.Pair()
	if err != nil {
		return nil, err
	}
	defer far.Close()
	log, err := os.OpenFile(filepath.Join(cfg.State, "core.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("lab %s: %w", cfg.Name, err)
	}
	defer log.Close()
	c := &child{conn: conn, done: make(chan struct{}), keep: keep, dir: cfg.State}
	started := make(chan error)
	go c.run([]*os.File{far, lock}, log, started)
	if err := <-started; err != nil {
		conn.Close()
		return nil, fmt.Errorf("lab %s: start of the core: %w", cfg.Name, err)
	}
	cfg.PID = c.pid
	if err := c.greet(ctx, cfg, progress); err != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		return nil, errors.Join(err, c.end(end))
	}
	return c, nil
}

// run forks the core and waits for its end on one locked thread: Pdeathsig strikes when the *thread* that forked ends
// (prctl(2)), so that thread must live as long as this process.
func (c *child) run(inherited []*os.File, log *os.File, started chan<- error) {
	runtime.LockOSThread()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{core.Argv0}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Dir: "/",
		Stdout: log, Stderr: log, ExtraFiles: inherited,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS |
				syscall.CLONE_NEWIPC,
			Pdeathsig: syscall.SIGKILL,
			Setsid:    true, // a Ctrl-C at the terminal is for this process only
		},
	}
	err := cmd.Start()
	if err == nil {
		c.pid = cmd.Process.Pid
	}
	started <- err
	if err == nil {
		_ = cmd.Wait() // its exit code says nothing: it is ended by closing its socket or by a signal
		close(c.done)
	}
}

// greet sends the configuration and listens until the core is up.
func (c *child) greet(ctx context.Context, cfg core.Config, progress func(string)) error {
	ctx, cancel := context.WithTimeout(ctx, upTimeout)
	defer cancel()
	defer c.conn.CloseOn(ctx)()
	if err := c.conn.Send(cfg); err != nil {
		return err
	}
	for {
		var g core.Greeting
		if _, err := c.conn.Receive(&g); err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return fmt.Errorf("lab %s did not come up: %w%s", cfg.Name, err, tail(filepath.Join(cfg.State, "core.log")))
		}
		switch {
		case g.Error != "":
			return fmt.Errorf("lab %s did not come up: %s", cfg.Name, g.Error)
		case g.Ready:
			return nil
		}
		progress(g.Progress)
	}
}

// end closes the lifeline and waits until the core is gone; a core that does not go is killed.
func (c *child) end(ctx context.Context) error {
	c.conn.Close()
	select {
	case <-c.done:
	case <-time.After(endTimeout):
		_ = syscall.Kill(c.pid, syscall.SIGKILL) // gone in between: fine
		<-c.done
	case <-ctx.Done():
		_ = syscall.Kill(c.pid, syscall.SIGKILL)
		<-c.done
	}
	return sweep(c.dir, c.keep)
}

// sweep removes what a lab leaves in its state folder: disks and uppers, unless they are to be kept. Logs stay.
func sweep(state string, keep bool) error {
	failed := os.Remove(filepath.Join(state, control.SocketName))
	if errors.Is(failed, os.ErrNotExist) {
		failed = nil
	}
	if keep {
		return failed
	}
	leftovers := []string{filepath.Join(state, "disks")}
	for _, m := range []string{A, B, Witness, Client} {
		for _, dir := range []string{"upper", "work", "root", "machine-id"} {
			leftovers = append(leftovers, filepath.Join(state, m, dir))
		}
	}
	fronts, err := filepath.Glob(filepath.Join(state, "?", "*.*")) // empty mount points of the last boots
	if err != nil {
		return err
	}
	for _, path := range append(leftovers, fronts...) {
		failed = errors.Join(failed, os.RemoveAll(path))
	}
	return failed
}

// tail is the end of a log, for an error message.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return ""
	}
	const most = 2000
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return "\n" + strings.TrimSpace(string(b))
}
