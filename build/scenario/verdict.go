package scenario

import (
	"context"
	"fmt"

	"duet/build/lab"
)

// verdict judges a quiet site: nothing lost, nothing run twice, both legs byte-identical.
func (s *Site) verdict(ctx context.Context, r *Report) error {
	owner, err := s.Owner(ctx)
	if err != nil {
		return err
	}
	if err := s.probe.collect(ctx); err != nil {
		return err
	}
	lost, err := s.probe.lost(ctx, owner)
	if err != nil {
		return err
	}
	s.lost(r, lost)
	for _, e := range s.probe.history.Errors {
		s.Say("  I/O ERROR: %s", e)
	}
	r.IOErrors = len(s.probe.history.Errors)
	if err := s.guestVerdict(r); err != nil {
		return err
	}
	truth, err := s.Lab.Truth(ctx)
	if err != nil {
		return err
	}
	r.DoubleRunMS = truth.DoubleRunMS
	return s.legsEqual(ctx, owner, r)
}

// guestVerdict judges the guest's whole life; what was told before is not counted again.
func (s *Site) guestVerdict(r *Report) error {
	var consoles []Console
	for _, node := range []string{lab.A, lab.B} {
		c, err := s.console(node)
		if err != nil {
			return err
		}
		consoles = append(consoles, c)
	}
	wrong := GuestHistory(consoles...)
	s.lost(r, wrong[min(s.guestTold, len(wrong)):])
	s.guestTold = len(wrong)
	return nil
}

// legsEqual stops the guest in its tracks (the product does not see it), compares, and lets it go on.
func (s *Site) legsEqual(ctx context.Context, owner string, r *Report) (err error) {
	if err := s.do(ctx, "runs "+owner, owner); err != nil { // else a guest that is just being started would write on
		return err
	}
	if _, err := s.Lab.Exec(ctx, owner, "pkill", "-STOP", "-f", "qemu-system"); err != nil {
		return fmt.Errorf("stopping the guest: %w", err)
	}
	defer func() {
		if _, contErr := s.Lab.Exec(ctx, owner, "pkill", "-CONT", "-f", "qemu-system"); contErr != nil && err == nil {
			err = fmt.Errorf("letting the guest go on: %w", contErr)
		}
	}()
	if err := s.quiet(ctx); err != nil {
		return err
	}
	legs, err := s.Lab.CompareLegs(ctx)
	if err != nil {
		return err
	}
	if len(legs.Volumes) != 2 {
		return fmt.Errorf("%d volumes compared, want 2", len(legs.Volumes))
	}
	for id, pair := range legs.Volumes {
		if !pair.Equal {
			s.Say("  LEGS DIFFER: volume %s in MiB %v", id, pair.Diff)
			r.LegsDiffer++
		}
	}
	return nil
}

// quiet waits until the drives of both pools see no more writes.
func (s *Site) quiet(ctx context.Context) error {
	last, same := uint64(0), 0
	return s.wait(ctx, "quiet drives", takeoverLimit, func() (bool, string) {
		st, err := s.Lab.Status(ctx)
		if err != nil {
			return false, err.Error()
		}
		writes := st.Drives["a.1"].Writes + st.Drives["b.1"].Writes
		if writes != last {
			last, same = writes, 0
			return false, fmt.Sprintf("%d writes", writes)
		}
		same++
		return same >= 3, "almost quiet"
	})
}
