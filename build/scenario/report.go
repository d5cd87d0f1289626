package scenario

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// Report is the one line of JSON at the end of the demo and the soak.
type Report struct {
	Demo string `json:"demo,omitempty"` // "ok" or "failed"
	Soak string `json:"soak,omitempty"`
	Seed uint64 `json:"seed,omitempty"`

	Cycles int            `json:"cycles,omitempty"`
	Kinds  map[string]int `json:"kinds,omitempty"`

	IOStallMS     map[string]int64 `json:"io_stall_ms"`    // of an owner that survived, by episode
	VMStartingMS  map[string]int64 `json:"vm_starting_ms"` // from the cut to the VM's process on the survivor
	ResyncBytes   map[string]int64 `json:"resync_bytes"`   // bytes of blocks that were sent
	DigestBytes   map[string]int64 `json:"digest_bytes"`   // bytes read and digested to compare and to prove
	DirtyBytes    map[string]int64 `json:"dirty_bytes"`    // marked different or possibly different when the copy began
	LostWrites    int              `json:"lost_acked_writes"`
	IOErrors      int              `json:"io_errors"`
	DoubleRunMS   float64          `json:"double_run_ms"`
	LegsDiffer    int              `json:"legs_differ"`
	Leftovers     int              `json:"leftovers"`
	TargetsMissed []string         `json:"targets_missed"`
	Failed        string           `json:"failed,omitempty"` // the episode and why, when it could not be ended
	Seconds       float64          `json:"seconds"`
}

// The targets of the demo (architecture page, promise 3).
const (
	StallTarget   = 2500 * time.Millisecond // I/O of a surviving owner
	VMStartTarget = 10 * time.Second        // VM of the dead node is starting
)

// NewReport is an empty one.
func NewReport() *Report {
	return &Report{
		IOStallMS: map[string]int64{}, VMStartingMS: map[string]int64{}, ResyncBytes: map[string]int64{},
		DigestBytes: map[string]int64{}, DirtyBytes: map[string]int64{}, Kinds: map[string]int{}, TargetsMissed: []string{},
	}
}

// Safe says whether nothing was lost, torn apart or run twice, and the run came to its end.
func (r *Report) Safe() bool {
	return r.Failed == "" && r.LostWrites == 0 && r.IOErrors == 0 && r.DoubleRunMS == 0 && r.LegsDiffer == 0 && r.Leftovers == 0
}

// Judge fills in the targets that were missed.
func (r *Report) Judge() {
	for _, name := range sorted(r.IOStallMS) {
		if r.IOStallMS[name] > StallTarget.Milliseconds() {
			r.TargetsMissed = append(r.TargetsMissed, "io_stall_ms."+name)
		}
	}
	for _, name := range sorted(r.VMStartingMS) {
		if r.VMStartingMS[name] > VMStartTarget.Milliseconds() {
			r.TargetsMissed = append(r.TargetsMissed, "vm_starting_ms."+name)
		}
	}
}

// Write prints the line.
func (r *Report) Write(w io.Writer) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", line)
	return err
}

func sorted(m map[string]int64) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
