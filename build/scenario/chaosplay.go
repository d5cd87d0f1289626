package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"duet/build/lab"
)

// ChaosReport is the one line of JSON at the end of a chaos run.
type ChaosReport struct {
	Chaos string `json:"chaos"` // "ok" or "failed"
	Seed  uint64 `json:"seed"`

	Episodes    int            `json:"episodes"` // played to their end
	Kinds       map[string]int `json:"kinds"`    // faults by kind
	Double      int            `json:"double"`   // episodes of two faults
	Rushed      int            `json:"rushed"`   // begun while the site still recovered
	Moot        int            `json:"moot"`     // steps that found nothing to do: a kill on a node without power
	Held        int            `json:"held_with_reason"`
	Judged      int            `json:"judged"` // verdicts: after every episode that the next one does not rush
	LostWrites  int            `json:"lost_acked_writes"`
	IOErrors    int            `json:"io_errors"`
	DoubleRunMS float64        `json:"double_run_ms"`
	LegsDiffer  int            `json:"legs_differ"`
	Stuck       int            `json:"stuck"`           // did not become whole again, with all hardware whole
	Unexplained int            `json:"unexplained"`     // held I/O without saying for whom it waits
	Replayed    int            `json:"replayed_inputs"` // by the flight recorders of both nodes, at the end
	Failures    []string       `json:"failures"`
	Leftovers   int            `json:"leftovers"`
	MeanSeconds float64        `json:"mean_s"`
	Seconds     float64        `json:"seconds"`
}

// NewChaosReport is an empty one.
func NewChaosReport(seed uint64) *ChaosReport {
	return &ChaosReport{Seed: seed, Kinds: map[string]int{}, Failures: []string{}}
}

// Safe says whether no promise was broken.
func (r *ChaosReport) Safe() bool { return len(r.Failures) == 0 && r.Leftovers == 0 }

// Write prints the line.
func (r *ChaosReport) Write(w io.Writer) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", line)
	return err
}

var errStuck, errUnexplained = errors.New("stuck"), errors.New("held without a reason")

// guestEvery is how often an episode also waits until the guest counts on: its boot takes longer than most faults. The
// guest's history is judged every time.
const guestEvery = 8

// Chaos plays a schedule. After a failure it goes on with a fresh site, so that one finding does not hide the next.
func (g *Stage) Chaos(ctx context.Context, schedule []ChaosEpisode, budget time.Duration, r *ChaosReport) error {
	began := time.Now()
	for i, e := range schedule {
		if time.Since(began) > budget {
			break
		}
		s, err := g.Site(ctx)
		if err != nil {
			return err
		}
		last := i+1 == len(schedule)
		s.Say("%s", e)
		err = s.playChaos(ctx, e, r)
		if err == nil && (last || !schedule[i+1].Rush) {
			err = s.judgeChaos(ctx, last || e.Number%guestEvery == 0, r)
		}
		r.count(e)
		r.Seconds = seconds(time.Since(began))
		r.MeanSeconds = seconds(time.Since(began) / time.Duration(r.Episodes))
		if err == nil {
			continue
		}
		switch {
		case errors.Is(err, errStuck):
			r.Stuck++
		case errors.Is(err, errUnexplained):
			r.Unexplained++
		}
		s.Say("  FAILED: %v", err)
		r.Failures = append(r.Failures, e.String()+": "+err.Error())
		if err := errors.Join(ctx.Err(), g.Failed(fmt.Sprintf("episode-%d", e.Number))); err != nil {
			return err
		}
	}
	return g.replayed(ctx, r)
}

// replayed asks the flight recorders of the site that is there at the end whether the core decides again what it decided.
func (g *Stage) replayed(ctx context.Context, r *ChaosReport) error {
	if g.site == nil || r.Episodes == 0 {
		return nil
	}
	rings, err := g.site.FlightRings(ctx)
	for _, sum := range rings {
		r.Replayed += int(sum.Inputs)
	}
	if err != nil {
		r.Failures = append(r.Failures, err.Error())
	}
	return ctx.Err()
}

