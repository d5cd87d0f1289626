package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

// question is everything that a look asks the server, in one statement. Functions that fail in recovery, or outside of
// it, are asked only where they answer.
const question = `SELECT pg_is_in_recovery(), current_setting('synchronous_standby_names'),
 (SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'),
 CASE WHEN pg_is_in_recovery() THEN COALESCE(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_flush_lsn() END,
 CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END,
 CASE WHEN pg_is_in_recovery() THEN (SELECT received_tli::text FROM pg_stat_wal_receiver)
  ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END,
 CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
 COALESCE((SELECT status = 'streaming' FROM pg_stat_wal_receiver), false),
 s.pid, s.state = 'streaming', s.flush_lsn, l.slot_name IS NOT NULL, l.wal_status = 'lost'
 FROM (SELECT 1) one
 LEFT JOIN (SELECT pid, state, flush_lsn FROM pg_stat_replication WHERE application_name = 'duet_%[1]s'
  ORDER BY state = 'streaming' DESC, pid LIMIT 1) s ON true
 LEFT JOIN pg_replication_slots l ON l.slot_name = 'duet_%[1]s'`

// look is one observation. What cannot be seen is Unseen or hung, never guessed.
func (m *Manager) look(ctx context.Context) decide.Local {
	_, docs := m.cfg.Authority.Now()
	l := decide.Local{
		WriteOpen: m.cfg.Gates.Open(decide.Write), ReadOpen: m.cfg.Gates.Open(decide.Read),
		WriteAddress: m.cfg.Addresses.Held(decide.Write), ReadAddress: m.cfg.Addresses.Held(decide.Read),
		Names: m.names,
	}
	dir := m.dirs.active()
	control, err := m.lookDir(dir, docs.Newest(), &l)
	if err != nil {
		m.cfg.Log.Warn("the data directory cannot be read", "error", err.Error())
		return decide.Local{}
	}
	if l.Dir == decide.DirAbsent || l.Dir == decide.DirEmpty {
		l.Proc, l.SpaceClone = decide.ProcStopped, true
		m.forget()
		if dir != "" {
			if err := killServer(dir, m.cfg.KillTimeout); err != nil { // a server on files that nobody can open any more
				l.Proc, l.Life = decide.ProcHung, 1
			}
		}
		return l
	}
	if err := m.lookProcess(dir, &l); err != nil {
		m.cfg.Log.Warn("the process table cannot be read", "error", err.Error())
		return decide.Local{}
	}
	if l.Proc == decide.ProcStopped {
		m.forget()
		m.lookCold(dir, control, &l)
		return l
	}
	m.ask(ctx, dir, &l)
	return l
}

// lookDir says what lies where `current` leads.
func (m *Manager) lookDir(dir string, rec decide.Record, l *decide.Local) (Control, error) {
	if dir == "" {
		l.Dir = decide.DirAbsent
		if most, err := m.dirs.highest(); err != nil {
			return Control{}, err
		} else if most > 0 && m.dirs.marked(m.dirs.numbered(most), markCreating) {
			l.Dir = decide.DirCreating
		}
		return Control{}, nil
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.Dir = decide.DirAbsent
		return Control{}, nil
	case err != nil:
		return Control{}, err
	case len(entries) == 0:
		l.Dir = decide.DirEmpty
		return Control{}, nil
	case m.dirs.marked(dir, markUnfinished):
		l.Dir = decide.DirUnfinished
	}
	c, err := readControl(dir)
	if err != nil {
		if l.Dir == 0 {
			l.Dir = decide.DirForeign
		}
		return Control{}, nil //nolint:nilerr // not readable as a directory of PostgreSQL is what Foreign says
	}
	l.SystemID, l.CheckpointTimeline, l.Clean = c.SystemID, c.Timeline, c.Clean()
	creating := m.dirs.marked(dir, markCreating)
	switch {
	case l.Dir != 0:
	case rec.Version == 0 && creating:
		l.Dir = decide.DirCreating
	case rec.Version != 0 && rec.SystemID != c.SystemID:
		l.Dir = decide.DirForeign
	default:
		l.Dir = decide.DirOurs
		if creating && rec.Version != 0 {
			err = m.dirs.unmark(dir, markCreating)
		}
	}
	_, signal := os.Lstat(filepath.Join(dir, standbySignal))
	l.StandbyDir = signal == nil || c.State == StateShutDownInRecovery || c.State == StateInArchiveRecovery
	l.AsPrimary = !l.StandbyDir // until it answers
	l.Timeline = max(latestSegment(dir, c), c.LatestTimeline())
	return c, err
}

// latestSegment is the highest timeline of which the directory has a file of the log that recovery would read.
func latestSegment(dir string, c Control) uint32 {
	entries, err := os.ReadDir(filepath.Join(dir, "pg_wal"))
	if err != nil {
		return 0
	}
	first := segmentName(0, uint64(c.Redo)/uint64(c.SegmentBytes), uint64(c.SegmentBytes))[8:]
	var most uint32
	for _, e := range entries {
		if name := e.Name(); len(name) == 24 && name[8:] >= first {
			if tl, err := strconv.ParseUint(name[:8], 16, 32); err == nil {
				most = max(most, uint32(tl))
			}
		}
	}
	return most
}

