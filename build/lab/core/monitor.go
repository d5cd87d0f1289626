package core

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"duet/build/lab/control"
	"duet/build/lab/ns"
)

// PollEvery is how often the monitor looks. An overlap shorter than this may be missed; the product's own margin
// between the end of one runner and the start of the next is two seconds (hardware.md section 7).
const PollEvery = 15 * time.Millisecond

// youngFor is how long a new process is looked at again: it is forked as libvirtd and becomes QEMU by exec.
const youngFor = 3 * time.Second

// monitor watches, from outside both nodes, which QEMU processes live where. It knows nothing of libvirt or of the
// product: it reads /proc. A process of a frozen node counts as running, because nothing keeps it from going on.
// A node without power counts as empty from step 3 of its cut, although its processes take some time to be reaped.
type monitor struct {
	born   time.Time
	events *journal

	known map[int]*process // by pid in the core's namespace; owned by run

	mu       sync.Mutex
	vms      map[string][]control.VMProc
	double   time.Duration
	overlaps []control.Overlap
	polls    uint64
	pollMax  time.Duration
}

type process struct {
	seen    time.Time
	node    string // empty: of no node
	vm      *control.VMProc
	settled bool // not looked at again
}

func newMonitor(born time.Time, events *journal) *monitor {
	return &monitor{born: born, events: events, known: map[int]*process{}, vms: map[string][]control.VMProc{}}
}

// run polls until the lab ends.
func (m *monitor) run(bodies func() map[string]*ns.Body) {
	tick := time.NewTicker(PollEvery)
	last := time.Now()
	for range tick.C {
		now := time.Now()
		m.poll(now, now.Sub(last), bodies())
		last = now
		m.mu.Lock()
		m.polls++
		m.pollMax = max(m.pollMax, time.Since(now))
		m.mu.Unlock()
	}
}

// poll takes one picture. since is the time from the last one: an overlap counts for all of it.
func (m *monitor) poll(now time.Time, since time.Duration, bodies map[string]*ns.Body) {
	spaces := map[string]string{} // PID namespace → node
	for node, b := range bodies {
		if space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", b.PID())); err == nil {
			spaces[space] = node
		}
	}
	m.look(now, spaces)
	running := map[string][]control.VMProc{}
	for _, p := range m.known {
		if p.vm != nil && bodies[p.node] != nil {
			running[p.vm.UUID] = append(running[p.vm.UUID], *p.vm)
		}
	}
	m.record(now, since, running)
}

// look brings known up to date with /proc.
func (m *monitor) look(now time.Time, spaces map[string]string) {
	dir, err := os.Open("/proc")
	if err != nil {
		return
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return
	}
	there := make(map[int]bool, len(names))
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		there[pid] = true
		p := m.known[pid]
		if p == nil {
			p = &process{seen: now}
			m.known[pid] = p
		}
		m.examine(now, pid, p, spaces)
	}
	maps.DeleteFunc(m.known, func(pid int, p *process) bool {
		if there[pid] {
			return false
		}
		m.ended(p)
		return true
	})
}

// examine looks at one process while it is young, and at every QEMU as long as it lives.
func (m *monitor) examine(now time.Time, pid int, p *process, spaces map[string]string) {
	if p.vm != nil {
		if dead(pid) {
			m.ended(p)
			p.vm, p.settled = nil, true
		}
		return
	}
	if p.settled {
		return
	}
	if p.node == "" {
		space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
		if err == nil {
			p.node = spaces[space]
		}
	}
	if p.node != "" {
		if cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
			p.vm = vmOf(cmd)
		}
	}
	if p.vm != nil && !dead(pid) {
		p.vm.Machine, p.vm.PID, p.vm.SinceMS = p.node, pid, now.Sub(m.born).Milliseconds()
		m.events.addf(p.node, "vm-start", "%s %s", p.vm.Name, p.vm.UUID)
		return
	}
	p.vm = nil
	if state(pid) == 'T' { // a node that hangs: its time stands still
		p.seen = now
	}
	p.settled = now.Sub(p.seen) > youngFor
}

func (m *monitor) ended(p *process) {
	if p.vm != nil {
		m.events.addf(p.node, "vm-end", "%s %s", p.vm.Name, p.vm.UUID)
	}
}

// record counts the time during which a VM has living processes on more than one node.
func (m *monitor) record(now time.Time, since time.Duration, running map[string][]control.VMProc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, procs := range running {
		if !slices.ContainsFunc(procs, func(p control.VMProc) bool { return p.Machine != procs[0].Machine }) {
			continue
		}
		m.double += since
		from := now.Add(-since).Sub(m.born).Milliseconds()
		ms := float64(since.Microseconds()) / 1000
		if n := len(m.overlaps); n > 0 && m.overlaps[n-1].UUID == id && m.overlaps[n-1].FromMS+int64(m.overlaps[n-1].ForMS)+1 >= from {
			m.overlaps[n-1].ForMS += ms
			continue
		}
		m.overlaps = append(m.overlaps, control.Overlap{UUID: id, FromMS: from, ForMS: ms})
		m.events.addf("", "double-run", "VM %s runs on both nodes", id)
	}
	m.vms = running
}

// fill writes what the monitor knows into a truth.
func (m *monitor) fill(t *control.Truth) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t.VMs = maps.Clone(m.vms)
	t.DoubleRunMS = float64(m.double.Microseconds()) / 1000
	t.Overlaps = slices.Clone(m.overlaps)
	t.Polls = m.polls
	t.PollMaxMS = float64(m.pollMax.Microseconds()) / 1000
}

// vmOf recognises a QEMU that runs a VM by its command line. libvirt's probes of QEMU have no -uuid.
func vmOf(cmdline []byte) *control.VMProc {
	args := strings.Split(string(bytes.TrimRight(cmdline, "\x00")), "\x00")
	if !strings.Contains(args[0], "qemu-system-") {
		return nil
	}
	var vm control.VMProc
	for i := 1; i+1 < len(args); i++ {
		switch args[i] {
		case "-uuid":
			vm.UUID = args[i+1]
		case "-name":
			for opt := range strings.SplitSeq(args[i+1], ",") {
				if name, ok := strings.CutPrefix(opt, "guest="); ok || !strings.Contains(opt, "=") && vm.Name == "" {
					vm.Name = name
				}
			}
		}
	}
	if vm.UUID == "" {
		return nil
	}
	return &vm
}

// dead says whether the process is a zombie or gone: it runs no instruction any more.
func dead(pid int) bool {
	switch state(pid) {
	case 0, 'Z', 'X':
		return true
	}
	return false
}

// state is the letter of proc(5) for what a process does; 0: it is gone.
func state(pid int) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	i := bytes.LastIndexByte(b, ')') // the name before it may hold anything
	if i < 0 || i+2 >= len(b) {
		return 0
	}
	return b[i+2]
}
