package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"duet/appliance/api"
	"duet/build/lab"
)

// TestDatabase runs the PostgreSQL pair of a whole site under four writers: the crash of a standby and of a primary, the
// return of both, a switchover, a node that leaves, restarts of duetd, the loss of the primary's node with evidence, of every way between the
// nodes, a daemon that stands still, and a common power cut. No acknowledged row is lost, no two primaries answer, and
// nothing is done by hand. Durations are told, not judged.
//
// Proves: pg 5.1, 5.1b, 5.2, 5.2b, SwitchoverUnderLoad, DaemonRestart, NodeLossFenced, LinkCut, FrozenDaemon, BothOff on a site.
func TestDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("brings up a whole site; run without -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("the lab needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	started := time.Now()
	say := func(format string, args ...any) {
		t.Logf("%6.1f s  %s", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	}
	s, err := UpDatabase(ctx, lab.Options{Name: "test-db", State: state(t, "test-db"), Bin: binaries(t)}, say)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			where, err := keepLogs(s, "database")
			t.Logf("logs: %s, %v", where, err)
		}
		if err := s.Down(); err != nil {
			t.Error(err)
		}
	})
	primary, err := s.databaseInSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.prepareDatabase(ctx, primary); err != nil {
		t.Fatal(err)
	}
	w := s.writeDatabase()
	t.Cleanup(w.stop)
	if err := w.more(ctx, 100); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		play func(ctx context.Context, s *Site, primary string) error
	}{
		{"5.1 StandbyCrash, 5.1b StandbyReturns", standbyCrash},
		{"ReplicationStands", replicationStands},
		{"5.2 PrimaryCrash, 5.2b OldPrimaryRejoins", primaryCrash},
		{"SwitchoverUnderLoad", switchover},
		{"NodeLeaves", nodeLeaves},
		{"DaemonRestart", daemonRestart},
		{"NodeLossFenced", nodeLossFenced},
		{"NodeLossNoEvidence", nodeLossNoEvidence},
		{"StandbyLostThenPrimaryLost", standbyLostThenPrimaryLost},
		{"LinkCut", linkCut},
		{"FrozenDaemon", frozenDaemon},
		{"BothOff, together", bothOff},
	} {
		began := time.Now()
		if err := step.play(ctx, s, primary); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if err := w.more(ctx, 100); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		say("%s: longest gap between two acknowledgements %d ms", step.name, w.outage(began).Milliseconds())
		if primary, err = s.databaseInSync(ctx); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
	}
	v, err := w.judge(ctx, primary)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Lost) > 0 || len(v.Twice) > 0 || v.TwoPrimaries != "" {
		t.Errorf("lost %v, twice %v, %s", v.Lost, v.Twice, v.TwoPrimaries)
	}
	say("%d rows acknowledged, %d failed, %d unknown, %d lost, longest gap %d ms", v.Acked, v.Failed, v.Unknown, len(v.Lost), v.Longest.Milliseconds())
}

// killServer is kill -9 of every process of a node's server.
func killServer(ctx context.Context, s *Site, node string) error {
	_, err := s.Lab.Exec(ctx, node, "pkill", "-9", "-x", "postgres")
	return err
}

// standbyCrash: the record says on both nodes that the primary is alone before it goes on alone, and the standby is brought
// back and counted in.
func standbyCrash(ctx context.Context, s *Site, primary string) error {
	standby := other(primary)
	before, err := s.database(ctx, primary)
	if err != nil {
		return err
	}
	if err := killServer(ctx, s, standby); err != nil {
		return err
	}
	failed := false
	err = s.databaseIs(ctx, primary, "the standby is back and counts", func(db api.Database) bool {
		q := rowOf(db, standby)
		failed = failed || q.Failures > 0
		return failed && q.PGStatus == "HS:sync" && len(db.Record.Copies) == 2
	})
	if err != nil {
		return err
	}
	after, err := s.database(ctx, primary)
	if err != nil {
		return err
	}
	if after.Owner != primary || after.Record.Timeline != before.Record.Timeline || after.Record.PromoteLSN != before.Record.PromoteLSN {
		return fmt.Errorf("the primary changed: %+v, then %+v", before.Record, after.Record)
	}
	return nil
}

