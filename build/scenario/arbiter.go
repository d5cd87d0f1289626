package scenario

import (
	"context"
	"fmt"
	"time"

	"duet/build/lab"
)

// arbiterLimit is longer than the 60 s after which a witness that is gone is dropped for fencing, with what may delay it.
const arbiterLimit = 2 * time.Minute

// arbiter waits until both nodes say by what they may go on alone, and that no change is under way.
func (s *Site) arbiter(ctx context.Context, want string) error {
	return s.wait(ctx, "arbiter "+want, arbiterLimit, func() (bool, string) {
		for _, node := range []string{lab.A, lab.B} {
			st, err := s.Status(ctx, node)
			if err != nil {
				return false, err.Error()
			}
			if st.Witness.Arbiter != want || st.Witness.Changing != "" {
				return false, fmt.Sprintf("%s: %s, changing to %q", node, st.Witness.Arbiter, st.Witness.Changing)
			}
		}
		return true, ""
	})
}

// replaceWitness orders a fresh register as a person would, on the pair owner.
func (s *Site) replaceWitness(ctx context.Context) error {
	st, err := s.Status(ctx, lab.A)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, arbiterLimit)
	defer cancel()
	if _, err := s.Lab.Exec(ctx, st.PairOwner, "duet", "witness", "replace", "--reason", "a scenario of the lab"); err != nil {
		return err
	}
	return s.arbiter(ctx, "witness")
}

// admitted brings the witness back as arbiter after it was dropped: by itself that takes 5 min.
func (s *Site) admitted(ctx context.Context) error {
	st, err := s.Status(ctx, lab.A)
	if err != nil || st.Witness.Arbiter == "witness" {
		return err
	}
	if err := s.witnessSaid(ctx, true); err != nil {
		return err
	}
	return s.replaceWitness(ctx)
}
