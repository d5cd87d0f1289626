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

	Episodes    int            `json:"episodes"`   // played to their end
	Kinds       map[string]int `json:"kinds"`      // faults by kind, the moot ones too
	MootKinds   map[string]int `json:"moot_kinds"` // of them: those that took no effect
	Double      int            `json:"double"`     // episodes of two faults
	Rushed      int            `json:"rushed"`     // begun while the site still recovered
	Unloaded    int            `json:"unloaded"`   // of them: without a client that writes; it had died with its node
	Moot        int            `json:"moot"`       // steps that found nothing to do: a kill on a node without power
	Held        int            `json:"held_with_reason"`
	Judged      int            `json:"judged"` // verdicts: after every episode that the next one does not rush, and at the end
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
	return &ChaosReport{Seed: seed, Kinds: map[string]int{}, MootKinds: map[string]int{}, Failures: []string{}}
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
	err := r.run(schedule, chaosDeeds{
		over: func() bool { return time.Since(began) > budget },
		play: func(e ChaosEpisode) error {
			fresh := g.site == nil
			s, err := g.Site(ctx)
			if err != nil {
				return fmt.Errorf("%w: %w", errNoSite, err)
			}
			s.Say("%s", e)
			return s.playChaos(ctx, e, fresh, r)
		},
		judge: func(guest bool) error { return g.site.judgeChaos(ctx, guest, r) },
		failed: func(e ChaosEpisode, err error) error {
			g.Say("  FAILED: %v", err)
			return errors.Join(ctx.Err(), g.Failed(fmt.Sprintf("episode-%d", e.Number)))
		},
	})
	r.Seconds = seconds(time.Since(began))
	r.MeanSeconds = seconds(time.Since(began) / time.Duration(max(1, r.Episodes)))
	if err != nil {
		return err
	}
	if r.Episodes == 0 {
		r.Failures = append(r.Failures, "no episode was played")
	}
	r.judgeKinds()
	return g.replayed(ctx, r)
}

var errNoSite = errors.New("no site")

// chaosDeeds are what a run does; in which order is run's.
type chaosDeeds struct {
	over   func() bool // no episode begins any more
	play   func(ChaosEpisode) error
	judge  func(guest bool) error
	failed func(ChaosEpisode, error) error // keeps what there is to see; an error ends the run
}

// run plays the schedule, and judges after every episode that the next one does not rush. The last one is judged too,
// also when it is the last because the time is over and a rushed one would have followed.
func (r *ChaosReport) run(schedule []ChaosEpisode, do chaosDeeds) error {
	over := do.over()
	for i, e := range schedule {
		if over {
			return nil
		}
		err := do.play(e)
		if errors.Is(err, errNoSite) {
			return err
		}
		r.count(e)
		over = do.over() // once: what is not judged now for the next one's sake is followed by it
		last := over || i+1 == len(schedule)
		if rushed := !last && schedule[i+1].Rush; err == nil && !rushed {
			err = do.judge(last || e.Number%guestEvery == 0)
		}
		if err == nil {
			continue
		}
		switch {
		case errors.Is(err, errStuck):
			r.Stuck++
		case errors.Is(err, errUnexplained):
			r.Unexplained++
		}
		r.Failures = append(r.Failures, e.String()+": "+err.Error())
		if err := do.failed(e, err); err != nil {
			return err
		}
	}
	return nil
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
	if len(e.Faults) > 1 {
		r.Double++
	}
}

// tried counts a step. A fault counts when it begins, and whether it took effect.
func (r *ChaosReport) tried(m chaosMoment, moot bool) {
	if moot {
		r.Moot++
	}
	if m.kind == "" {
		return
	}
	r.Kinds[m.kind]++
	if moot {
		r.MootKinds[m.kind]++
	}
}

// mootMost is how often a kind may be tried in vain before that is no chance any more. Few of a kind are moot: the node was
// without power at that moment, or the daemon just dead.
const mootMost = 5

// judgeKinds fails a kind of fault that never took effect: the run has proved nothing about it, or the lab has forgotten
// how it is done.
func (r *ChaosReport) judgeKinds() {
	for _, k := range chaosKinds {
		if n := r.Kinds[k.name]; n >= mootMost && r.MootKinds[k.name] == n {
			r.Failures = append(r.Failures, fmt.Sprintf("none of %d faults of the kind %s took effect", n, k.name))
		}
	}
}

// playChaos plays one timeline under load and makes the hardware whole. A rushed one takes the load that is there: to wait
// for a new client would be to wait for the site. On a fresh site there is nothing to rush.
func (s *Site) playChaos(ctx context.Context, e ChaosEpisode, fresh bool, r *ChaosReport) error {
	if e.Rush && !fresh {
		r.Rushed++
		if !s.probe.lives() {
			r.Unloaded++
		}
	} else if err := s.loaded(ctx); err != nil {
		return err
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
		r.tried(m, moot)
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
		// Fence and watchdog do not wait for us: the node may have lost its power, or the daemon be dead, in between. A kind
		// for which this is always so is found at the end (judgeKinds).
		s.Say("  moot: %v", err)
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
