package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"duet/appliance/postgres/decide"
)

// create makes the one new database of a site (B1) in a directory that is marked until a record knows it: initdb with
// checksums (pg_rewind needs them or wal_log_hints), and in single-user mode, where no client can be, the role of the
// other node. It may read files of the data directory, which is what pg_rewind asks of its source (PostgreSQL manual,
// pg_rewind, Notes); it is no superuser.
func (m *Manager) create(ctx context.Context) error {
	dir, err := m.dirs.fresh(markCreating)
	if err != nil {
		return err
	}
	err = m.tool(ctx, m.cfg.CopyTimeout, "", "initdb", "--pgdata="+dir, "--username="+superuser, "--data-checksums", "--encoding=UTF8",
		"--locale=C.UTF-8", "--auth-local=peer", "--auth-host=scram-sha-256", "--no-instructions", fmt.Sprintf("--wal-segsize=%d", m.cfg.SegmentMiB))
	if err != nil {
		return err
	}
	scram, err := verifier(m.cfg.Secret)
	if err != nil {
		return err
	}
	sql := "CREATE ROLE " + replicationUser + " LOGIN REPLICATION PASSWORD '" + scram + "'\n"
	for _, f := range []string{
		"pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)", "pg_read_binary_file(text)", "pg_read_binary_file(text, bigint, bigint, boolean)",
	} {
		sql += "GRANT EXECUTE ON FUNCTION pg_catalog." + f + " TO " + replicationUser + "\n"
	}
	if err := m.tool(ctx, m.cfg.CopyTimeout, sql, "postgres", "--single", "-D", dir, "-c", "log_min_messages=warning", "postgres"); err != nil {
		return err
	}
	return m.dirs.switchTo(dir)
}

// errMarked: a directory that is marked is never started, whoever asks.
var errMarked = errors.New("the directory is marked as unfinished")

// start begins a life of the server behind closed gates, and returns when it answers, or when it has ended.
func (m *Manager) start(ctx context.Context, e decide.StartServer) error {
	dir := m.dirs.active()
	if dir == "" || m.dirs.marked(dir, markUnfinished) {
		return errMarked
	}
	if err := killServer(dir, m.cfg.KillTimeout); err != nil { // orphans of a dead postmaster
		return err
	}
	if err := m.prepare(dir, e.Primary); err != nil {
		return err
	}
	if err := m.cfg.render(e.Names); err != nil {
		return err
	}
	log, err := os.OpenFile(m.cfg.file("postgres.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("log of the server: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(m.cfg.Programs, "postgres"), append([]string{"-D", dir}, m.cfg.owned()...)...) //nolint:noctx // it outlives this process
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.Env = []string{"LC_ALL=C", "PATH=" + m.cfg.Programs, "TZ=UTC", "PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj"}
	cmd.SysProcAttr = m.credential()
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() //nolint:errcheck // how it ended is in its log; that it ended is what counts
		close(ended)
		m.Wake()
	}()
	return m.awaitAnswer(ctx, ended)
}

// awaitAnswer asks until the server answers: during crash recovery it refuses, and a standby accepts nobody before it is
// consistent.
func (m *Manager) awaitAnswer(ctx context.Context, ended <-chan struct{}) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return errors.New("the server ended while it started")
		case <-ctx.Done():
			return fmt.Errorf("the server did not answer in time: %w", ctx.Err())
		case <-tick.C:
		}
		s, err := m.connect(ctx)
		if err == nil {
			s.close()
			return nil
		}
	}
}

// prepare makes a stopped directory what it is to be.
func (m *Manager) prepare(dir string, primary bool) error {
	for _, name := range []string{"postmaster.pid", "recovery.signal"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("start the server: %w", err)
		}
	}
	if primary {
		if err := os.Remove(filepath.Join(dir, standbySignal)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("start the server: %w", err)
		}
	} else {
		if err := m.standbySignal(dir); err != nil {
			return err
		}
		// A slot from a former life as a primary would keep its log for ever.
		slots, err := filepath.Glob(filepath.Join(dir, "pg_replslot", "*"))
		if err != nil {
			return fmt.Errorf("start the server: %w", err)
		}
		for _, s := range slots {
			if err := os.RemoveAll(s); err != nil {
				return fmt.Errorf("start the server: %w", err)
			}
		}
	}
	// Root's file makes ALTER SYSTEM fail, for a superuser too.
	if os.Geteuid() == 0 {
		auto := filepath.Join(dir, "postgresql.auto.conf")
		if err := os.Lchown(auto, 0, 0); err != nil {
			return fmt.Errorf("start the server: %w", err)
		}
		if err := os.Chmod(auto, 0o644); err != nil {
			return fmt.Errorf("start the server: %w", err)
		}
	}
	return nil
}