func (r *ChaosReport) count(e ChaosEpisode) {
	r.Episodes++
	for _, f := range e.Faults {
		r.Kinds[f.Kind]++
	}
	if len(e.Faults) > 1 {
		r.Double++
	}
	if e.Rush {
		r.Rushed++
	}
}

// playChaos plays one timeline under load and makes the hardware whole.
func (s *Site) playChaos(ctx context.Context, e ChaosEpisode, r *ChaosReport) error {
	if !e.Rush {
		if err := s.loaded(ctx); err != nil {
			return err
		}
	}
	if err := s.pause(ctx, e.Before); err != nil {
		return err
	}
	zero := time.Now()
	for _, m := range e.timeline() {
		if err := s.pause(ctx, time.Until(zero.Add(m.at))); err != nil {
			return err
		}
		moot, err := s.tryStep(ctx, m.step)
		if err != nil {
			return fmt.Errorf("the lab: %w", err)
		}
		if moot {
			r.Moot++
		}
	}
	if err := s.explained(ctx, r); err != nil {
		return err
	}
	return s.Heal(ctx)
}

// loaded makes sure that a client writes on the owner.
func (s *Site) loaded(ctx context.Context) error {
	owner, err := s.Owner(ctx)
	if err != nil {
		return err
	}
	if s.probe.node != owner || !s.probe.lives() {
		if err := s.do(ctx, "writes owner", owner); err != nil {
			return err
		}
	}
	return s.waitAcks(ctx)
}

// tryStep does a step if the machine it is meant for is in a state to have it done; else it is moot. Which steps are
// moot depends on what the product did meanwhile; the schedule does not.
func (s *Site) tryStep(ctx context.Context, text string) (moot bool, err error) {
	st, err := parseStep(text)
	if err != nil {
		return false, err
	}
	needs, machine := map[string]string{"hang": "on", "kill": "on", "panic": "on", "resume": "hung"}[st[0]], st[1]
	if text == "witness stop" || text == "witness start" {
		needs, machine = "on", lab.Witness // a machine that was stopped in its tracks takes no order
	}
	if needs == "" {
		return false, s.do(ctx, text, lab.A)
	}
	power, err := s.power(ctx, machine)
	if err != nil || power != needs {
		return true, err
	}
	if err := s.do(ctx, text, lab.A); err != nil {
		// Fence and watchdog do not wait for us: the node may have lost its power, or the daemon be dead, in between.
		return true, ctx.Err()
	}
	return false, nil
}

// explained asks every node that runs, before the hardware is whole again: whoever holds I/O must say why.
func (s *Site) explained(ctx context.Context, r *ChaosReport) error {
	held := false
	for _, node := range []string{lab.A, lab.B} {
		st, err := s.Status(ctx, node)
		if err != nil || st.Word != "frozen" {
			continue // off, hung, its daemon starts again; or it serves
		}
		held = true
		if st.WaitsFor == "" && st.Mode != "starting" && st.Mode != "paired" {
			return fmt.Errorf("%w: node %s, %s: %s", errUnexplained, node, st.Mode, st.Sentence)
		}
	}
	if held {
		r.Held++
	}
	return nil
}

// judgeChaos waits until the site is whole, and judges.
func (s *Site) judgeChaos(ctx context.Context, guest bool, r *ChaosReport) error {
	if err := s.recovered(ctx, guest); err != nil {
		return errors.Join(errStuck, err)
	}
	v := NewReport()
	if err := s.verdict(ctx, v); err != nil {
		return fmt.Errorf("verdict: %w", err)
	}
	r.Judged++
	r.LostWrites += v.LostWrites
	r.IOErrors += v.IOErrors
	r.DoubleRunMS += v.DoubleRunMS
	r.LegsDiffer += v.LegsDiffer
	return v.broken()
}

// recovered waits until both are paired, every leg is in sync and the VM runs; with guest also until its counter moves.
func (s *Site) recovered(ctx context.Context, guest bool) error {
	if guest {
		return s.WaitSafe(ctx)
	}
	if err := s.do(ctx, "paired", lab.A); err != nil {
		return err
	}
	owner, err := s.Owner(ctx)
	if err != nil {
		return err
	}
	return s.do(ctx, "runs "+owner, owner)
}
