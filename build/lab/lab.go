// Package lab runs a whole duet site on one Linux machine: nodes a and b, the witness, a client, two BMCs, a PDU,
// drives, cables, watchdogs. The programs inside are the ones that ship; only the hardware is imitated (lab.md).
//
// Up starts a child process, the core, in its own PID, mount, network, UTS and IPC namespaces; everything else
// lives below it. A pipe-like socket and Pdeathsig tie it to this process: however this process ends, Ctrl-C, a
// crashed go test, SIGKILL, the kernel removes processes, mounts, loop devices and links of the lab with it. What
// stays is the state folder: logs, and with Keep the disks.
//
// The verbs are hardware events and mean what they say by physics, not by favour: a power cut takes the links away
// before any process dies (else the kernel's farewell FIN makes detection look a hundred times better than it is),
// and it drops what the drives had only in their cache. Truth is looked at from outside the nodes and never asks the
// product. Programs and tests that use this package call Reexec first thing in main or TestMain: the core and the
// machines' init are this same executable.
//
// Failure: every method returns an error that says what and why; a lab that cannot come up leaves nothing.
package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"duet/build/lab/control"
	"duet/build/lab/core"
	"duet/build/lab/ns"
)

// The machines of a lab.
const (
	A       = "a"
	B       = "b"
	Witness = "witness"
	Client  = "client"
)

// BinDir is where every machine finds the programs of Options.Bin.
const BinDir = ns.BinDir

// Unit is a service of a machine's init.
type (
	Unit   = ns.Unit
	Socket = ns.Socket
	File   = ns.File
	Status = control.Status
	Truth  = control.Truth
	Legs   = control.Legs
	Event  = control.Event
)

// Options say what to start. The zero value is a whole site with the product's daemons from the folder of this
// executable.
type Options struct {
	Name     string            // default "demo"; a second living lab of one name is refused
	State    string            // state folder; default out/lab/<Name>
	Keep     bool              // keep disks and uppers after the end, and use those that are there
	Bin      string            // folder of the product's programs; default: the folder of this executable
	Bare     bool              // no services at all, and no programs needed
	Units    map[string][]Unit // by machine; replaces the product's units of the machines named
	Files    map[string][]File // by machine: more files, written at every power-on
	Seed     uint64            // of power cuts; 0: random, see Status.Seed
	Cache    string            // what a power cut leaves of a drive's cache: random (default), drop, keep
	PoolMiB  int64             // size of the pool drive; default 1024
	DataMiB  int64             // size of the system drive; default 128
	Off      bool              // nodes stay off until On
	Progress func(string)      // told what is being done
}

// Lab is a running lab.
type Lab struct {
	state string
	child *child // nil when attached to a lab that another process started
}

// Reexec runs the core, a machine's init or a small tool when this process was started as one, and then never
// returns. Every program that calls Up calls it first.
func Reexec() {
	core.Reexec()
	reexecReady = true
}

// reexecReady guards against a test binary that starts itself again and again.
var reexecReady bool

// Attach connects to the running lab whose state folder this is.
func Attach(ctx context.Context, state string) (*Lab, error) {
	l := &Lab{state: state}
	if _, err := l.Status(ctx); err != nil {
		return nil, fmt.Errorf("no lab runs in %s (start one with: lab up): %w", state, err)
	}
	return l, nil
}

// State is the state folder: logs in log/<machine>/, uppers in <machine>/upper, events.jsonl, core.log.
func (l *Lab) State() string { return l.state }

// Call carries out one verb with its words, as on the command line, and decodes the answer into out unless nil.
func (l *Lab) Call(ctx context.Context, out any, verb string, args ...string) error {
	r, err := l.request(ctx, control.Request{Verb: verb, Args: args})
	if err != nil {
		return err
	}
	if out == nil || len(r.Value) == 0 {
		return nil
	}
	return json.Unmarshal(r.Value, out)
}

// Cut pulls both power cords of a node: links go, then the node dies, then its drives forget (lab.md section 5).
func (l *Lab) Cut(ctx context.Context, node string) error { return l.Call(ctx, nil, "cut", node) }

// On plugs the cords in and presses the power button. An outlet that is switched off gives no power: then the node
// starts when the outlet is switched on.
func (l *Lab) On(ctx context.Context, node string) error { return l.Call(ctx, nil, "on", node) }