// standbySignal is the file that makes a server a standby (PostgreSQL manual 27.2.2).
const standbySignal = "standby.signal"

func (m *Manager) standbySignal(dir string) error {
	path := filepath.Join(dir, standbySignal)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return fmt.Errorf("standby: %w", err)
	}
	if err := os.Lchown(path, m.cfg.UID, m.cfg.GID); err != nil {
		return fmt.Errorf("standby: %w", err)
	}
	return nil
}

// stop ends the server: fast (SIGINT) or immediate (SIGQUIT), PostgreSQL manual 19.5. At the deadline it says so.
func (m *Manager) stop(immediate bool) error {
	dir := m.dirs.active()
	all, err := scanServer(dir)
	if err != nil {
		return err
	}
	p, ok := postmaster(all)
	if !ok {
		return killServer(dir, m.cfg.KillTimeout)
	}
	sig, within := unix.SIGINT, m.cfg.StopTimeout
	if immediate {
		sig, within = unix.SIGQUIT, m.cfg.KillTimeout
	}
	if err := signalProcess(p, sig); err != nil {
		return err
	}
	if err := awaitEnd(p, time.Now().Add(within)); err != nil {
		return err
	}
	return killServer(dir, m.cfg.KillTimeout)
}

// setNames changes whom the server waits for. The checkpointer takes it up when it comes to it: the marker finds out.
func (m *Manager) setNames(n decide.Names) error {
	if err := m.cfg.write("duet.conf", m.cfg.duetConf(n)); err != nil {
		return err
	}
	all, err := scanServer(m.dirs.active())
	if err != nil {
		return err
	}
	p, ok := postmaster(all)
	if !ok {
		return errors.New("no server to reload")
	}
	return signalProcess(p, unix.SIGHUP)
}

// reserveTimelines makes the server choose exactly this timeline: it takes the first number above its own for which there
// is no history file. The files say nothing, and a receiver that fetches one finds no ancestors in it.
func (m *Manager) reserveTimelines(dir string, own, wanted uint32) error {
	for tl := own + 1; tl < wanted; tl++ {
		path := historyFile(dir, tl)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("timeline: %w", err)
		}
		_, err = f.WriteString("# not used here\n")
		err = errors.Join(err, f.Chown(m.cfg.UID, m.cfg.GID), f.Sync(), f.Close())
		if err != nil {
			return fmt.Errorf("timeline: %w", err)
		}
	}
	return nil
}

// promote makes the standby a primary on exactly this timeline.
func (m *Manager) promote(ctx context.Context, wanted uint32) error {
	dir := m.dirs.active()
	own := m.Facts().Timeline
	if own == 0 || own >= wanted {
		return fmt.Errorf("promotion from timeline %d to %d", own, wanted)
	}
	if err := m.reserveTimelines(dir, own, wanted); err != nil {
		return err
	}
	s, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	if _, err := s.ask(ctx, "SELECT pg_wal_replay_resume()"); err != nil {
		return err
	}
	rows, err := s.ask(ctx, "SELECT pg_promote(true, 10)")
	if err != nil {
		return err
	}
	if len(rows) != 1 || rows[0][0] != "t" {
		return errors.New("the server was not promoted within 10 s")
	}
	return nil
}

// PauseReplay pauses or resumes the replay of this node's standby, for the marker of the other node (G3). It returns when it is so.
func (m *Manager) PauseReplay(ctx context.Context, pause bool) error {
	s, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	if !pause {
		_, err := s.ask(ctx, "SELECT pg_wal_replay_resume()")
		return err
	}
	m.pausedAt.Store(int64(m.now()))
	if _, err := s.ask(ctx, "SELECT pg_wal_replay_pause()"); err != nil {
		return err
	}
	return s.until(ctx, "SELECT pg_get_wal_replay_pause_state() = 'paused'")
}

// switchCurrent lets `current` lead to the newest directory, which must be whole. The old one stays.
func (m *Manager) switchCurrent() error {
	most, err := m.dirs.highest()
	if err != nil {
		return err
	}
	dir := m.dirs.numbered(most)
	if m.dirs.marked(dir, markUnfinished) || m.dirs.marked(dir, markCreating) {
		return errMarked
	}
	if _, err := readControl(dir); err != nil {
		return err
	}
	return m.dirs.switchTo(dir)
}

func (m *Manager) peerName() string { return nodeName(m.cfg.Self.Peer()) }
