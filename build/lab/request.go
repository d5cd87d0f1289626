package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"duet/build/lab/control"
)

// request makes one request on a connection of its own.
func (l *Lab) request(ctx context.Context, r control.Request, files ...*os.File) (control.Reply, error) {
	var reply control.Reply
	conn, err := control.Dial(l.state)
	if err != nil {
		return reply, err
	}
	defer conn.Close()
	defer conn.CloseOn(ctx)()
	if err := conn.Send(r, files...); err != nil {
		return reply, err
	}
	if _, err := conn.Receive(&reply); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return reply, fmt.Errorf("lab %s: %w", r.Verb, err)
	}
	if reply.Error != "" {
		return reply, errors.New(reply.Error)
	}
	return reply, nil
}

// ExitError is a command that ended with another code than 0.
type ExitError struct {
	Machine string
	Argv    []string
	Code    int
	Stderr  string
}

// Error names the command, the code and what it said.
func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: %s: exit code %d: %s", e.Machine, strings.Join(e.Argv, " "), e.Code, strings.TrimSpace(e.Stderr))
}

// Exec runs a command in a machine and returns what it printed. A code other than 0 is an *ExitError with its
// standard error; when ctx ends the command is killed.
func (l *Lab) Exec(ctx context.Context, machine string, argv ...string) ([]byte, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return l.ExecWith(ctx, machine, null, argv...)
}

// ExecWith is Exec with a standard input.
func (l *Lab) ExecWith(ctx context.Context, machine string, stdin *os.File, argv ...string) ([]byte, error) {
	var out, complaint bytes.Buffer
	var wg sync.WaitGroup
	outW, err := collect(&wg, &out)
	if err != nil {
		return nil, err
	}
	errW, err := collect(&wg, &complaint)
	if err != nil {
		outW.Close()
		return nil, err
	}
	code, err := l.ExecFiles(ctx, machine, stdin, outW, errW, argv...)
	outW.Close()
	errW.Close()
	if err != nil {
		return nil, err // what the command left running may hold the pipes: not waited for
	}
	wg.Wait()
	if code != 0 {
		return out.Bytes(), &ExitError{Machine: machine, Argv: argv, Code: code, Stderr: complaint.String()}
	}
	return out.Bytes(), nil
}

// collect copies what is written to the returned file into b.
func collect(wg *sync.WaitGroup, b *bytes.Buffer) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	wg.Go(func() {
		defer r.Close()
		_, _ = io.Copy(b, r) // the end of the pipe is all there is to learn
	})
	return w, nil
}

// ExecFiles runs a command in a machine on the caller's own files and returns its exit code (128 + n: signal n).
func (l *Lab) ExecFiles(ctx context.Context, machine string, stdin, stdout, stderr *os.File, argv ...string) (int, error) {
	r, err := l.request(ctx, control.Request{Verb: "exec", Args: append([]string{machine}, argv...)}, stdin, stdout, stderr)
	return r.Exit, err
}

// downAttached ends a lab that another process started: its starter sees the core go.
func (l *Lab) downAttached(ctx context.Context) error {
	s, err := l.Status(ctx)
	if err != nil {
		return err
	}
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("lab %s: core %d: %w", s.Name, s.PID, err)
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if err := syscall.Kill(s.PID, 0); errors.Is(err, syscall.ESRCH) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lab %s: core %d does not end: %w", s.Name, s.PID, ctx.Err())
		case <-tick.C:
		}
	}
}

// Done is closed when the lab has ended, whoever ended it. It is nil for an attached lab.
func (l *Lab) Done() <-chan struct{} {
	if l.child == nil {
		return nil
	}
	return l.child.done
}
