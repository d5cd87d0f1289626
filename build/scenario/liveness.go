package scenario

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"duet/build/lab"
)

// Measured is what one case of a row showed. Seconds that a case does not measure are absent.
type Measured struct {
	Row    string   `json:"row"`
	Case   string   `json:"case"`
	Owner  string   `json:"owner"` // who ran the VM when it began
	Own    *float64 `json:"own_s,omitempty"`
	Other  *float64 `json:"other_s,omitempty"`
	Back   *float64 `json:"back_s,omitempty"` // after what was missing returned
	Says   string   `json:"says,omitempty"`   // by whom it is held, in the product's words
	Failed string   `json:"failed,omitempty"`

	Seconds float64 `json:"seconds"` // the whole case, until the site was whole again
}

// PlayCase plays one case from a whole site to a whole site, and judges: what it demands came, nothing was lost, nothing
// ran twice, both legs are equal. How long things took decides nothing here.
func (s *Site) PlayCase(ctx context.Context, row Row, c Case) (m Measured) {
	began := time.Now()
	m = Measured{Row: row.Name, Case: c.Name}
	err := s.playCase(ctx, row, c, &m)
	if err != nil {
		m.Failed = err.Error()
		s.Say("  FAILED: %v", err)
	}
	m.Seconds = seconds(time.Since(began))
	return m
}

func (s *Site) playCase(ctx context.Context, row Row, c Case, m *Measured) error {
	owner, err := s.Owner(ctx)
	if err != nil {
		return err
	}
	m.Owner = owner
	s.Say("%s: %s (owner %s)", row.Name, c.Name, owner)
	if err := s.do(ctx, "writes owner", owner); err != nil {
		return err
	}
	if err := s.waitAcks(ctx); err != nil {
		return err
	}
	for _, p := range c.Phases {
		if err := s.playPhase(ctx, p, owner, m); err != nil {
			return err
		}
	}
	if err := s.Heal(ctx); err != nil {
		return fmt.Errorf("healing: %w", err)
	}
	if err := s.WaitWhole(ctx); err != nil {
		return fmt.Errorf("after healing: %w", err)
	}
	r := NewReport()
	if err := s.verdict(ctx, r); err != nil {
		return fmt.Errorf("verdict: %w", err)
	}
	return r.broken()
}

// broken names the promise that was broken, if any.
func (r *Report) broken() error {
	if r.Safe() {
		return nil
	}
	return fmt.Errorf("a promise was broken: %d acknowledged writes lost, %d I/O errors, %.0f ms run twice, %d volumes with different legs",
		r.LostWrites, r.IOErrors, r.DoubleRunMS, r.LegsDiffer)
}

// playPhase does the steps of one phase and waits for what must come of them.
func (s *Site) playPhase(ctx context.Context, p Phase, owner string, m *Measured) error {
	before, err := s.pairNow(ctx, p)
	if err != nil {
		return err
	}
	zero := time.Now()
	for _, text := range p.Do {
		if err := s.do(ctx, text, owner); err != nil {
			return err
		}
	}
	if p.Quiet > 0 {
		if err := s.nothingHappens(ctx, zero, p.Quiet, before); err != nil {
			return err
		}
	}
	if len(p.Holds) > 0 {
		if err := s.holds(ctx, p, owner, zero, m); err != nil {
			return err
		}
	}
	own, others := &m.Own, &m.Other
	if p.Back {
		own, others = &m.Back, &m.Back
	}
	var winner string
	if p.One {
		if winner, err = s.winner(ctx); err != nil {
			return err
		}
		s.Say("  node %s goes on alone", winner)
		if winner == owner {
			p.Own = winner
		} else {
			p.Starts = winner
		}
	}
	if p.Own != "" {
		if err := s.goesOn(ctx, role(p.Own, owner), zero, own); err != nil {
			return err
		}
	}
	if p.Starts != "" {
		if err := s.starts(ctx, role(p.Starts, owner), zero, others); err != nil {
			return err
		}
	}
	if p.One {
		return s.neverSolo(other(winner), zero)
	}
	return nil
}

// pairNow is the epoch before a phase in which nothing may happen; else nobody asks.
func (s *Site) pairNow(ctx context.Context, p Phase) (epoch uint64, err error) {
	if p.Quiet == 0 {
		return 0, nil
	}
	st, err := s.Status(ctx, lab.A)
	return st.Epoch, err
}

// nothingHappens lets the time pass; then both must be paired at the same epoch as before.
func (s *Site) nothingHappens(ctx context.Context, zero time.Time, d time.Duration, epoch uint64) error {
	if err := s.pause(ctx, time.Until(zero.Add(d))); err != nil {
		return err
	}
	for _, node := range []string{lab.A, lab.B} {
		st, err := s.Status(ctx, node)
		if err != nil {
			return err
		}
		if st.Mode != "paired" || st.Epoch != epoch {
			return fmt.Errorf("something happened: %s is %s at epoch %d, was paired at epoch %d", node, st.Mode, st.Epoch, epoch)
		}
	}
	return nil
}

// goesOn waits until a client on node is acknowledged again and measures the longest time without an acknowledgement
// since zero. A client that died with its node is started again: that is what a guest would see.
func (s *Site) goesOn(ctx context.Context, node string, zero time.Time, into **float64) error {
	if s.probe.node != node || !s.probe.lives() {
		if err := s.do(ctx, "writes "+node, node); err != nil {
			return err
		}
	}
	if err := s.waitAcks(ctx); err != nil {
		return err
	}
	h, err := s.probe.peek()
	if err != nil {
		return err
	}
	worst(into, h.Gap(zero))
	s.Say("  writes on %s went without an answer for %.1f s", node, h.Gap(zero).Seconds())
	return nil
}

// starts waits until the VM's process lives on node and measures from zero; both are seen by the lab.
func (s *Site) starts(ctx context.Context, node string, zero time.Time, into **float64) error {
	if err := s.do(ctx, "runs "+node, node); err != nil {
		return err
	}
	truth, err := s.Lab.Truth(ctx)
	if err != nil {
		return err
	}
	at, ok := vmStart(truth.Events, node, zero)
	if !ok {
		return errors.New("the lab did not see the start of the VM")
	}
	worst(into, at.Sub(zero))
	s.Say("  %s is starting on %s after %.1f s", VMName, node, at.Sub(zero).Seconds())
	return nil
}

// worst keeps the longer of two measured times: a case may measure the same thing more than once.
func worst(into **float64, d time.Duration) {
	v := seconds(d)
	if *into == nil || **into < v {
		*into = &v
	}
}

// seconds with two digits: more would be noise.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*100) / 100 }
