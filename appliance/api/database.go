package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// DatabaseBackend is the PostgreSQL pair (docs/postgres.md). A site without one refuses all of it with a code.
type DatabaseBackend interface {
	// Database is the pair as this node sees it.
	Database(ctx context.Context) (Database, error)
	// Switchover moves the primary to the other node and returns when it serves there. It is refused with *OtherNodeError
	// where the database is not owned, and with a code that names the line that does not hold.
	Switchover(ctx context.Context, by, reason string) error
	// SetDatabase changes what the site document wants of it.
	SetDatabase(ctx context.Context, o DatabaseSettings, by string) error
}

// Database is the PostgreSQL pair as the answering node sees it.
type Database struct {
	Owner        string         `json:"owner"` // the only node that may have a primary
	WriteAddress string         `json:"write_address"`
	ReadAddress  string         `json:"read_address"`
	Port         int            `json:"port"`
	Durability   string         `json:"durability" enum:"available,strict"` // as the site wants it
	Record       DatabaseRecord `json:"record"`
	Nodes        []DatabaseNode `json:"nodes"` // a, b
}

// DatabaseRecord is the newest database record that this node has.
type DatabaseRecord struct {
	Epoch      uint64      `json:"epoch"`
	Version    uint64      `json:"version"` // 0: there is none yet
	SystemID   string      `json:"system_id"`
	Copies     []string    `json:"copies"` // nodes whose directory holds every acknowledged commit
	Timeline   uint32      `json:"timeline"`
	PromoteLSN string      `json:"promote_lsn"` // where the timeline began
	Durability string      `json:"durability"`
	SinceUnix  int64       `json:"since_unix_s"` // wall clock: when copies became what it is; 0: unknown
	History    []Promotion `json:"history"`      // oldest first, at most 64
}

// Promotion is one entry of the history.
type Promotion struct {
	Epoch        uint64   `json:"epoch"`
	Version      uint64   `json:"version"`
	From         string   `json:"from"`
	To           string   `json:"to"`
	FromTimeline uint32   `json:"from_timeline"`
	Timeline     uint32   `json:"timeline"`
	ForkLSN      string   `json:"fork_lsn"`
	CopiesBefore []string `json:"copies_before"`
	Reason       string   `json:"reason" enum:"none,switchover,crash,node lost,forced"`
	Forced       bool     `json:"forced"`
}

// DatabaseNode is one node's server. The peer's is what it said last; older than 1.5 s it is UNKNOWN.
type DatabaseNode struct {
	Node       string `json:"node"`
	PGStatus   string `json:"pg_status" enum:"PRI,HS:sync,HS:async,HS:connected,HS:alone,STOP,UNKNOWN"`
	DataStatus string `json:"data_status"` // LATEST, STREAMING|SYNC, STREAMING|ASYNC, DISCONNECT
	Role       string `json:"role" enum:"primary,standby,none"`
	Activity   string `json:"activity"`
	Promotable bool   `json:"promotable"`
	Why        string `json:"why"` // of promotable
	Timeline   uint32 `json:"timeline"`
	ReceiveLSN string `json:"receive_lsn"`
	ReplayLSN  string `json:"replay_lsn"`
	Failures   int    `json:"failures"` // within ten minutes
	WriteOpen  bool   `json:"write_open"`
	ReadOpen   bool   `json:"read_open"`
	Write      string `json:"write_address"` // absent, asking, held, claimed by another machine, failed
	Read       string `json:"read_address"`
	Progress   string `json:"progress,omitempty"`
	AgeMS      int64  `json:"age_ms"` // of the observation; -1: never
}

// DatabaseSettings is what `duet db set` changes; what is absent stays.
type DatabaseSettings struct {
	Durability string `json:"durability,omitempty" enum:"available,strict" doc:"without its standby the database goes on alone, or commits wait"`
	Reason     string `json:"reason" doc:"why; it is shown to everybody who looks"`
}

type (
	switching struct{ Body Confirmed }
	setting   struct{ Body DatabaseSettings }
)

func (s *Server) databaseRoutes(api huma.API) {
	route(api, http.MethodGet, "/database", "db-status", "The PostgreSQL pair", s.database)
	route(api, http.MethodPost, "/database/switchover", "db-switchover", "Move the primary to the other node", s.switchover)
	route(api, http.MethodPost, "/database", "db-set", "Change what the site wants of the database", s.setDatabase)
}

func (s *Server) database(ctx context.Context, _ *nothing) (*reply[Database], error) {
	db, err := s.cfg.Backend.Database(ctx)
	db.Nodes, db.Record.Copies, db.Record.History = orEmpty(db.Nodes), orEmpty(db.Record.Copies), orEmpty(db.Record.History)
	return &reply[Database]{db}, err
}

func (s *Server) switchover(ctx context.Context, in *switching) (*reply[Database], error) {
	reason, err := s.confirmed(ctx, "the switchover of the database", in.Body)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Backend.Switchover(ctx, byRoot, reason); err != nil {
		return nil, err
	}
	return s.database(ctx, nil)
}

func (s *Server) setDatabase(ctx context.Context, in *setting) (*reply[Database], error) {
	reason, err := givenReason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	in.Body.Reason = reason
	if err := s.cfg.Backend.SetDatabase(ctx, in.Body, byRoot); err != nil {
		return nil, err
	}
	return s.database(ctx, nil)
}

// Database asks for the pair.
func (c *Client) Database(ctx context.Context) (Database, error) {
	return get[Database](ctx, c, "/database")
}

// Switchover moves the primary away from the node that answers.
func (c *Client) Switchover(ctx context.Context, o Confirmed) (Database, error) {
	return post[Database](ctx, c, "/database/switchover", o)
}

// SetDatabase changes what the site wants of it.
func (c *Client) SetDatabase(ctx context.Context, o DatabaseSettings) (Database, error) {
	return post[Database](ctx, c, "/database", o)
}
