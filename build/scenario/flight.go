package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"duet/appliance/support/flight"
	"duet/build/lab"
)

// FlightRings replays the flight recorder of every node that has power, inside the node and with its own duet. A ring
// whose replay differs, breaks an invariant, has lost entries or holds nothing is an error: what happened in the lab must be
// what the core decides again.
func (s *Site) FlightRings(ctx context.Context) (map[string]flight.Summary, error) {
	rings := map[string]flight.Summary{}
	var wrong []error
	for _, node := range []string{lab.A, lab.B} {
		power, err := s.power(ctx, node)
		if err != nil {
			return nil, err
		}
		if power != "on" {
			continue
		}
		text, failed := s.Lab.Exec(ctx, node, "duet", "support", "replay", "-o", "json")
		var sum flight.Summary
		if err := json.NewDecoder(bytes.NewReader(text)).Decode(&sum); err != nil {
			wrong = append(wrong, fmt.Errorf("flight recorder of node %s: %w", node, errors.Join(failed, err)))
			continue
		}
		rings[node] = sum
		s.Say("  flight recorder of node %s: %d inputs, %d starts, %d boots, %d differences, ends %s at epoch %d", node, sum.Inputs,
			sum.Starts, sum.Boots, sum.Differences, sum.EndMode, sum.EndEpoch)
		if failed != nil || !sum.Equal || sum.Violations > 0 || sum.Lost > 0 || len(sum.Refused) > 0 {
			wrong = append(wrong, errors.Join(fmt.Errorf("flight recorder of node %s: %s %s, %d lost, refused %v", node, sum.Difference,
				sum.Violation, sum.Lost, sum.Refused), failed))
		}
	}
	return rings, errors.Join(wrong...)
}
