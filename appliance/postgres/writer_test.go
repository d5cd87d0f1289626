package postgres

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// writers insert unique rows at a rate through the write gates of both nodes, and note what they were told. It is the
// smallest thing that can say that an acknowledged row is gone, and that two servers answered at a time.
type writers struct {
	t     *testing.T
	hosts [2]string
	stop  chan struct{}
	wait  sync.WaitGroup
	mu    sync.Mutex
	ops   []op
	next  int
}

type op struct {
	writer, n  int
	node       int
	timeline   int
	start, end time.Time
	acked      bool // else unknown, or certainly failed: neither may be counted
}

const (
	writerCount = 4
	writeEvery  = 5 * time.Millisecond
	writeLimit  = 8 * time.Second // longer than any outage that a scenario allows
)

func startWriters(t *testing.T, hosts [2]string) *writers {
	w := &writers{t: t, hosts: hosts, stop: make(chan struct{})}
	for i := range writerCount {
		w.wait.Go(func() { w.run(i) })
	}
	return w
}

func (w *writers) run(id int) {
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	node := 0
	var conn *pgconn.PgConn
	defer func() {
		if conn != nil {
			conn.Conn().Close()
		}
	}()
	for n := 0; ; {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		if conn == nil {
			if conn = dial(w.hosts[node], "app"); conn == nil {
				node = 1 - node
				continue
			}
		}
		n++
		if !w.insert(conn, id, n, node) {
			conn.Conn().Close()
			conn = nil
		}
	}
}

// dial opens a session of the site's user; nil when nobody answers.
func dial(host, database string) *pgconn.PgConn {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	cfg, err := pgconn.ParseConfig("postgres://app:secret@" + host + "/" + database + "?sslmode=disable")
	if err != nil {
		return nil
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil
	}
	return conn
}

// insert one row. An acknowledgement with a notice is not one: a cancelled wait succeeds with a warning.
func (w *writers) insert(conn *pgconn.PgConn, id, n, node int) bool {
	ctx, cancel := context.WithTimeout(context.Background(), writeLimit)
	defer cancel()
	o := op{writer: id, n: n, node: node, start: time.Now()}
	results, err := conn.Exec(ctx, fmt.Sprintf(
		"INSERT INTO rows VALUES (%d, %d) RETURNING ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int", id, n)).ReadAll()
	o.end = time.Now()
	if err == nil && len(results) == 1 && len(results[0].Rows) == 1 {
		o.acked = true
		o.timeline, _ = strconv.Atoi(string(results[0].Rows[0][0]))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ops = append(w.ops, o)
	return err == nil
}

// acked counts acknowledgements.
func (w *writers) acked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	count := 0
	for _, o := range w.ops {
		if o.acked {
			count++
		}
	}
	return count
}

// awaitMore waits for acknowledgements of statements that begin from now on.
func (w *writers) awaitMore(count int, within time.Duration) {
	w.t.Helper()
	from := time.Now()
	await(w.t, within, fmt.Sprintf("%d more rows", count), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		more := 0
		for i := len(w.ops) - 1; i >= 0; i-- {
			if w.ops[i].acked && w.ops[i].start.After(from) {
				more++
			}
		}
		return more >= count
	})
}

// longest gap between two acknowledgements: the write outage. It is told, never judged: this machine is shared.
func (w *writers) longest() time.Duration {
	var last time.Time
	var most time.Duration
	for _, o := range w.ops {
		if o.acked {
			if !last.IsZero() {
				most = max(most, o.end.Sub(last))
			}
			last = o.end
		}
	}
	return most
}

// finish ends the writers and judges: no acknowledged row is missing on the server, none is there twice, and once a
// newer timeline has answered no older one does.
func (w *writers) finish(host string) {
	w.t.Helper()
	close(w.stop)
	w.wait.Wait()
	conn := dial(host, "app")
	if conn == nil {
		w.t.Fatal("nobody answers in the end")
	}
	defer conn.Conn().Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	results, err := conn.Exec(ctx, "SELECT writer, n FROM rows").ReadAll()
	if err != nil {
		w.t.Fatal(err)
	}
	seen := map[string]int{}
	for _, row := range results[0].Rows {
		seen[string(row[0])+"/"+string(row[1])]++
	}
	lost, acked := 0, 0
	for _, o := range w.ops {
		if !o.acked {
			continue
		}
		acked++
		switch seen[fmt.Sprintf("%d/%d", o.writer, o.n)] {
		case 0:
			lost++
			w.t.Errorf("LOST: row %d of writer %d, acknowledged by node %d on timeline %d", o.n, o.writer, o.node, o.timeline)
		case 1:
		default:
			w.t.Errorf("row %d of writer %d is there twice", o.n, o.writer)
		}
	}
	w.onePrimary()
	w.t.Logf("%d rows acknowledged, %d lost, %d there, longest gap %d ms", acked, lost, len(seen), w.longest().Milliseconds())
}

// onePrimary: a statement that began after a newer timeline had answered is never answered by an older one.
func (w *writers) onePrimary() {
	w.t.Helper()
	first := map[int]time.Time{}
	for _, o := range w.ops {
		if o.acked && (first[o.timeline].IsZero() || o.end.Before(first[o.timeline])) {
			first[o.timeline] = o.end
		}
	}
	for _, o := range w.ops {
		for tl, at := range first {
			if o.acked && tl > o.timeline && o.start.After(at) {
				w.t.Errorf("TWO PRIMARIES: timeline %d answered after timeline %d had", o.timeline, tl)
				return
			}
		}
	}
}