// lookProcess finds the server of the directory, also one that a process before this one has started. Orphans of a dead
// postmaster are ended: they have no right to be, and the directory is not free before they are gone.
func (m *Manager) lookProcess(dir string, l *decide.Local) error {
	if m.pm.pid != 0 {
		if now, err := readStat(m.pm.pid); err == nil && now.born == m.pm.born && m.pmDir == dir && alive(m.pm.pid) {
			l.Life, l.Proc = m.pm.life(), decide.ProcStarting
			return nil
		}
		m.pm = process{}
	}
	all, err := scanServer(dir)
	if err != nil {
		return err
	}
	p, ok := postmaster(all)
	switch {
	case ok:
		m.pm, m.pmDir = p, dir
		m.probedAt.Store(int64(m.now()))
		m.watchDeath(p)
		l.Life, l.Proc = p.life(), decide.ProcStarting
	case len(all) > 0:
		if err := killServer(dir, m.cfg.KillTimeout); err != nil {
			m.cfg.Log.Warn("processes of a dead server cannot be ended", "error", err.Error())
			l.Proc, l.Life = decide.ProcHung, 1
			return nil //nolint:nilerr // what cannot be ended is hung
		}
		l.Proc = decide.ProcStopped
	default:
		l.Proc = decide.ProcStopped
	}
	return nil
}

// alive: not a zombie, whose files are gone.
func alive(pid int) bool {
	_, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
	return err == nil
}

// watchDeath wakes the loop at the moment at which the postmaster is gone.
func (m *Manager) watchDeath(p process) {
	go func() {
		for awaitEnd(p, time.Now().Add(time.Minute)) != nil {
			if m.stopped.Load() {
				return
			}
		}
		m.Wake()
	}()
}

// lookCold is the end of a stopped directory's log; it does not change while nobody runs.
func (m *Manager) lookCold(dir string, c Control, l *decide.Local) {
	l.Fork = forkOf(dir, l.Timeline)
	if m.cold.dir != dir || m.cold.control != c {
		m.cold = coldLook{dir: dir, control: c}
		c.MinRecoveryTLI = max(c.MinRecoveryTLI, l.Timeline)
		if c.SegmentBytes != 0 {
			end, err := directoryEnd(dir, c)
			if err != nil && l.Dir == decide.DirOurs {
				m.cfg.Log.Info("the end of the log is not known", "error", err.Error())
			}
			m.cold.end = end
		}
		m.cold.bytes = dirBytes(dir)
	}
	l.End = m.cold.end
	l.SpaceClone = m.space()
}

// space: a second copy of the directory fits, of the size that it had when it was last seen stopped.
func (m *Manager) space() bool {
	var st unix.Statfs_t
	return unix.Statfs(m.cfg.Root, &st) == nil && int64(st.Bavail)*st.Bsize > m.cold.bytes
}

type coldLook struct {
	dir     string
	control Control
	end     decide.LSN
	bytes   int64
}

func dirBytes(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { //nolint:errcheck // it never returns one
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}

// forget what belongs to a life that is over.
func (m *Manager) forget() {
	m.control.close()
	m.control = nil
	m.lifeTimeline = 0
}

// ask the server that runs. No answer: starting, if it never answered in this life, else hung.
func (m *Manager) ask(ctx context.Context, dir string, l *decide.Local) {
	if m.answered == l.Life {
		l.Proc = decide.ProcHung
	}
	l.SpaceClone = m.space()
	l.ProbeAt = membership.Boottime(m.probedAt.Load())
	if m.control == nil {
		s, err := m.connect(ctx)
		if err != nil {
			return
		}
		m.control = s
	}
	rows, err := m.control.quick(ctx, fmt.Sprintf(question, m.cfg.Self.Peer()))
	if err != nil || len(rows) != 1 {
		m.control.close()
		m.control = nil
		return
	}
	m.answered = l.Life
	m.answer(dir, rows[0], l)
}

func (m *Manager) answer(dir string, row []string, l *decide.Local) {
	at := func(text string) decide.LSN {
		lsn, err := parseLSN(text)
		if err != nil {
			return 0
		}
		return lsn
	}
	l.Names = decide.NamesNone
	if row[1] == m.peerName() {
		l.Names = decide.NamesPeer
	}
	m.names = l.Names
	l.Waiters = number(row[2], 10)
	l.End, l.Replay = at(row[3]), at(row[4])
	l.Paused, l.Receiving = row[6] == "t", row[7] == "t"
	if row[0] == "t" {
		l.Proc, l.AsPrimary = decide.ProcStandby, false
		m.lifeTimeline = max(m.lifeTimeline, uint32(number(row[5], 10)), l.Timeline)
		l.Timeline = m.lifeTimeline
	} else {
		l.Proc, l.AsPrimary, l.StandbyDir = decide.ProcPrimary, true, false
		l.Timeline = uint32(number(row[5], 16))
		l.Sender = decide.Sender{PID: int32(number(row[8], 10)), Streaming: row[9] == "t", Flush: at(row[10])}
		l.Slot, l.SlotLost = row[11] == "t", row[12] == "t"
	}
	l.Fork = forkOf(dir, l.Timeline)
}

// number is 0 for an empty text: SQL's NULL.
func number(text string, base int) int {
	n, err := strconv.ParseInt(strings.TrimSpace(text), base, 64)
	if err != nil {
		return 0
	}
	return int(n)
}
