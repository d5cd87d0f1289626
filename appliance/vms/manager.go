package vms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"duet/appliance/event"
	"duet/appliance/site"
)

// Config is everything a manager needs. Zero durations, ProcDir and Prefix get the defaults below.
type Config struct {
	LibvirtSocket string        // "/run/libvirt/libvirt-sock"
	NBDSocket     string        // "/run/duet/nbd.sock"; the same path on both nodes
	LogDir        string        // "/var/log/duet": the guests' serial consoles, vm-NAME.log
	Accel         string        // "kvm" or "tcg"
	Prefix        string        // of domain names
	QueryTimeout  time.Duration // of a conversation that only asks
	StartTimeout  time.Duration // of a conversation that creates a domain
	KillTimeout   time.Duration // from SIGKILL to gone
	ProcDir       string
	Log           *slog.Logger
}

// The defaults, with their reasons.
const (
	defaultQuery = 3 * time.Second  // longer than any answer of a living libvirtd on a busy machine
	defaultStart = 20 * time.Second // QEMU under TCG on a busy two-core machine was created in up to 6 s
	defaultKill  = time.Second      // protocol.md 5.1: a Stop that is not reaped within 1 s resets the node
	killRounds   = 3                // each round looks again; a start that was under way can add one process
)

// Manager acts on libvirt and on QEMU processes. Safe for concurrent use.
type Manager struct {
	cfg  Config
	gate gate
	warm atomic.Bool // libvirt has probed QEMU since this manager was made
}

// New makes a manager with its gate closed: nothing starts before Permit.
func New(cfg Config) *Manager {
	orElse(&cfg.Prefix, "duet-")
	orElse(&cfg.ProcDir, "/proc")
	orElse(&cfg.Accel, "tcg")
	orElse(&cfg.QueryTimeout, defaultQuery)
	orElse(&cfg.StartTimeout, defaultStart)
	orElse(&cfg.KillTimeout, defaultKill)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Manager{cfg: cfg}
}

func orElse[T comparable](v *T, fallback T) {
	var zero T
	if *v == zero {
		*v = fallback
	}
}

// Permit opens the gate: VMs whose ids are listed may be started and resumed under this epoch until a moment of
// CLOCK_BOOTTIME (0: for ever). It replaces the last permission whole. Call it after the mirror has confirmed the grant.
func (m *Manager) Permit(epoch uint64, ids []string, until int64) {
	m.gate.set(Right{Epoch: epoch, IDs: ids}, until)
}

// Forbid closes the gate at once; it waits for nothing. A start under way ends with its guest never having run.
func (m *Manager) Forbid() { m.gate.set(Right{}, 0) }

// Start makes the VM run under this epoch and returns when its guest runs; one that runs already is left alone. It
// refuses an epoch or a VM that the gate does not permit (VM-6004).
func (m *Manager) Start(ctx context.Context, vm site.VM, epoch uint64) error {
	ticket, ok := m.gate.permits(vm.ID, epoch)
	if !ok {
		return m.refused(vm, epoch)
	}
	seen, err := m.observe(ctx, vm.ID)
	if err != nil {
		return err
	}
	switch seen {
	case Running:
		return nil
	case Unclear, Ending:
		return event.New(event.VMStartFailed, "vm", vm.Name).
			Because(fmt.Errorf("a process of it is %s: it may not exist twice", seen))
	case Paused, PausedOnError:
	case Absent:
		if err := m.create(ctx, vm, epoch); err != nil {
			return event.New(event.VMStartFailed, "vm", vm.Name).Because(err)
		}
	}
	return m.resume(ctx, vm, epoch, ticket)
}

// Resume lets a paused guest run, after an I/O error. A guest that the gate does not permit is ended.
func (m *Manager) Resume(ctx context.Context, vm site.VM, epoch uint64) error {
	ticket, ok := m.gate.permits(vm.ID, epoch)
	if !ok {
		return errors.Join(m.refused(vm, epoch), m.end(ctx, []string{vm.ID}))
	}
	return m.resume(ctx, vm, epoch, ticket)
}

