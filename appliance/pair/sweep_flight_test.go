package pair

import (
	"errors"
	"log/slog"
	"testing"

	"duet/appliance/membership"
	"duet/appliance/support/flight"
)

// Every life, with a death in the middle of it, is on the ring of its node, and replays: what the driver decided, in both of
// its processes, the core decides again.
//
// Proves: issue 3, item 4.
func TestSweptLivesReplay(t *testing.T) {
	for _, l := range lives {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := l.world(t)
			process := func(act func(int, membership.Effect) bool) (err error, died bool) {
				r := flight.Start(flight.Config{
					Dir: dir, Limit: flight.DefaultLimit, BootID: s.boot, Log: slog.New(slog.DiscardHandler),
					Broken: func(err error) { t.Error(err) }, Mended: func() {},
				})
				defer func() { r.Close(); <-r.Done() }()
				s.recorder = r
				return s.play(l, act)
			}
			if err, died := process(func(i int, _ membership.Effect) bool { return i == 7 }); !died || !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			s.pending = nil
			if err, died := process(func(int, membership.Effect) bool { return false }); died {
				t.Fatal(err)
			}
			var last membership.State
			sum, err := flight.Replay(dir, flight.Options{Each: func(m flight.Moment) { last = m.After }})
			if err != nil || !sum.Equal || sum.Starts != 2 || sum.Lost != 0 || sum.Gaps != 0 || sum.Violations != 0 || sum.Inputs < 5 {
				t.Errorf("%+v %v", sum, err)
			}
			if st := s.d.View().State; last != st {
				t.Errorf("replay ends %v at epoch %d, the driver %v at epoch %d", last.Mode, last.Rec.Ep, st.Mode, st.Rec.Ep)
			}
		})
	}
}
