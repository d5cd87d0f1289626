package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"duet/appliance/api"
	"duet/build/lab"
	"duet/build/probe"
)

// A node that holds answers nobody and starts nothing. To see that, somebody must ask: a client that died with its node
// hears nothing whatever the other node does. So every node that must hold has a writer of its own while it is watched.

// holdFor is how long a frozen node is watched: longer than lease and W0, so whoever would take over would have.
const holdFor = 7 * time.Second

// frozenCode is the fault that a node shows while it holds I/O.
const frozenCode = "SITE-1007"

// holds waits until the nodes say that they hold I/O and for whom they wait, and then watches that nobody is answered and
// no VM starts there.
func (s *Site) holds(ctx context.Context, p Phase, owner string, zero time.Time, m *Measured) (err error) {
	var nodes []string
	for _, name := range p.Holds {
		nodes = append(nodes, role(name, owner))
	}
	if err := s.allSayWhy(ctx, nodes, p.Waits, m); err != nil {
		return err
	}
	frozen := time.Now()
	s.Say("  %s", m.Says)
	writers, err := s.askEach(ctx, nodes)
	defer func() { err = errors.Join(err, s.sendAway(ctx, writers)) }()
	if err != nil {
		return err
	}
	if err := s.pause(ctx, holdFor); err != nil {
		return err
	}
	for _, w := range writers {
		if err := w.heardNothing(frozen); err != nil {
			return fmt.Errorf("node %s, after every node had said that it holds: %w", w.node, err)
		}
	}
	truth, err := s.Lab.Truth(ctx)
	if err != nil {
		return err
	}
	for _, node := range nodes {
		if _, ok := vmStart(truth.Events, node, zero); ok {
			return fmt.Errorf("a VM was started on node %s, which holds", node)
		}
		st, err := s.Status(ctx, node)
		if err != nil {
			return err
		}
		if !saysWhy(st, p.Waits) {
			return fmt.Errorf("node %s did not stay frozen: %s", node, st.Sentence)
		}
	}
	return nil
}

func (s *Site) allSayWhy(ctx context.Context, nodes []string, waits string, m *Measured) error {
	for _, node := range nodes {
		err := s.wait(ctx, "node "+node+" frozen, with a reason", takeoverLimit, func() (bool, string) {
			st, err := s.Status(ctx, node)
			if err != nil {
				return false, err.Error()
			}
			m.Says = st.Sentence
			return saysWhy(st, waits), st.Sentence
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// saysWhy says whether a status is that of a node that holds I/O, names whom it waits for, and shows the fault.
func saysWhy(st api.Site, waits string) bool {
	return st.Word == "frozen" && strings.Contains(st.WaitsFor, waits) && strings.Contains(st.Sentence, st.WaitsFor) &&
		slices.ContainsFunc(st.Faults, func(f api.Fault) bool { return f.Code == frozenCode })
}

// askEach gives the writers of these nodes: the client of the case where it lives, and a new one everywhere else. They
// have begun to write.
func (s *Site) askEach(ctx context.Context, nodes []string) (writers []*probeLoad, err error) {
	if !s.probe.lives() {
		if err := s.probe.collect(ctx); err != nil {
			return nil, err
		}
	}
	for _, node := range nodes {
		w := s.probe
		if !w.lives() || w.node != node {
			if w, err = s.probe.beside(node); err != nil {
				return writers, err
			}
		}
		writers = append(writers, w)
		if err := s.wait(ctx, "a client that writes on "+node, takeoverLimit, func() (bool, string) {
			h, err := w.peek()
			return err == nil && h.Last > 0, fmt.Sprint(err)
		}); err != nil {
			return writers, err
		}
	}
	return writers, nil
}

// sendAway ends the writers that were there for the hold only. Nobody answered them, but what they asked for may have been
// done.
func (s *Site) sendAway(ctx context.Context, writers []*probeLoad) error {
	var failed error
	for _, w := range writers {
		if w != s.probe {
			failed = errors.Join(failed, w.collect(ctx), w.read(&s.probe.history))
		}
	}
	return failed
}

// heardNothing judges a writer on a node that has held since a moment. One that lives is in the middle of a request,
// always: it waits for nothing else.
func (p *probeLoad) heardNothing(since time.Time) error {
	if !p.lives() {
		return errors.New("the client ended: nobody asked")
	}
	h, err := p.peek()
	if err != nil {
		return err
	}
	return unanswered(h, since)
}

// unanswered says whether a client that writes has heard nothing since a moment, no error either.
func unanswered(h probe.History, since time.Time) error {
	switch n := len(h.Acks); {
	case h.Last == 0:
		return errors.New("the client has written nothing: nobody asked")
	case n > 0 && h.Acks[n-1].At.After(since):
		return fmt.Errorf("a write was acknowledged after %.1f s", h.Acks[n-1].At.Sub(since).Seconds())
	case len(h.Errors) > 0:
		return fmt.Errorf("a request was answered with an error: %s", h.Errors[0])
	}
	return nil
}

// vmStart is the first start of a VM on a node after a moment, seen by the lab.
func vmStart(events []lab.Event, node string, after time.Time) (time.Time, bool) {
	i := slices.IndexFunc(events, func(e lab.Event) bool {
		return e.Kind == "vm-start" && e.Machine == node && e.Time.After(after)
	})
	if i < 0 {
		return time.Time{}, false
	}
	return events[i].Time, true
}
