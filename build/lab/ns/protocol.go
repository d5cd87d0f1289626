package ns

import "duet/build/lab/control"

// order is what the core tells an init; report is what it hears. An exec carries three files. Every order is answered
// by exactly one report of the same ID; reports with ID 0 come by themselves.
type order struct {
	ID   uint64   `json:"id"`
	Op   op       `json:"op"`
	Spec *Spec    `json:"spec,omitempty"` // boot
	Argv []string `json:"argv,omitempty"` // exec
	Unit string   `json:"unit,omitempty"` // kill, stop, start
	Of   uint64   `json:"of,omitempty"`   // cancel: the exec
}

type op string

const (
	opBoot   op = "boot"
	opExec   op = "exec"
	opCancel op = "cancel" // SIGKILL an exec whose caller went away
	opKill   op = "kill"   // SIGKILL a unit, which restarts
	opStop   op = "stop"
	opStart  op = "start"
)

// awake is the first report of an init, unasked.
const awake = "awake"

type report struct {
	ID      uint64           `json:"id,omitempty"`
	Error   string           `json:"error,omitempty"`
	Exit    int              `json:"exit,omitempty"`
	Unit    string           `json:"unit,omitempty"` // a service changed
	Service *control.Service `json:"service,omitempty"`
	Event   string           `json:"event,omitempty"` // awake; or what happened to the unit: started, ready, exited, stopped
}
