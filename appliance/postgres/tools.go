package postgres

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// maxToolOutput is what is kept of the end of a program's words.
const maxToolOutput = 16 << 10

// tail keeps the end of what is written, and tells the last line as progress: pg_basebackup and pg_rewind overwrite theirs by \r.
type tail struct {
	buf      bytes.Buffer
	progress func(line string)
}

func (t *tail) Write(b []byte) (int, error) {
	t.buf.Write(b)
	if over := t.buf.Len() - maxToolOutput; over > 0 {
		t.buf.Next(over)
	}
	lines := strings.FieldsFunc(string(b), func(r rune) bool { return r == '\r' || r == '\n' })
	if len(lines) > 0 && t.progress != nil {
		t.progress(strings.TrimSpace(lines[len(lines)-1]))
	}
	return len(b), nil
}

// tool runs one of PostgreSQL's programs as the server's user and returns when it has ended; at the deadline it is killed.
// It dies with this process: what it leaves is marked. No secret is among its arguments.
func (m *Manager) tool(ctx context.Context, timeout time.Duration, stdin, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(m.cfg.Programs, name), args...)
	out := &tail{progress: m.told}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), out, out
	cmd.Dir = "/"
	cmd.Env = []string{"LC_ALL=C", "PATH=" + m.cfg.Programs, "TZ=UTC"}
	cmd.SysProcAttr = m.credential()
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.WaitDelay = time.Second
	runtime.LockOSThread() // Pdeathsig counts from the thread (prctl(2))
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("%s: %w: %s", name, err, lastLines(out.buf.String()))
	}
	return nil
}

// lastLines of a program that failed: what it says last is why.
func lastLines(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\r' || r == '\n' })
	return strings.Join(lines[max(0, len(lines)-4):], "; ")
}

// credential is the server's user; a process that is that user already changes nothing.
func (m *Manager) credential() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 && m.cfg.UID != 0 {
		attr.Credential = &syscall.Credential{Uid: uint32(m.cfg.UID), Gid: uint32(m.cfg.GID)}
	}
	return attr
}
