package site

import (
	"fmt"
	"maps"
	"time"
)

// Runtime is the small replicated state beside the document: what setup has proved and what people have ordered since
// founding. Either node writes; the other takes what holds all of its own changes whole, and what does not is united.
type Runtime struct {
	Epoch         uint64            `json:"epoch"`          // of the writer when it wrote
	Version       uint64            `json:"version"`        // grows with every change
	Writes        map[string]uint64 `json:"writes"`         // by node: how many of its changes are in here
	SetupComplete bool              `json:"setup_complete"` // both live fence tests are done
	OutletsProven map[string]bool   `json:"outlets_proven"` // by node whose outlets they are: "a", "b"; false: a live test has disproved it
	BMCProven     map[string]bool   `json:"bmc_proven"`     // by node whose BMC it is
	StoppedVMs    map[string]bool   `json:"stopped_vms"`    // by VM id: stopped by a person

	Learned map[string]Learned `json:"learned"` // by node whose paths they are: what its live test saw
	Latched map[string]Latch   `json:"latched"` // by node: it is off and stays off
	Forced  bool               `json:"forced"`  // a node was forced to go on alone, and the other one has not joined since
}

// Learned is what the live test of a node saw of the devices that fence it.
type Learned struct {
	Firmware     string  `json:"firmware"` // of its BMC
	PDU          string  `json:"pdu"`      // who the PDU said it was
	Metered      bool    `json:"metered"`  // the next two were measured
	OffWatts     float64 `json:"off_watts"`
	StandbyWatts float64 `json:"standby_watts"`
}

// Latch keeps a node off (hardware.md section 4.4): nothing powers it on by itself. It is lifted by order, or by a
// completed join.
type Latch struct {
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Epoch  uint64    `json:"epoch"`
	At     time.Time `json:"at"`
}

// Newer says whether r replaces o: the higher epoch wins, then the higher version. The epoch comes first because two
// versions can only compete over a change of membership, and there the later membership holds.
func (r Runtime) Newer(o Runtime) bool {
	if r.Epoch != o.Epoch {
		return r.Epoch > o.Epoch
	}
	return r.Version > o.Version
}

// Lacks says whether o holds a change that r does not. Of two that lack something of each other neither replaces the
// other: both nodes wrote without having heard of it.
func (r Runtime) Lacks(o Runtime) bool {
	for node, writes := range o.Writes {
		if r.Writes[node] < writes {
			return true
		}
	}
	return false
}

// Next is a copy to change: the next version, written in this epoch. Its maps are never nil. Its writer counts it in
// Writes.
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
	if r.Writes = maps.Clone(r.Writes); r.Writes == nil {
		r.Writes = map[string]uint64{}
	}
	if r.Learned = maps.Clone(r.Learned); r.Learned == nil {
		r.Learned = map[string]Learned{}
	}
	if r.Latched = maps.Clone(r.Latched); r.Latched == nil {
		r.Latched = map[string]Latch{}
	}
	return r
}
