package scenario

import (
	"context"
	"errors"
	"fmt"

	"duet/build/lab"
)

// healed are the verbs that undo every fault of cables, BMCs, PDU, witness and clocks. They harm nothing that is whole.
var healed = []string{
	"link all restore", "link lan a restore", "link lan b restore", "link wan a restore", "link wan b restore",
	"link bmc a restore", "link bmc b restore", "bmc a ok", "bmc b ok", "pdu ok", "witness fast", "witness resume",
	"witness start", "clock a 0s", "clock b 0s", "disk a.1 ok", "disk b.1 ok",
}

// Heal makes the hardware whole: cables in, devices answer, nodes have power and their buttons are pressed. A node whose
// outlets the product has switched off starts when the product switches them on again.
func (s *Site) Heal(ctx context.Context) error {
	var failed error
	for _, text := range healed {
		failed = errors.Join(failed, s.do(ctx, text, lab.A))
	}
	for _, node := range []string{lab.A, lab.B} {
		failed = errors.Join(failed, s.wake(ctx, node))
	}
	return failed
}

// wake resumes a node that hangs and presses the button of one that does not run.
func (s *Site) wake(ctx context.Context, node string) error {
	power, err := s.power(ctx, node)
	if err != nil {
		return err
	}
	switch power {
	case "on":
		return nil
	case "hung":
		if err := s.Lab.Resume(ctx, node); err == nil {
			return nil
		}
		// Its watchdog or its peer was quicker; then the button is what it needs.
	}
	if err := s.Lab.On(ctx, node); err != nil {
		return fmt.Errorf("switching on %s: %w", node, err)
	}
	return nil
}

// WaitWhole waits for more than WaitSafe: both nodes reach the witness and it has confirmed the pair, so the next fault
// finds a site in which nothing is left of the last one.
func (s *Site) WaitWhole(ctx context.Context) error {
	if err := s.WaitSafe(ctx); err != nil {
		return err
	}
	if err := s.admitted(ctx); err != nil {
		return err
	}
	return s.wait(ctx, "the witness confirmed on both nodes", rejoinLimit, func() (bool, string) {
		for _, node := range []string{lab.A, lab.B} {
			st, err := s.Status(ctx, node)
			if err != nil {
				return false, err.Error()
			}
			if !st.Witness.Reached || st.PairOwner == node && !st.Witness.Confirmed {
				return false, node + ": " + st.Sentence
			}
		}
		return true, ""
	})
}
