package server

import (
	"context"
	"time"

	"duet/witness/wire"
)

// Status is what people want to know of a running witness. Its JSON form is that of `duet-witness status -o json`.
type Status struct {
	Uptime      float64           `json:"uptime_seconds"`
	Enrolled    int               `json:"sites_enrolled"`
	Connections int               `json:"connections"`
	Nodes       int               `json:"nodes_connected"` // keys with a connection
	Store       StoreStatus       `json:"store"`
	Accepted    uint64            `json:"connections_accepted"`
	Requests    map[string]uint64 `json:"requests"` // by operation
	Results     map[string]uint64 `json:"results"`  // by answer
	Refusals    map[string]uint64 `json:"refusals"` // by reason; a request that is answered "failed" is none
}

// StoreStatus is the store in a Status.
type StoreStatus struct {
	Kind      string `json:"kind"`
	Healthy   bool   `json:"healthy"`
	Error     string `json:"error,omitempty"`
	Sites     int    `json:"sites"`     // that made a register
	Registers int    `json:"registers"` // kept; up to four of a site, one in use
}

// Status reads the counters and asks the store.
func (s *Server) Status(ctx context.Context) Status {
	status := Status{
		Uptime: time.Since(s.began).Seconds(), Enrolled: s.cfg.Sites.Count(), Accepted: s.accepted.Load(),
		Requests: make(map[string]uint64), Results: make(map[string]uint64), Refusals: s.refusals.byReason(),
	}
	status.Connections, status.Nodes = s.table.count()
	for op := wire.Create; op <= wire.Status; op++ {
		status.Requests[op.String()] = s.requests[op].Load()
	}
	for result := wire.OK; result <= wire.Refused; result++ {
		if n := s.results[result].Load(); n > 0 {
			status.Results[result.String()] = n
		}
	}
	status.Store.Kind = s.cfg.Store.Kind()
	err := s.cfg.Store.Health()
	if err == nil {
		status.Store.Sites, status.Store.Registers, err = s.cfg.Store.Count(ctx)
	}
	if status.Store.Healthy = err == nil; err != nil {
		status.Store.Error = err.Error()
	}
	return status
}

// Alive takes every lock that a request takes and says why the store has no answer, or nil. If it does not return, this
// process has to be ended.
func (s *Server) Alive() error {
	s.cfg.Sites.Count()
	s.table.count()
	return s.cfg.Store.Health()
}
