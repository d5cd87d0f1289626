// Package vms runs the site's virtual machines on this node through libvirt and QEMU.
package vms

import (
	"context"
	"log/slog"
	"time"

	"duet/appliance/site"
)

// Config is everything a manager needs.
type Config struct {
	LibvirtSocket string        // "/run/libvirt/libvirt-sock"
	NBDSocket     string        // "/run/duet/nbd.sock"
	LogDir        string        // "/var/log/duet": serial logs vm-NAME.log
	Accel         string        // "kvm" or "tcg"; empty: "tcg"
	Prefix        string        // of domain names: "duet-"
	CallTimeout   time.Duration // of one libvirt conversation
	KillTimeout   time.Duration // from SIGKILL to gone
	ProcDir       string        // "/proc"
	Log           *slog.Logger
}

// Manager acts on libvirt and on QEMU processes. Safe for concurrent use.
type Manager struct{ cfg Config }

// New makes a manager with its gate closed: nothing starts before Permit.
func New(cfg Config) *Manager { return &Manager{cfg: cfg} }

// Permit opens the gate: VMs whose ids are listed may be started and resumed under this epoch. It replaces the last
// permission whole. Call it after the mirror has confirmed the grant.
func (m *Manager) Permit(epoch uint64, ids []string) {}

// Forbid closes the gate at once; it waits for nothing. A start in flight ends with its guest never having run.
func (m *Manager) Forbid() {}

// Start makes the VM run under this epoch; a VM that runs already is left alone. It refuses an epoch or a VM that is
// not permitted (VM-6004).
func (m *Manager) Start(ctx context.Context, vm site.VM, epoch uint64) error { return nil }

// Resume lets a VM go on that QEMU paused because of an I/O error.
func (m *Manager) Resume(ctx context.Context, vm site.VM, epoch uint64) error { return nil }

// Kill ends these VMs (UUIDs) by SIGKILL and returns when their processes are gone; an error means that some may
// still run. It closes the gate for them first. libvirt is not asked.
func (m *Manager) Kill(ctx context.Context, ids []string) error { return nil }

// KillAll closes the gate and ends every VM of this node, known or not.
func (m *Manager) KillAll(ctx context.Context) error { return nil }

// Running lists the VMs that have a live QEMU process on this node, from /proc alone: it answers when libvirtd hangs.
func (m *Manager) Running() ([]Process, error) { return nil, nil }

// List asks libvirt for the state of our domains, merged with Running: a domain that libvirt does not know or
// cannot tell about is Unknown.
func (m *Manager) List(ctx context.Context) ([]Seen, error) { return nil, nil }

// Process is a live QEMU of ours.
type Process struct {
	PID  int
	ID   string // UUID
	Name string // VM name, without the prefix
}

// Seen is a VM as observed.
type Seen struct {
	ID    string // UUID
	Name  string
	State State
}

// State of a VM as observed.
type State uint8

// The states.
const (
	Absent        State = iota // no domain and no process
	Starting                   // created, guest not released yet
	Running                    // guest code runs
	PausedOnError              // QEMU stopped the guest because of an I/O error
	Paused                     // stopped for another reason
	Unclear                    // a process exists, libvirt does not tell
)
