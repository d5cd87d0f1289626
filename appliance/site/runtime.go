package site

import (
	"fmt"
	"maps"
)

// Runtime is the small replicated state beside the document: what setup has proved and what people have ordered since
// founding. Its writer is the owner of the pair; the peer takes the newer one whole.
type Runtime struct {
	Epoch         uint64          `json:"epoch"`          // of the writer when it wrote
	Version       uint64          `json:"version"`        // grows with every change
	SetupComplete bool            `json:"setup_complete"` // both live fence tests are done
	OutletsProven map[string]bool `json:"outlets_proven"` // by node whose outlets they are: "a", "b"
	BMCProven     map[string]bool `json:"bmc_proven"`     // by node whose BMC it is
	StoppedVMs    map[string]bool `json:"stopped_vms"`    // by VM id: stopped by a person
}

// Newer says whether r replaces o: the higher epoch wins, then the higher version. The epoch comes first because two
// versions can only compete over a change of membership, and there the later membership holds.
func (r Runtime) Newer(o Runtime) bool {
	if r.Epoch != o.Epoch {
		return r.Epoch > o.Epoch
	}
	return r.Version > o.Version
}

// Next is a copy to change: the next version, written in this epoch. Its maps are never nil.
func (r Runtime) Next(epoch uint64) Runtime {
	n := r.clone()
	n.Epoch = max(epoch, r.Epoch)
	n.Version++
	return n
}

// ParseRuntime reads a stored or received runtime document.
func ParseRuntime(data []byte) (Runtime, error) {
	var r Runtime
	if err := strictJSON(data, &r); err != nil {
		return Runtime{}, fmt.Errorf("runtime document: %w", err)
	}
	return r.clone(), nil
}

func (r Runtime) clone() Runtime {
	for _, m := range []*map[string]bool{&r.OutletsProven, &r.BMCProven, &r.StoppedVMs} {
		if *m = maps.Clone(*m); *m == nil {
			*m = map[string]bool{}
		}
	}
	return r
}
