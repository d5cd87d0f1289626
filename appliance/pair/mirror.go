package pair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"duet/replication/control"
)

// Times of duet-mirrord.
const (
	confirmTimeout = time.Second            // protocol.md 5.1: Grant and Revoke
	reapTimeout    = time.Second            // from SIGKILL to gone
	redialFirst    = 20 * time.Millisecond  // its restart by init takes well under a second
	redialMax      = 200 * time.Millisecond // and nothing is served before it has its grant again
)

// errMirrorAlive: it neither confirms nor dies. Only a reset of the node is left.
var errMirrorAlive = errors.New("duet-mirrord neither confirms nor dies")

// mirrord keeps the connection to duet-mirrord and what it must be told: configuration and grant. Whenever a process
// (the same or a new one) answers, it is configured and granted anew before anybody else may talk to it.
type mirrord struct {
	socket string
	bootID string
	log    *slog.Logger
	tell   func(control.Event) // in order; must not block for long
	state  func(up bool)       // connected and granted, or not

	mu     sync.Mutex // held during calls: what is told is told in order
	client *control.Client
	pidfd  int // of the last process that answered; -1: none yet
	config *control.Config
	grant  control.Grant // Mode Revoked: none
	told   bool          // the driver has decided on a grant since this duetd started
	seq    uint64
}

func newMirrord(socket, bootID string, log *slog.Logger) *mirrord {
	return &mirrord{socket: socket, bootID: bootID, log: log, pidfd: -1}
}

// run dials for ever.
func (m *mirrord) run(ctx context.Context) {
	wait := redialFirst
	for ctx.Err() == nil {
		c, err := m.connect(ctx)
		if err != nil {
			m.log.Debug("duet-mirrord is not there", "error", err.Error(), "again_in", wait)
			pause(ctx, wait)
			wait = min(2*wait, redialMax)
			continue
		}
		wait = redialFirst
		m.log.Info("duet-mirrord answers", "instance", c.Instance())
		m.state(true)
		m.follow(ctx, c)
		m.log.Warn("duet-mirrord is gone", "error", fmt.Sprint(c.Err()))
		m.mu.Lock()
		m.client = nil
		m.mu.Unlock()
		m.state(false)
		pause(ctx, redialFirst)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pidfd >= 0 {
		_ = unix.Close(m.pidfd)
		m.pidfd = -1
	}
}

func (m *mirrord) follow(ctx context.Context, c *control.Client) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	for e := range c.Events() {
		m.tell(e)
	}
	_ = c.Close()
}

// connect dials and brings whoever answers up to what holds now.
func (m *mirrord) connect(ctx context.Context) (*control.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	c, err := control.Dial(ctx, m.socket)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	err = m.adopt(c)
	if err == nil {
		err = m.bringUp(ctx, c)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	m.client = c
	return c, nil
}

func (m *mirrord) adopt(c *control.Client) error {
	pid, err := c.PID()
	if err != nil {
		return fmt.Errorf("process of duet-mirrord: %w", err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("process %d of duet-mirrord: %w", pid, err)
	}
	if m.pidfd >= 0 {
		_ = unix.Close(m.pidfd)
	}
	m.pidfd = fd
	return nil
}

func (m *mirrord) bringUp(ctx context.Context, c *control.Client) error {
	if m.config != nil {
		if err := c.Configure(ctx, *m.config); err != nil {
			return err
		}
	}
	if !m.told { // a duetd that goes on from its snapshot leaves the grant of the one before as it is
		return nil
	}
	if m.grant.Mode == control.Revoked {
		return c.Revoke(ctx)
	}
	m.grant.Sequence = m.next()
	if err := c.Grant(ctx, m.grant); err != nil {
		return err
	}
	// A drain of the connection before has failed with it; its hold would outlive it if the process is the same.
	_, err := c.Drain(ctx, nil)
	return err
}

// next grows over restarts of duetd too: it begins at the snapshot's, or at the clock of this boot.
func (m *mirrord) next() uint64 {
	m.seq++
	return m.seq
}

// configure says what exists; it reaches duet-mirrord now or when it answers again.
func (m *mirrord) configure(ctx context.Context, cfg *control.Config) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.config = cfg
	if m.client == nil || cfg == nil {
		return nil
	}
	return m.client.Configure(ctx, *cfg)
}

// set replaces the grant. When it returns nil, nothing is served under the old one any more: it was confirmed, or the
// process is dead. The new one reaches a restarted process by bringUp.
func (m *mirrord) set(ctx context.Context, g control.Grant) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmTimeout)
	defer cancel()
	g.BootID, g.Sequence = m.bootID, m.next()
	m.grant, m.told = g, true
	if m.client != nil {
		var err error
		if g.Mode == control.Revoked {
			err = m.client.Revoke(ctx)
		} else {
			err = m.client.Grant(ctx, g)
		}
		if err == nil {
			return nil
		}
		m.log.Error("duet-mirrord does not confirm; it is killed", "error", err.Error())
		_ = m.client.Close()
		m.client = nil
	}
	return m.kill()
}

// kill makes sure that the last process that answered is gone.
func (m *mirrord) kill() error {
	if m.pidfd < 0 {
		return nil // none has answered since this duetd started; driver.start waits for the first one
	}
	err := unix.PidfdSendSignal(m.pidfd, unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errMirrorAlive, err)
	}
	deadline := time.Now().Add(reapTimeout)
	for {
		left := time.Until(deadline)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(m.pidfd), Events: unix.POLLIN}}, int(max(left, 0).Milliseconds())) //nolint:gosec // a descriptor
		if n == 1 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) || left <= 0 {
			return errMirrorAlive
		}
	}
}

// copyLegs asks for the copy of a session.
func (m *mirrord) copyLegs(ctx context.Context, session uint64) error {
	c := m.current()
	if c == nil {
		return errMirrorGone
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	return c.Copy(ctx, session)
}

func (m *mirrord) current() *control.Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.client
}

// status asks duet-mirrord; false: it does not answer.
func (m *mirrord) status(ctx context.Context) (control.Status, bool) {
	c := m.current()
	if c == nil {
		return control.Status{}, false
	}
	s, err := c.Status(ctx)
	return s, err == nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
