package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"duet/appliance/internal/durable"
	"duet/appliance/postgres/decide"
)

// act carries out one effect. What takes long goes on beside the loop and ends as Done.
func (m *Manager) act(ctx context.Context, e decide.Effect) error {
	if e.Work() != decide.Idle {
		m.begin(ctx, e)
		return nil
	}
	switch e := e.(type) {
	case decide.Want:
		m.cfg.Authority.Want()
	case decide.SetNames:
		return m.setNames(e.Names)
	case decide.SetGate:
		return m.cfg.Gates.Set(e.Gate, e.Open, e.Deadline)
	case decide.SetAddress:
		return m.cfg.Addresses.Set(e.Gate, e.Add)
	case decide.CreateSlot:
		if m.control == nil {
			return errors.New("no connection to make a slot")
		}
		return m.slot(ctx)
	case decide.SetFault:
		m.report(e)
	case decide.ResetNode:
		m.cfg.Log.Error("the server cannot be ended: this node is reset")
		if m.cfg.Reset != nil {
			m.cfg.Reset("the database server cannot be ended")
		}
	default:
		return fmt.Errorf("nobody does %v", e)
	}
	return nil
}

// slot for the peer; a lost one is dropped first, because nobody can use it again.
func (m *Manager) slot(ctx context.Context) error {
	name := "'" + m.peerName() + "'"
	if _, err := m.control.quick(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE wal_status = 'lost' AND slot_name = "+name); err != nil {
		return err
	}
	_, err := m.control.quick(ctx, "SELECT pg_create_physical_replication_slot("+name+", true)")
	return err
}

// begin starts a long effect; it replaces the one under way, which only an immediate stop or a kill does.
func (m *Manager) begin(ctx context.Context, e decide.Effect) {
	if m.cancel != nil && e.Work() != decide.Checkpointing {
		m.cancel()
	}
	ctx, cancel := context.WithTimeout(ctx, m.deadline(e))
	if e.Work() != decide.Checkpointing {
		m.cancel = cancel
	}
	m.works.Add(1)
	began := time.Now()
	go func() {
		defer m.works.Done()
		defer cancel()
		err := m.work(ctx, e)
		done := decide.Done{Work: e.Work(), OK: err == nil}
		if mk, ok := e.(decide.Marker); ok {
			done.PID = mk.PID
		}
		m.cfg.Log.Info("step of the database ended", "step", e.String(), "ok", done.OK, "ms", time.Since(began).Milliseconds(), "error", words(err))
		m.results <- done
	}()
}

func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// deadline of each long effect.
func (m *Manager) deadline(e decide.Effect) time.Duration {
	c := &m.cfg
	switch e.(type) {
	case decide.StartServer:
		return c.StartTimeout
	case decide.StopServer:
		return c.StopTimeout + c.KillTimeout
	case decide.KillServer:
		return c.KillTimeout
	case decide.Promote:
		return c.PromoteTime
	case decide.Marker:
		return c.MarkTimeout
	case decide.Checkpoint:
		return c.CheckTimeout
	case decide.Rewind:
		return c.RewindTimeout
	case decide.WriteRecord, decide.MoveOwner:
		return c.StopTimeout
	}
	return c.CopyTimeout
}

func (m *Manager) work(ctx context.Context, e decide.Effect) error {
	switch e := e.(type) {
	case decide.WriteRecord:
		return m.cfg.Authority.WriteRecord(ctx, e.Record, e.Growth)
	case decide.MoveOwner:
		return m.cfg.Authority.MoveOwner(ctx)
	case decide.Create:
		return m.create(ctx)
	case decide.StartServer:
		return m.start(ctx, e)
	case decide.StopServer:
		return m.stop(e.Immediate)
	case decide.KillServer:
		return killServer(m.dirs.active(), m.cfg.KillTimeout)
	case decide.Promote:
		return m.promote(ctx, e.Timeline)
	case decide.Checkpoint:
		return m.checkpoint(ctx)
	case decide.Marker:
		return m.mark(ctx, e.PID)
	case decide.ExportTail:
		return m.export(e.From)
	case decide.Clone:
		return m.clone(ctx)
	case decide.Rewind:
		return m.rewind(ctx)
	case decide.Basebackup:
		return m.basebackup(ctx)
	case decide.SwitchCurrent:
		return m.switchCurrent()
	}
	return fmt.Errorf("nobody does %v", e)
}

