package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"duet/appliance/api"
	"duet/appliance/site"
	"duet/build/lab"
	"duet/build/pgwriter"
)

// The database of a site in the lab: its addresses, its user, its clients. The writers are on the client's machine, which
// no scenario cuts off, and reach the database by the write address alone.
const (
	databaseWrite = "198.51.100.20"
	databaseRead  = "198.51.100.21"
	databaseUser  = "app"
	databaseName  = "app"
	databaseRun   = "/run/duet-postgres"
	databaseLog   = "/var/log/duet/pgwriter-%d.log"
	databaseWord  = "lab-only-4711"
)

// databaseDataMiB holds a directory, its log, and a copy beside it.
const databaseDataMiB = 1024

// databaseLimit is for states that come, on a machine that is shared.
const databaseLimit = 90 * time.Second

// withDatabase is a small one: the data volume of a node of the lab is small, too.
func withDatabase() *site.Database {
	return &site.Database{
		Interface: "lan0", Write: databaseWrite, Read: databaseRead,
		Settings: []string{"shared_buffers = 16MB", "max_connections = 40", "max_wal_size = 64MB"},
		Rules: []site.DatabaseRule{{
			Networks: []string{"198.51.100.0/24"}, Users: []string{databaseUser}, Databases: []string{databaseName}, Method: "scram",
		}},
	}
}

// UpDatabase starts a lab and founds a site with a database and one volume, and waits until the database is in sync.
func UpDatabase(ctx context.Context, opts lab.Options, say func(format string, args ...any)) (*Site, error) {
	opts.Progress = func(text string) { say("%s", text) }
	opts.DataMiB = databaseDataMiB
	l, err := lab.Up(ctx, opts)
	if err != nil {
		return nil, err
	}
	s := &Site{Lab: l, Say: say, sizes: Small}
	s.probe = &probeLoad{site: s}
	say("founding the pair with a database")
	found, cancel := context.WithTimeout(ctx, foundingLimit)
	defer cancel()
	err = l.Found(found, site.Document{
		Name: "demo", Volumes: []site.Volume{{Name: ProbeVolume, SizeBytes: s.sizes.ProbeBytes}}, VMs: []site.VM{}, Database: withDatabase(),
	}, func(line string) { say("  %s", line) })
	if err == nil {
		_, err = s.databaseInSync(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("founding: %w", err), s.Down())
	}
	return s, nil
}

// database is what one node says of the pair.
func (s *Site) database(ctx context.Context, node string) (api.Database, error) {
	var db api.Database
	if power, err := s.power(ctx, node); err != nil || power != "on" {
		return db, errors.Join(err, fmt.Errorf("node %s is %s", node, power))
	}
	err := s.duet(ctx, node, &db, "db", "status")
	return db, err
}

// of a node's row.
func rowOf(db api.Database, node string) api.DatabaseNode {
	for _, n := range db.Nodes {
		if n.Node == node {
			return n
		}
	}
	return api.DatabaseNode{}
}

// databaseInSync waits until the pair is in sync by the word of both nodes, and says who is primary.
func (s *Site) databaseInSync(ctx context.Context) (primary string, err error) {
	err = s.wait(ctx, "the database in sync", databaseLimit, func() (bool, string) {
		var owners []string
		for _, node := range []string{lab.A, lab.B} {
			db, err := s.database(ctx, node)
			if err != nil {
				return false, err.Error()
			}
			p, q := rowOf(db, db.Owner), rowOf(db, other(db.Owner))
			seen := fmt.Sprintf("%s says owner %s copies %v, %s %s/%s %s, %s %s/%s %s", node, db.Owner, db.Record.Copies,
				p.Node, p.PGStatus, p.DataStatus, p.Activity, q.Node, q.PGStatus, q.DataStatus, q.Activity)
			if len(db.Record.Copies) != 2 || p.PGStatus != "PRI" || q.PGStatus != "HS:sync" || !p.WriteOpen || p.Write != "held" || q.Read != "held" || !q.ReadOpen {
				return false, seen
			}
			owners = append(owners, db.Owner)
		}
		primary = owners[0]
		return owners[0] == owners[1], strings.Join(owners, " and ")
	})
	return primary, err
}

