package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// session is one connection to the server on its unix socket.
type session struct {
	conn    *pgconn.PgConn
	timeout time.Duration // of one question
}

// connect opens one. It asks for nothing that a server in recovery does not have.
func (m *Manager) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.AskTimeout)
	defer cancel()
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable application_name=duet", m.cfg.Run, m.cfg.Port, superuser))
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return &session{conn, m.cfg.AskTimeout}, nil
}

// close drops the socket. A polite goodbye could wait for a server that hangs.
func (s *session) close() {
	if s != nil {
		s.conn.Conn().Close()
	}
}

// ask runs one statement of ours; values come as text, NULL as "". It must not be a commit that waits for the standby:
// at the deadline pgconn sends a cancel, and a cancelled wait reports success.
func (s *session) ask(ctx context.Context, sql string) ([][]string, error) {
	results, err := s.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	var rows [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			texts := make([]string, len(row))
			for i, v := range row {
				texts[i] = string(v)
			}
			rows = append(rows, texts)
		}
	}
	return rows, nil
}

// quick is ask with the deadline of a look.
func (s *session) quick(ctx context.Context, sql string) ([][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.ask(ctx, sql)
}

// until asks again and again for a condition, until ctx ends.
func (s *session) until(ctx context.Context, condition string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		rows, err := s.ask(ctx, condition)
		if err != nil {
			return err
		}
		if len(rows) == 1 && rows[0][0] == "t" {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(errors.New(condition), ctx.Err())
		case <-tick.C:
		}
	}
}