func (m *Manager) checkpoint(ctx context.Context) error {
	s, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	_, err = s.ask(ctx, "CHECKPOINT")
	return err
}

// clone copies the stopped directory to a new, marked one.
func (m *Manager) clone(ctx context.Context) error {
	from := m.dirs.active()
	to, err := m.dirs.fresh(markUnfinished)
	if err != nil {
		return err
	}
	var sum int64
	return copyDir(ctx, from, to, m.cfg.UID, m.cfg.GID, func(n int64) {
		sum += n
		m.told(fmt.Sprintf("%d MiB copied", sum>>20))
	})
}

// rewind runs pg_rewind on the clone, which ends a crashed server's recovery itself, then syncs the directory. Only then the
// mark goes.
func (m *Manager) rewind(ctx context.Context) error {
	most, err := m.dirs.highest()
	if err != nil {
		return err
	}
	dir := m.dirs.numbered(most)
	if !m.dirs.marked(dir, markUnfinished) || dir == m.dirs.active() {
		return errors.New("there is no clone to rewind")
	}
	err = m.tool(ctx, m.cfg.RewindTimeout, "", "pg_rewind", "--target-pgdata="+dir, "--source-server="+m.cfg.conninfo("postgres"), "--progress")
	if err != nil {
		return err
	}
	return m.whole(dir)
}

// basebackup copies the peer's directory, and proves the copy by its manifest.
func (m *Manager) basebackup(ctx context.Context) error {
	dir, err := m.dirs.fresh(markUnfinished)
	if err != nil {
		return err
	}
	args := []string{"--pgdata=" + dir, "--dbname=" + m.cfg.conninfo(""), "--wal-method=stream", "--checkpoint=fast", "--progress", "--no-password"}
	if m.cfg.RateKiB > 0 {
		args = append(args, fmt.Sprintf("--max-rate=%d", m.cfg.RateKiB))
	}
	if err := m.tool(ctx, m.cfg.CopyTimeout, "", "pg_basebackup", args...); err != nil {
		return err
	}
	if err := m.tool(ctx, m.cfg.CopyTimeout, "", "pg_verifybackup", "--exit-on-error", "--quiet", dir); err != nil {
		return err
	}
	return m.whole(dir)
}

// whole makes a finished copy a standby's directory, then takes its mark away: what it was copied from was a primary.
func (m *Manager) whole(dir string) error {
	if err := m.standbySignal(dir); err != nil {
		return err
	}
	if err := durable.SyncDir(dir); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	return m.dirs.unmark(dir, markUnfinished)
}

// maxExport is how many files of the log are kept of an abandoned tail.
const maxExport = 64

// export keeps the log from the fork on, for the support bundle (J3). It was never acknowledged; somebody may ask all the same.
func (m *Manager) export(from decide.LSN) error {
	dir := m.dirs.active()
	c, err := readControl(dir)
	if err != nil {
		return err
	}
	target := filepath.Join(m.cfg.Export, fmt.Sprintf("timeline-%d-from-%X", c.LatestTimeline(), uint64(from)))
	if err := os.MkdirAll(target, 0o700); err != nil {
		return fmt.Errorf("export of the tail: %w", err)
	}
	first := segmentName(c.LatestTimeline(), uint64(from)/uint64(c.SegmentBytes), uint64(c.SegmentBytes))
	entries, err := os.ReadDir(filepath.Join(dir, "pg_wal"))
	if err != nil {
		return fmt.Errorf("export of the tail: %w", err)
	}
	kept := 0
	for _, e := range entries {
		if name := e.Name(); len(name) == len(first) && name[:8] == first[:8] && name >= first && kept < maxExport {
			kept++
			to := filepath.Join(target, name)
			if err := os.Remove(to); err != nil && !os.IsNotExist(err) {
				return fmt.Errorf("export of the tail: %w", err)
			}
			if err := copyFile(filepath.Join(dir, "pg_wal", name), to, 0o600); err != nil {
				return fmt.Errorf("export of the tail: %w", err)
			}
		}
	}
	return nil
}
