// Package pgwriter is the client of the database that knows what it was promised: it inserts unique rows through the write
// address and logs what it was told of each, and it judges the rows that are there in the end against that log.
//
// A row is acked when the server said so without a warning; failed when the server refused it; unknown otherwise.
// A cancelled wait for the standby succeeds with SQLSTATE 01000 and is unknown (docs/postgres.md). Lost is a row that was
// acked and is not there: the only number that must be 0 whatever happens. It judges no time; the longest gap between two
// acknowledgements is told.
//
// The log is written line by line by the machine of the writers, which no scenario cuts off.
package pgwriter

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"
)

// Config says where and how to write.
type Config struct {
	URL     string        // postgres://user:password@host:port/database; of several hosts the first that suits the URL
	Writers int           // side by side
	Every   time.Duration // one row of each writer
	Run     int           // of this client: rows of two runs never meet
}

// statementLimit is longer than any outage that a scenario allows; a statement that has no answer by then is unknown.
const statementLimit = 20 * time.Second

// dialLimit and dialPause bound the search for a server that is back, host by host. On a LAN an answer takes less than a
// millisecond; an address that is on no machine gives none.
const (
	dialLimit = 300 * time.Millisecond
	dialPause = 20 * time.Millisecond
)

// keepAlive asks whether the other side is still there. A client that waits for an answer of a node that has lost its power sends
// nothing, so nothing tells it; the first question meets the node that has the address now, which resets the connection.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 3}

// userTimeout ends a connection whose statement nobody has taken for so long: there the kernel repeats the statement, at
// longer and longer intervals, and asks nothing. It is what docs/postgres.md advises clients to set.
const userTimeout = 3 * time.Second

// State is what a writer was told.
type State string

// The states.
const (
	Acked   State = "acked"
	Failed  State = "failed"
	Unknown State = "unknown"
)

// Op is one line of the log.
type Op struct {
	Writer   int    `json:"w"`
	N        int    `json:"n"`
	Start    int64  `json:"start_us"` // wall clock of the client
	End      int64  `json:"end_us"`
	State    State  `json:"state"`
	Timeline int    `json:"tl,omitempty"` // of the server that acknowledged
	Detail   string `json:"detail,omitempty"`
}

// Write inserts until ctx ends. The table is "rows(writer int, n int)".
func Write(ctx context.Context, cfg Config, log io.Writer) error {
	var mu sync.Mutex
	enc := json.NewEncoder(log)
	var failed error
	note := func(o Op) {
		mu.Lock()
		defer mu.Unlock()
		failed = errors.Join(failed, enc.Encode(o))
	}
	var wg sync.WaitGroup
	for i := range cfg.Writers {
		wg.Go(func() { cfg.one(ctx, cfg.Run*cfg.Writers+i, note) })
	}
	wg.Wait()
	return failed
}

// one writer.
func (c Config) one(ctx context.Context, id int, note func(Op)) {
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	var conn *pgconn.PgConn
	var warned atomic.Bool
	drop := func() {
		if conn != nil {
			conn.Conn().Close() // without a goodbye, which could wait
			conn = nil
		}
	}
	defer drop()
	for n := 1; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if conn == nil {
			if conn = c.dial(ctx, &warned); conn == nil {
				if !pause(ctx, dialPause) {
					return
				}
				continue
			}
		}
		o := insert(ctx, conn, &warned, id, n)
		if ctx.Err() != nil && o.State != Acked {
			o.State = Unknown // this process ended the wait
		}
		n++
		note(o)
		if o.State != Acked {
			drop()
		}
	}
}

func (c Config) dial(ctx context.Context, warned *atomic.Bool) *pgconn.PgConn {
	cfg, err := pgconn.ParseConfig(c.URL)
	if err != nil {
		return nil
	}
	cfg.ConnectTimeout = dialLimit
	cfg.DialFunc = (&net.Dialer{KeepAliveConfig: keepAlive, Control: giveUp}).DialContext
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { warned.Store(warned.Load() || n.Code == "01000") }
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil
	}
	return conn
}

// giveUp sets TCP_USER_TIMEOUT.
func giveUp(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
	return errors.Join(err, failed)
}

func insert(ctx context.Context, conn *pgconn.PgConn, warned *atomic.Bool, id, n int) Op {
	ctx, cancel := context.WithTimeout(ctx, statementLimit)
	defer cancel()
	warned.Store(false)
	o := Op{Writer: id, N: n, Start: time.Now().UnixMicro(), State: Unknown}
	results, err := conn.Exec(ctx, fmt.Sprintf(
		"INSERT INTO rows VALUES (%d, %d) RETURNING ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int", id, n)).ReadAll()
	o.End = time.Now().UnixMicro()
	var refused *pgconn.PgError
	switch {
	case err == nil && len(results) == 1 && len(results[0].Rows) == 1 && !warned.Load():
		o.State = Acked
		o.Timeline, _ = strconv.Atoi(string(results[0].Rows[0][0])) // 0 is judged as no timeline
	case err == nil:
		o.Detail = "a warning"
	case errors.As(err, &refused) && !strings.HasPrefix(refused.Code, "57P"):
		o.State, o.Detail = Failed, err.Error()
	// Not pgconn.SafeToRetry: it said yes of statements that had been sent and had waited for seconds ("conn closed", 5.12.0).
	default:
		o.Detail = err.Error()
	}
	return o
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Read a log. Its last line may have been cut off: then its writer was not told anything.
func Read(r io.Reader) ([]Op, error) {
	var ops []Op
	s := bufio.NewScanner(r)
	for s.Scan() {
		var o Op
		if err := json.Unmarshal(s.Bytes(), &o); err != nil {
			return ops, nil //nolint:nilerr // the line was being written
		}
		ops = append(ops, o)
	}
	return ops, s.Err()
}

// Row is what is in the table.
type Row struct{ Writer, N int }

// Verdict is what the log and the table say together.
type Verdict struct {
	Acked, Failed, Unknown int
	Lost                   []Row // acked, and not there
	Twice                  []Row
	TwoPrimaries           string        // empty: no older timeline answered after a newer one had
	Longest                time.Duration // gap between two acknowledgements
}

// Judge compares.
func Judge(ops []Op, rows []Row) Verdict {
	var v Verdict
	there := map[Row]int{}
	for _, r := range rows {
		if there[r]++; there[r] == 2 {
			v.Twice = append(v.Twice, r)
		}
	}
	first := map[int]int64{} // when each timeline answered first
	var last int64
	for _, o := range ops {
		switch o.State {
		case Failed:
			v.Failed++
			continue
		case Unknown:
			v.Unknown++
			continue
		case Acked:
			v.Acked++
		}
		if there[Row{o.Writer, o.N}] == 0 {
			v.Lost = append(v.Lost, Row{o.Writer, o.N})
		}
		if last != 0 {
			v.Longest = max(v.Longest, time.Duration(o.End-last)*time.Microsecond)
		}
		last = max(last, o.End)
		if at := first[o.Timeline]; at == 0 || o.End < at {
			first[o.Timeline] = o.End
		}
	}
	for _, o := range ops {
		for tl, at := range first {
			if o.State == Acked && tl > o.Timeline && o.Start > at {
				v.TwoPrimaries = fmt.Sprintf("timeline %d answered %d µs after timeline %d had", o.Timeline, o.End-at, tl)
			}
		}
	}
	return v
}
