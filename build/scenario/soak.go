package scenario

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"duet/build/lab"
)

// Soak plays n random power-cut cycles: which node, how long the site runs before, and how long the power is away
// follow from the seed. Short absences return before the peer has decided anything, long ones after a takeover.
func (s *Site) Soak(ctx context.Context, n int, seed uint64, r *Report) error {
	random := rand.New(rand.NewPCG(seed, 0x736f616b))
	for i := 1; i <= n; i++ {
		c := randomCycle(random)
		name := fmt.Sprintf("cycle %d of %d: node %s, power away for %s", i, n, c.node, c.away)
		if err := s.Play(ctx, Episode{Name: name, Play: c.play}, r); err != nil {
			return err
		}
		r.Cycles++
		r.Kinds[c.kind]++
		if !r.Safe() {
			return fmt.Errorf("cycle %d (node %s, %s): a promise was broken", i, c.node, c.away)
		}
	}
	return nil
}

type cycle struct {
	kind, node   string
	before, away time.Duration
}

// randomCycle draws one of: a blink (shorter than "peer lost"), a short absence (around the decision) and a long one
// (after the takeover).
func randomCycle(random *rand.Rand) cycle {
	c := cycle{node: lab.A, before: time.Duration(random.IntN(1500)) * time.Millisecond}
	if random.IntN(2) == 1 {
		c.node = lab.B
	}
	switch random.IntN(3) {
	case 0:
		c.kind, c.away = "blink", time.Duration(random.IntN(1000))*time.Millisecond
	case 1:
		c.kind, c.away = "short", time.Second+time.Duration(random.IntN(4000))*time.Millisecond
	default:
		c.kind, c.away = "long", 5*time.Second+time.Duration(random.IntN(10000))*time.Millisecond
	}
	return c
}

func (c cycle) play(ctx context.Context, s *Site, _ *Report) error {
	owner, err := s.Owner(ctx)
	if err != nil {
		return err
	}
	if err := s.pause(ctx, c.before); err != nil {
		return err
	}
	if err := s.Lab.Cut(ctx, c.node); err != nil {
		return err
	}
	acked, err := s.console(c.node) // of a node without power: all that it ever acknowledged
	if err != nil {
		return err
	}
	if c.node == owner {
		// The writer died with its node; what it was told is read before the node comes back.
		if err := s.probe.collect(ctx); err != nil {
			return err
		}
	}
	if err := s.pause(ctx, c.away); err != nil {
		return err
	}
	if err := s.Lab.On(ctx, c.node); err != nil {
		return err
	}
	if err := s.wait(ctx, "both paired again", rejoinLimit, func() (bool, string) { return s.paired(ctx) }); err != nil {
		return err
	}
	if c.node != owner {
		return nil
	}
	return s.guestFound(ctx, acked.LastAck)
}

// guestFound waits until a guest that boots after the cut has passed the counter acknowledged before it, wherever it
// runs now.
func (s *Site) guestFound(ctx context.Context, acked uint64) error {
	return s.wait(ctx, fmt.Sprintf("the guest past counter %d", acked), guestLimit, func() (bool, string) {
		owner, err := s.Owner(ctx)
		if err != nil {
			return false, err.Error()
		}
		now, err := s.console(owner)
		if err != nil {
			return false, err.Error()
		}
		return now.LastAck > acked, fmt.Sprintf("%d on %s", now.LastAck, owner)
	})
}

// pause lets the site run for a while: in a soak the moment of the cut is what is random.
func (s *Site) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