// replicationStands: beats pass and the log does not. The record takes the standby out on both nodes, commits go on, and it is
// counted again when it follows (L1 to L3, G1 to G4).
func replicationStands(ctx context.Context, s *Site, primary string) error {
	standby := other(primary)
	if err := s.standbyOut(ctx, primary); err != nil {
		return err
	}
	if err := s.databaseIs(ctx, primary, "the primary goes on alone with both addresses", func(db api.Database) bool {
		p := rowOf(db, primary)
		return db.Owner == primary && p.PGStatus == "PRI" && p.WriteOpen && p.Read == "held"
	}); err != nil {
		return err
	}
	for _, node := range []string{primary, standby} {
		st, err := s.Status(ctx, node)
		if err != nil || st.Word != "at risk" || !strings.Contains(st.Sentence, "no standby that holds everything") {
			return fmt.Errorf("node %s says %q, %w", node, st.Sentence, err)
		}
	}
	return s.walreceiver(ctx, standby, "CONT")
}

// walreceiver sends a signal to the process of a standby that takes the log.
func (s *Site) walreceiver(ctx context.Context, standby, signal string) error {
	_, err := s.Lab.Exec(ctx, standby, "pkill", "-"+signal, "-f", "^postgres: walreceiver")
	return err
}

// standbyOut stops the log on its way, until both nodes know that the primary alone has everything.
func (s *Site) standbyOut(ctx context.Context, primary string) error {
	standby := other(primary)
	if err := s.walreceiver(ctx, standby, "STOP"); err != nil {
		return err
	}
	for _, node := range []string{primary, standby} {
		err := s.databaseIs(ctx, node, "the standby is out of copies, on "+node, func(db api.Database) bool {
			q := rowOf(db, standby)
			return len(db.Record.Copies) == 1 && db.Record.Copies[0] == primary && !q.Promotable && q.Why == "stale" && q.DataStatus != "STREAMING|SYNC"
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// primaryCrash: the other node serves, on a timeline of its own, and the old one comes back by itself.
func primaryCrash(ctx context.Context, s *Site, primary string) error {
	before, err := s.database(ctx, primary)
	if err != nil {
		return err
	}
	if err := killServer(ctx, s, primary); err != nil {
		return err
	}
	return s.databaseIs(ctx, other(primary), "the other node serves", func(db api.Database) bool {
		p := rowOf(db, other(primary))
		return db.Owner == other(primary) && p.PGStatus == "PRI" && p.WriteOpen && p.Write == "held" && db.Record.Timeline > before.Record.Timeline
	})
}

// switchover by order; the other node refuses it.
func switchover(ctx context.Context, s *Site, primary string) error {
	var db api.Database
	order := []string{"db", "switchover", "--reason", "lab", "--yes", "--confirm-site", "demo"}
	if err := s.duet(ctx, other(primary), &db, order...); err == nil {
		return fmt.Errorf("node %s switched over the primary of node %s", other(primary), primary)
	}
	ordered := time.Now()
	ctx, cancel := context.WithTimeout(ctx, databaseLimit)
	defer cancel()
	// The checkpoint after the last promotion may still be under way: that is a refusal, and not a failure.
	err := s.wait(ctx, "the switchover", databaseLimit, func() (bool, string) {
		ordered = time.Now()
		if err := s.duet(ctx, primary, &db, order...); err != nil {
			return false, err.Error()
		}
		return true, ""
	})
	if err != nil {
		return err
	}
	s.Say("switched over in %.2f s by the order's own word", time.Since(ordered).Seconds())
	if db.Owner != other(primary) {
		return fmt.Errorf("the database belongs to node %s", db.Owner)
	}
	if len(db.Record.Copies) != 2 || db.Record.History[len(db.Record.History)-1].Reason != "switchover" {
		return fmt.Errorf("record %+v", db.Record)
	}
	return nil
}

// nodeLeaves: the pair's owner, which has the primary, leaves by order. The database is handed over first, and the node comes back.
func nodeLeaves(ctx context.Context, s *Site, primary string) error {
	st, err := s.Status(ctx, primary)
	if err != nil {
		return err
	}
	leaver := st.PairOwner
	if leaver != primary {
		if err := switchover(ctx, s, primary); err != nil {
			return err
		}
	}
	var site api.Site
	err = s.wait(ctx, "node "+leaver+" to leave", databaseLimit, func() (bool, string) {
		if err := s.duet(ctx, leaver, &site, "node", "leave", leaver, "--reason", "lab", "--yes", "--confirm-site", "demo"); err != nil {
			return false, err.Error()
		}
		return true, ""
	})
	if err != nil {
		return err
	}
	db, err := s.database(ctx, other(leaver))
	if err != nil {
		return err
	}
	if last := db.Record.History[len(db.Record.History)-1]; last.Reason != "switchover" || last.To != other(leaver) || db.Owner != other(leaver) {
		return fmt.Errorf("the database was not handed over: %+v of node %s", last, db.Owner)
	}
	if err := s.duet(ctx, leaver, &site, "node", "return", leaver); err != nil {
		return err
	}
	return s.wait(ctx, "both nodes", rejoinLimit, func() (bool, string) { return s.paired(ctx) })
}

// nodeLossFenced: the primary's node loses its power. Its BMC and outlets say so, and the other node serves alone; then the
// node is switched on again by the survivor and joins.
func nodeLossFenced(ctx context.Context, s *Site, primary string) error {
	survivor := other(primary)
	if err := s.Lab.Cut(ctx, primary); err != nil {
		return err
	}
	err := s.databaseIs(ctx, survivor, "the survivor serves alone", func(db api.Database) bool {
		p := rowOf(db, survivor)
		return db.Owner == survivor && p.PGStatus == "PRI" && p.WriteOpen && p.Write == "held" && len(db.Record.Copies) == 1 && db.Record.Copies[0] == survivor
	})
	if err != nil {
		return err
	}
	return s.Lab.On(ctx, primary)
}

// nodeLossNoEvidence: nothing answers for the primary's node. The other one serves after W0.
func nodeLossNoEvidence(ctx context.Context, s *Site, primary string) error {
	survivor := other(primary)
	if err := errors.Join(s.Lab.BMC(ctx, primary, "mute"), s.Lab.PDU(ctx, "mute"), s.Lab.Cut(ctx, primary)); err != nil {
		return err
	}
	err := s.databaseIs(ctx, survivor, "the survivor serves alone", func(db api.Database) bool {
		p := rowOf(db, survivor)
		return db.Owner == survivor && p.PGStatus == "PRI" && p.WriteOpen && len(db.Record.Copies) == 1
	})
	return errors.Join(err, s.Lab.BMC(ctx, primary, "ok"), s.Lab.PDU(ctx, "ok"), s.Lab.On(ctx, primary))
}

// refuseFor is how long a node that lacks rows is watched: longer than lease and W0.
const refuseFor = 12 * time.Second

// standbyLostThenPrimaryLost: the standby is out, rows are written, the primary's node dies. The other node goes on alone and
// does not serve the database, whatever evidence it has: it lacks those rows. When the node is back, it serves.
func standbyLostThenPrimaryLost(ctx context.Context, s *Site, primary string) error {
	standby := other(primary)
	if err := s.standbyOut(ctx, primary); err != nil {
		return err
	}
	if _, err := s.sql(ctx, primary, databaseName, "CREATE TABLE only_here AS SELECT generate_series(1, 1000) n"); err != nil {
		return err
	}
	if err := errors.Join(s.Lab.Cut(ctx, primary), s.walreceiver(ctx, standby, "CONT")); err != nil {
		return err
	}
	if err := s.wait(ctx, "node "+standby+" says for whom the database waits", databaseLimit, func() (bool, string) {
		st, err := s.Status(ctx, standby)
		if err != nil {
			return false, err.Error()
		}
		codes := ""
		for _, f := range st.Faults {
			codes += f.Code + " "
		}
		return st.Mode == "solo" && strings.Contains(codes, "PG-4003"), st.Mode + " " + codes
	}); err != nil {
		return err
	}
	for end := time.Now().Add(refuseFor); time.Now().Before(end); {
		db, err := s.database(ctx, standby)
		if err != nil {
			return err
		}
		if q := rowOf(db, standby); q.PGStatus == "PRI" || q.WriteOpen || q.Promotable {
			return fmt.Errorf("node %s serves without rows that were acknowledged: %+v", standby, q)
		}
		if err := s.pause(ctx, pollEvery); err != nil {
			return err
		}
	}
	if err := s.Lab.On(ctx, primary); err != nil {
		return err
	}
	if err := s.databaseIs(ctx, primary, "the node that has the rows serves", func(db api.Database) bool {
		p := rowOf(db, primary)
		return db.Owner == primary && p.PGStatus == "PRI" && p.WriteOpen
	}); err != nil {
		return err
	}
	out, err := s.sql(ctx, primary, databaseName, "SELECT count(*) FROM only_here")
	if err != nil || strings.TrimSpace(string(out)) != "1000" {
		return fmt.Errorf("rows that only node %s had: %s, %w", primary, out, err)
	}
	_, err = s.sql(ctx, primary, databaseName, "DROP TABLE only_here")
	return err
}

// daemonRestart: the servers go on, and so do the clients.
func daemonRestart(ctx context.Context, s *Site, primary string) error {
	life := func(node string) (string, error) {
		out, err := s.sql(ctx, node, "postgres", "SELECT pg_postmaster_start_time()")
		return string(out), err
	}
	for _, node := range []string{primary, other(primary)} {
		before, err := life(node)
		if err != nil {
			return err
		}
		if err := s.Lab.Kill(ctx, node, "duetd"); err != nil {
			return err
		}
		if now, err := s.databaseInSync(ctx); err != nil || now != primary {
			return fmt.Errorf("after duetd of node %s was killed: primary %s, %w", node, now, err)
		}
		if after, err := life(node); err != nil || after != before {
			return fmt.Errorf("node %s: its server began at %s and now %s, %w", node, before, after, err)
		}
	}
	return nil
}

// linkCut: all ways between the nodes are cut, and the witness lets one of them go on. It serves alone, whoever was primary.
func linkCut(ctx context.Context, s *Site, _ string) error {
	if err := s.Lab.LinkCut(ctx, "all"); err != nil {
		return err
	}
	err := s.wait(ctx, "one node serves alone", databaseLimit, func() (bool, string) {
		seen := ""
		for _, node := range []string{lab.A, lab.B} {
			db, err := s.database(ctx, node)
			if err != nil {
				seen += err.Error() + "; "
				continue
			}
			p := rowOf(db, node)
			seen += fmt.Sprintf("%s %s copies %v; ", node, p.PGStatus, db.Record.Copies)
			if p.PGStatus == "PRI" && p.WriteOpen && len(db.Record.Copies) == 1 && db.Record.Copies[0] == node {
				return true, seen
			}
		}
		return false, seen
	})
	return errors.Join(err, s.Lab.LinkRestore(ctx, "all"))
}

// frozenDaemon: duetd of the primary's node stands still, and nothing answers for that node. Its server goes on, its standby
// still follows, and its clients are still answered, until its gate closes by itself; its watchdog resets the node. Only after
// W0 the other node serves.
func frozenDaemon(ctx context.Context, s *Site, primary string) error {
	if err := errors.Join(s.Lab.BMC(ctx, primary, "mute"), s.Lab.PDU(ctx, "mute")); err != nil {
		return err
	}
	if _, err := s.Lab.Exec(ctx, primary, "pkill", "-STOP", "-x", "duetd"); err != nil {
		return err
	}
	err := s.databaseIs(ctx, other(primary), "the other node serves", func(db api.Database) bool {
		p := rowOf(db, other(primary))
		return db.Owner == other(primary) && p.PGStatus == "PRI" && p.WriteOpen
	})
	return errors.Join(err, s.Lab.BMC(ctx, primary, "ok"), s.Lab.PDU(ctx, "ok"))
}

// bothOff: a common power cut, and both come back.
func bothOff(ctx context.Context, s *Site, primary string) error {
	for _, node := range []string{primary, other(primary)} {
		if err := s.Lab.Cut(ctx, node); err != nil {
			return err
		}
	}
	for _, node := range []string{other(primary), primary} {
		if err := s.Lab.On(ctx, node); err != nil {
			return err
		}
	}
	return nil
}
