package postgres

import (
	"context"
	"errors"
	"sync"
	"time"

	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

// script plays the membership core of both nodes: what it gives is what the real one can give, moved by the test instead
// of by beats, a witness and fencing. The records of both nodes are kept apart, and rule W is carried out between them.
type script struct {
	mu       sync.Mutex
	mode     [2]membership.Mode
	cut      bool // no message passes between the nodes
	epoch    membership.Epoch
	owner    membership.Node
	version  uint32
	evidence [2]decide.Evidence
	docs     [2]decide.Docs
	frozen   [2]bool // the lease of this node is not renewed
	until    [2]membership.Boottime
	wrote    []decide.Record // every record that became current on its writer
	at       []time.Time
	managers [2]*Manager
}

const scriptLease = 4 * time.Second

func newScript() *script {
	return &script{mode: [2]membership.Mode{membership.Paired, membership.Paired}, epoch: 1}
}

// port is the authority as one node sees it.
type port struct {
	s *script
	n membership.Node
}

func (p port) Now() (decide.Grant, decide.Docs) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	g := decide.Grant{Mode: s.mode[p.n], Epoch: s.epoch, Owner: s.owner, Version: s.version, Members: membership.Both, Evidence: s.evidence[p.n]}
	now := membership.Boottime(boottime.Now())
	switch g.Mode {
	case membership.Solo:
		g.Members = membership.Only(p.n)
		g.Right = g.Owner == p.n
	case membership.Paired:
		if !s.frozen[p.n] {
			s.until[p.n] = now + membership.Boottime(scriptLease)
		}
		g.Deadline = s.until[p.n]
		g.Right = g.Owner == p.n && now < g.Deadline
	default:
		g.Deadline = s.until[p.n]
	}
	if g.Right && g.Evidence == decide.EvidenceNone {
		g.Evidence = decide.EvidenceStated
	}
	return g, s.docs[p.n]
}

var errScript = errors.New("refused by the script")

// WriteRecord is R25 with rule W.
func (p port) WriteRecord(_ context.Context, r decide.Record, growth bool) error {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	me, other := p.n, p.n.Peer()
	if s.owner != me || !r.Newer(s.docs[me].Newest()) {
		return errScript
	}
	switch {
	case s.mode[me] == membership.Solo:
		s.current(me, r)
		return nil
	case s.mode[me] != membership.Paired || s.cut:
		return errScript
	case growth:
		s.current(me, r)
		s.docs[other].Pending = r
	default:
		s.docs[other].Pending = r
		s.current(me, r)
	}
	s.docs[other] = decide.Docs{Current: r}
	s.wakeAll()
	return nil
}

func (s *script) current(n membership.Node, r decide.Record) {
	s.docs[n] = decide.Docs{Current: r}
	s.wrote, s.at = append(s.wrote, r), append(s.at, time.Now())
}

// lose: n is alone, by a witness; what fencing says of the other node is given.
func (s *script) lose(n membership.Node, e decide.Evidence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mode[n] != membership.Solo {
		s.epoch++
	}
	s.cut, s.mode[n], s.mode[n.Peer()], s.evidence[n] = true, membership.Solo, membership.Init, e
	s.wakeAll()
}

func (s *script) wakeAll() {
	for _, m := range s.managers {
		if m != nil {
			m.Wake()
		}
	}
}

func (p port) Want() {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mode[p.n] == membership.Solo && s.evidence[p.n].Good() && s.owner != p.n {
		s.owner, s.version = p.n, s.version+1
		s.wakeAll()
	}
}

func (p port) MoveOwner(context.Context) error {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner != p.n || s.mode[p.n] != membership.Paired || s.cut {
		return errScript
	}
	s.owner, s.version = p.n.Peer(), s.version+1
	s.wakeAll()
	return nil
}

// other is how a node reaches the manager of the other one.
type other struct {
	s *script
	n membership.Node
}

func (o other) Peer() decide.Peer {
	o.s.mu.Lock()
	m, cut := o.s.managers[o.n.Peer()], o.s.cut
	o.s.mu.Unlock()
	if m == nil || cut {
		return decide.Peer{}
	}
	return m.Said()
}

func (o other) PauseReplay(ctx context.Context, pause bool) error {
	o.s.mu.Lock()
	m, cut := o.s.managers[o.n.Peer()], o.s.cut
	o.s.mu.Unlock()
	if m == nil || cut {
		return errScript
	}
	return m.PauseReplay(ctx, pause)
}
