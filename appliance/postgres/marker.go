package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// markSeen is for how long the commit must be seen waiting: a hundred times longer than a commit takes.
const markSeen = 100 * time.Millisecond

// mark is G3: with the replay on the standby paused, a commit that asks for remote_apply cannot return if the server
// waits for the standby at all. It must be seen waiting, must return once the replay goes on, and the walsender must be the
// one that was meant, with everything flushed. Whatever else happens proves nothing. The replay is resumed on every path.
//
// A commit that still waits at the end is left alone: its session is not cancelled, its socket is closed, and it ends with
// the others when they are released.
func (m *Manager) mark(ctx context.Context, pid int32) (err error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.MarkTimeout)
	defer cancel()
	watch, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer watch.close()
	marker, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer marker.close()
	if err := m.cfg.Other.PauseReplay(ctx, true); err != nil {
		return errors.Join(fmt.Errorf("pause the replay: %w", err), m.resume()) //nolint:contextcheck // resuming has its own time
	}
	lsn := make(chan string, 1)
	failed := make(chan error, 1)
	go func() {
		// Without a deadline of its own: pgconn would cancel the wait at it. The socket's end ends it.
		rows, err := marker.ask(context.WithoutCancel(ctx), "BEGIN; SET LOCAL synchronous_commit = remote_apply; "+
			"SELECT pg_logical_emit_message(true, 'duet', 'marker'); COMMIT")
		if err != nil || len(rows) != 1 {
			failed <- errors.Join(err, errors.New("the marker did not end well"))
			return
		}
		lsn <- rows[0][0]
	}()
	err = m.seenWaiting(ctx, watch, marker.conn.PID(), lsn, failed)
	if again := m.resume(); err == nil { //nolint:contextcheck // resuming has its own time
		err = again
	}
	if err != nil {
		return err
	}
	select {
	case at := <-lsn:
		return m.flushed(ctx, watch, pid, at)
	case err := <-failed:
		return err
	case <-ctx.Done():
		return errors.New("the marker did not return after the replay was resumed")
	}
}

func (m *Manager) resume() error {
	ctx, cancel := context.WithTimeout(context.Background(), m.cfg.AskTimeout)
	defer cancel()
	if err := m.cfg.Other.PauseReplay(ctx, false); err != nil {
		return fmt.Errorf("resume the replay: %w", err)
	}
	return nil
}

// seenWaiting: the session of the marker waits in SyncRep, and goes on waiting.
func (m *Manager) seenWaiting(ctx context.Context, watch *session, pid uint32, lsn <-chan string, failed <-chan error) error {
	question := fmt.Sprintf("SELECT wait_event FROM pg_stat_activity WHERE pid = %d", pid)
	tick := time.NewTicker(markSeen / 10)
	defer tick.Stop()
	var since time.Time
	for {
		select {
		case <-lsn:
			return errors.New("the marker returned while the replay was paused: the server does not wait for the standby")
		case err := <-failed:
			return err
		case <-ctx.Done():
			return fmt.Errorf("the marker was not seen waiting: %w", ctx.Err())
		case <-tick.C:
		}
		rows, err := watch.ask(ctx, question)
		switch {
		case err != nil:
			return err
		case len(rows) != 1 || rows[0][0] != "SyncRep":
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= markSeen:
			return nil
		}
	}
}

// flushed: the standby, by the same walsender, has everything up to the marker on disk.
func (m *Manager) flushed(ctx context.Context, watch *session, pid int32, at string) error {
	rows, err := watch.ask(ctx, fmt.Sprintf("SELECT pid, flush_lsn >= '%s' FROM pg_stat_replication WHERE application_name = '%s' AND state = 'streaming'", at, m.peerName()))
	if err != nil {
		return err
	}
	if len(rows) != 1 || rows[0][0] != strconv.Itoa(int(pid)) || rows[0][1] != "t" {
		return errors.New("the walsender is not the one that the marker was for")
	}
	return nil
}