// resume is also the second half of a start. Between the question to the gate and the guest's first instruction the gate may
// close; then whoever closed it finds the process, which exists by now, and the question after the release finds the
// permission interrupted: two nets for one gap.
func (m *Manager) resume(ctx context.Context, vm site.VM, epoch, ticket uint64) error {
	if !m.gate.holds(vm.ID, ticket) {
		return errors.Join(m.refused(vm, epoch), m.end(ctx, []string{vm.ID}))
	}
	if err := m.release(ctx, vm); err != nil {
		return event.New(event.VMStartFailed, "vm", vm.Name).Because(err)
	}
	if !m.gate.holds(vm.ID, ticket) {
		return errors.Join(m.refused(vm, epoch), m.end(ctx, []string{vm.ID}))
	}
	m.cfg.Log.Info("VM runs", "vm", vm.Name, "epoch", epoch)
	return nil
}

func (m *Manager) refused(vm site.VM, epoch uint64) error {
	return event.New(event.VMNotAllowed, "vm", vm.Name, "epoch", fmt.Sprint(epoch))
}

// Kill ends these VMs by SIGKILL and returns when their processes are gone; an error means that some may still run.
// It closes the gate for them first. libvirt is not asked.
func (m *Manager) Kill(ctx context.Context, ids []string) error {
	m.gate.withdraw(ids)
	return m.end(ctx, ids)
}

// KillAll closes the gate and ends every VM of this node, whether the site document knows it or not.
func (m *Manager) KillAll(ctx context.Context) error {
	m.Forbid()
	return m.end(ctx, nil)
}

// Running lists the VMs that have a live QEMU process on this node, from /proc alone: it answers when libvirtd hangs.
func (m *Manager) Running() ([]Process, error) { return scan(m.cfg.ProcDir, m.cfg.Prefix) }

// end kills the processes of these ids (nil: all) and verifies from a fresh look that none is left.
func (m *Manager) end(ctx context.Context, ids []string) error {
	timeout := m.cfg.KillTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	var err error
	for range killRounds {
		var all []Process
		if all, err = m.Running(); err != nil {
			break
		}
		victims := slices.DeleteFunc(all, func(p Process) bool { return ids != nil && !slices.Contains(ids, p.ID) })
		if len(victims) == 0 {
			return nil
		}
		if err = killProcesses(m.cfg.ProcDir, m.cfg.Prefix, victims, timeout); err != nil {
			break
		}
		for _, p := range victims {
			m.cfg.Log.Info("VM killed", "vm", p.Name, "pid", p.PID)
		}
	}
	if err == nil {
		err = fmt.Errorf("processes still appear after %d rounds", killRounds)
	}
	return event.New(event.VMKillFailed, "vms", strings.Join(ids, " ")).Because(err)
}

// List tells the state of our VMs: libvirt's word, merged with the process table. When libvirt does not answer it gives
// the fault and what the process table knows, as Unclear. The first look that reaches libvirt also warms it.
func (m *Manager) List(ctx context.Context) ([]Seen, error) {
	processes, err := m.Running()
	if err != nil {
		return nil, err
	}
	domains, err := m.domains(ctx)
	if err == nil && !m.warm.Load() {
		if err := m.Warm(ctx); err != nil {
			m.cfg.Log.Warn("QEMU was not probed yet", "error", err.Error()) // the next look tries again
		}
	}
	return merge(domains, processes), err
}

// merge: a process that libvirt does not know is Unclear; a domain without a process is on its way out.
func merge(domains []Seen, processes []Process) []Seen {
	var all []Seen
	for _, d := range domains {
		if !slices.ContainsFunc(processes, func(p Process) bool { return p.ID == d.ID }) {
			d.State = Ending
		}
		all = append(all, d)
	}
	for _, p := range processes {
		if !slices.ContainsFunc(all, func(s Seen) bool { return s.ID == p.ID }) {
			all = append(all, Seen{ID: p.ID, Name: p.Name, State: Unclear})
		}
	}
	slices.SortFunc(all, func(a, b Seen) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (m *Manager) observe(ctx context.Context, id string) (State, error) {
	all, err := m.List(ctx)
	return stateOf(id, all), err
}

// logFile is the guest's serial console.
func (m *Manager) logFile(vm site.VM) (string, error) {
	if err := os.MkdirAll(m.cfg.LogDir, 0o755); err != nil {
		return "", fmt.Errorf("log of the VM: %w", err)
	}
	return m.cfg.LogDir + "/vm-" + vm.Name + ".log", nil
}