// Cycle is Cut and On.
func (l *Lab) Cycle(ctx context.Context, node string) error { return l.Call(ctx, nil, "cycle", node) }

// Reset is the reset button: the drives keep power and their cache.
func (l *Lab) Reset(ctx context.Context, node string) error { return l.Call(ctx, nil, "reset", node) }

// Crash kills the node's PID 1 with its links up: a dying kernel that still says farewell. Power stays on.
func (l *Lab) Crash(ctx context.Context, node string) error { return l.Call(ctx, nil, "crash", node) }

// Hang stops every process of the node; the kernel still answers ping and acknowledges TCP.
func (l *Lab) Hang(ctx context.Context, node string) error { return l.Call(ctx, nil, "hang", node) }

// Panic stops the node's kernel at once: silence, no farewell. Power, BMC and an armed watchdog go on.
func (l *Lab) Panic(ctx context.Context, node string) error { return l.Call(ctx, nil, "panic", node) }

// Resume ends Hang.
func (l *Lab) Resume(ctx context.Context, node string) error { return l.Call(ctx, nil, "resume", node) }

// LinkCut cuts a cable: "mirror0", "lan" (the switch between the nodes), "lan a" (node a's LAN cable), "wan a",
// "bmc a", "all" (every way from node to node; ways to the witness, the client and the BMCs stay).
func (l *Lab) LinkCut(ctx context.Context, link ...string) error {
	return l.Call(ctx, nil, "link", append(link, "cut")...)
}

// LinkRestore undoes LinkCut.
func (l *Lab) LinkRestore(ctx context.Context, link ...string) error {
	return l.Call(ctx, nil, "link", append(link, "restore")...)
}

// BMC sets a BMC's behaviour: ok, mute, badpass, refuse, or slow with a duration.
func (l *Lab) BMC(ctx context.Context, node string, mode ...string) error {
	return l.Call(ctx, nil, "bmc", append([]string{node}, mode...)...)
}

// PDU sets the PDU's behaviour: mute, ok, or late with a duration.
func (l *Lab) PDU(ctx context.Context, mode ...string) error {
	return l.Call(ctx, nil, "pdu", mode...)
}

// WitnessStop stops the witness program, WitnessStart starts it.
func (l *Lab) WitnessStop(ctx context.Context) error { return l.Call(ctx, nil, "witness", "stop") }

// WitnessStart undoes WitnessStop.
func (l *Lab) WitnessStart(ctx context.Context) error { return l.Call(ctx, nil, "witness", "start") }

// Kill sends SIGKILL to one service; the machine's init starts it again.
func (l *Lab) Kill(ctx context.Context, machine, unit string) error {
	return l.Call(ctx, nil, "kill", machine, unit)
}

// Stop and Start a service by the machine's init.
func (l *Lab) Stop(ctx context.Context, machine, unit string) error {
	return l.Call(ctx, nil, "stop", machine, unit)
}

// Start undoes Stop.
func (l *Lab) Start(ctx context.Context, machine, unit string) error {
	return l.Call(ctx, nil, "start", machine, unit)
}

// Status is what the lab was told to be.
func (l *Lab) Status(ctx context.Context) (s Status, err error) {
	err = l.Call(ctx, &s, "status")
	return s, err
}

// Truth is what is so, seen from outside the nodes.
func (l *Lab) Truth(ctx context.Context) (t Truth, err error) {
	err = l.Call(ctx, &t, "truth")
	return t, err
}

// CompareLegs reads both legs of every volume through the nodes' drives and compares them byte for byte. Both nodes
// must be on and the legs quiet.
func (l *Lab) CompareLegs(ctx context.Context) (c Legs, err error) {
	err = l.Call(ctx, &c, "legs")
	return c, err
}

// Down ends the lab and waits until nothing of it is left.
func (l *Lab) Down(ctx context.Context) error {
	if l.child != nil {
		return l.child.end(ctx)
	}
	return l.downAttached(ctx)
}

// defaultState is where a lab of this name keeps its state.
func defaultState(name string) string { return "out/lab/" + name }

// pollEvery is how often Wait and friends look again.
const pollEvery = 100 * time.Millisecond