// databaseIs waits for what a node says.
func (s *Site) databaseIs(ctx context.Context, node, what string, is func(api.Database) bool) error {
	return s.wait(ctx, what, databaseLimit, func() (bool, string) {
		db, err := s.database(ctx, node)
		if err != nil {
			return false, err.Error()
		}
		return is(db), fmt.Sprintf("owner %s, copies %v, %+v", db.Owner, db.Record.Copies, db.Nodes)
	})
}

// sql runs one statement as the server's superuser on a node, by its socket.
func (s *Site) sql(ctx context.Context, node, database, statement string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return s.Lab.Exec(ctx, node, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", databaseRun, "-U", "postgres", "-d", database, "-c", statement)
}

// prepareDatabase makes the site's user, database and table, as `duet db user` will.
func (s *Site) prepareDatabase(ctx context.Context, primary string) error {
	for _, in := range [][2]string{
		{"postgres", "CREATE ROLE " + databaseUser + " LOGIN PASSWORD '" + databaseWord + "'"},
		{"postgres", "CREATE DATABASE " + databaseName + " OWNER " + databaseUser},
		{databaseName, "SET ROLE " + databaseUser + "; CREATE TABLE rows (writer int, n int)"},
	} {
		if _, err := s.sql(ctx, primary, in[0], in[1]); err != nil {
			return err
		}
	}
	return nil
}

// databaseLoad is one run of the writers.
type databaseLoad struct {
	site   *Site
	file   string
	cancel context.CancelFunc
	done   chan struct{}
}

// writeDatabase begins four writers on the client's machine.
func (s *Site) writeDatabase() *databaseLoad {
	ctx, cancel := context.WithCancel(context.Background())
	name := fmt.Sprintf(databaseLog, 0)
	l := &databaseLoad{site: s, file: s.nodeFile(lab.Client, name), cancel: cancel, done: make(chan struct{})}
	url := fmt.Sprintf("postgres://%s:%s@%s:5432/%s?sslmode=disable", databaseUser, databaseWord, databaseWrite, databaseName)
	go func() {
		defer close(l.done)
		_, _ = s.Lab.Exec(ctx, lab.Client, "scenario", "pgwriter", "-url", url, "-log", name) //nolint:errcheck // it ends by ctx; its log counts
	}()
	return l
}

func (l *databaseLoad) ops() ([]pgwriter.Op, error) {
	b, err := os.ReadFile(l.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return pgwriter.Read(bytes.NewReader(b))
}

// more waits for rows that are written and acknowledged from now on.
func (l *databaseLoad) more(ctx context.Context, count int) error {
	from := time.Now().UnixMicro()
	return l.site.wait(ctx, "acknowledged rows", databaseLimit, func() (bool, string) {
		ops, err := l.ops()
		if err != nil {
			return false, err.Error()
		}
		more := 0
		for _, o := range slices.Backward(ops) {
			if o.State == pgwriter.Acked && o.Start > from {
				more++
			}
		}
		last := ""
		if len(ops) > 0 {
			last = ops[len(ops)-1].Detail
		}
		return more >= count, fmt.Sprintf("%d of %d, the last one said %q", more, count, last)
	})
}

// judge ends the writers and compares their log with the table on the primary.
func (l *databaseLoad) judge(ctx context.Context, primary string) (pgwriter.Verdict, error) {
	l.stop()
	ops, err := l.ops()
	if err != nil {
		return pgwriter.Verdict{}, err
	}
	out, err := l.site.sql(ctx, primary, databaseName, "SELECT writer || ' ' || n FROM rows")
	if err != nil {
		return pgwriter.Verdict{}, err
	}
	var rows []pgwriter.Row
	for line := range strings.Lines(string(out)) {
		var r pgwriter.Row
		if _, err := fmt.Sscan(line, &r.Writer, &r.N); err != nil {
			return pgwriter.Verdict{}, fmt.Errorf("row %q: %w", line, err)
		}
		rows = append(rows, r)
	}
	return pgwriter.Judge(ops, rows), nil
}

func (l *databaseLoad) stop() {
	l.cancel()
	<-l.done
}

// outage is the longest gap between two acknowledgements since a moment.
func (l *databaseLoad) outage(since time.Time) time.Duration {
	ops, err := l.ops()
	if err != nil {
		return 0
	}
	var recent []pgwriter.Op
	for _, o := range ops {
		if o.End >= since.Add(-time.Second).UnixMicro() {
			recent = append(recent, o)
		}
	}
	return pgwriter.Judge(recent, nil).Longest
}
