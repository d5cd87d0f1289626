package pair

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"

	"duet/appliance/membership"
	"duet/replication/control"
)

// stubbornMirror is a process that answers on the control socket and never confirms a grant.
func stubbornMirror(socket string) {
	srv, err := control.Listen(socket, fmt.Sprint(os.Getpid()), deaf{}, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_ = srv.Serve(context.Background())
	os.Exit(0)
}

type deaf struct{}

func (deaf) Configure(control.Config) error          { return nil }
func (deaf) Grant(control.Grant) error               { select {} }
func (deaf) Revoke() error                           { return nil }
func (deaf) Copy(uint64) error                       { return nil }
func (deaf) Readmit(string) error                    { return nil }
func (deaf) Scrub(string) error                      { return nil }
func (deaf) Drain([]string) (<-chan []string, error) { return make(chan []string), nil }
func (deaf) Status() control.Status                  { return control.Status{} }
func (deaf) Standing() []control.Event               { return nil }

// A duet-mirrord that does not confirm a grant within a second is killed, and that takes its right away as well.
func TestAMirrorThatDoesNotConfirmIsKilled(t *testing.T) {
	r := newRig(t)
	socket := r.path("stubborn.sock")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DUET_TEST_MIRROR="+socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(gone); _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill(); <-gone }()

	m := newMirrord(socket, "boot-1", slog.New(slog.DiscardHandler))
	m.tell = func(control.Event) {}
	up := make(chan bool, 8)
	m.state = func(is bool) { up <- is }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); m.run(ctx) }()
	defer func() { cancel(); <-done }()
	if !await(t, "a connection", up) {
		t.Fatal("not connected")
	}
	began := time.Now()
	if err := m.set(ctx, control.Grant{Mode: control.Solo, Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(3 * time.Second):
		t.Fatal("it lives")
	}
	if took := time.Since(began); took < confirmTimeout {
		t.Errorf("it was killed after %v", took)
	}
	if await(t, "the end of the connection", up) {
		t.Error("a dead mirror is up")
	}
	if err := m.set(ctx, control.Grant{}); err != nil {
		t.Errorf("nothing can be granted to the dead, and nothing need be taken: %v", err)
	}
}

// The guard kills at the deadline by itself, and only then.
func TestLeaseGuard(t *testing.T) {
	ended := make(chan membership.Boottime, 1)
	g, err := newLeaseGuard(func(at membership.Boottime) { ended <- at })
	if err != nil {
		t.Fatal(err)
	}
	defer g.stop()
	now := func() membership.Boottime { return (&Driver{}).now() }
	first := now() + 60e6
	g.set(first)
	moved := now() + 150e6
	g.set(moved) // extended in time
	if at := await(t, "the end of the lease", ended); at != moved || now() < moved {
		t.Fatalf("ended at %d, deadline %d", now(), at)
	}
	g.set(now() + 30e6)
	g.set(0) // taken away
	select {
	case <-ended:
		t.Fatal("a deadline that was taken away ended something")
	case <-time.After(60 * time.Millisecond):
	}
}

// When the watchdog may be petted: hardware.md section 7.
func TestWatchdogIsPettedOnlyWithARight(t *testing.T) {
	const second = int64(time.Second)
	idle := false
	p := &pets{idle: func() bool { return idle }}
	w := &watchdog{pets: p, now: func() int64 { return 100 * second }}
	for _, c := range []struct {
		name       string
		solo, idle bool
		acked      int64
		last       int64
		hold       bool
		want       bool
	}{
		{"paired with a fresh ack", false, false, 99*second + 600e6, 99 * second, false, true},
		{"paired, the ack was counted already", false, false, 99*second + 600e6, 99*second + 650e6, false, false},
		{"paired, the ack came fresh and this thread comes late", false, false, 99*second + 400e6, 99 * second, false, false},
		{"paired without a fresh ack", false, false, 0, 90 * second, false, false},
		{"solo", true, false, 0, 98 * second, false, true},
		{"solo, just petted", true, false, 0, 99*second + 500e6, false, false},
		{"nothing runs", false, true, 0, 98 * second, false, true},
		{"reset is wanted", true, true, 99*second + 900e6, 90 * second, true, false},
	} {
		idle = c.idle
		p.solo.Store(c.solo)
		p.acked.Store(c.acked)
		p.hold.Store(c.hold)
		if got := w.due(c.last); got != c.want {
			t.Errorf("%s: due %v", c.name, got)
		}
	}
}

// A solo node keeps its right to be petted while a new duetd waits for duet-mirrord.
func TestSoloIsPettedBeforeTheMirrorAnswers(t *testing.T) {
	r := newRig(t)
	r.guests.running = 0b010
	d, err := New(r.config(r.path("nobody.sock")))
	if err != nil {
		t.Fatal(err)
	}
	defer d.lock.Close()
	d.state.Mode, d.resumed, d.pets.idle = membership.Solo, true, d.nothingRuns
	if err := d.holdTheLease(); err != nil {
		t.Fatal(err)
	}
	w := &watchdog{pets: d.pets, now: func() int64 { return int64(d.now()) }}
	if !w.due(0) || r.guests.stops != 0 {
		t.Error("a solo node is reset because its duetd was replaced")
	}
}

// newcomer is a manager whose start was under way when everything was killed: a process that may not run appears.
type newcomer struct{ *memoryGuests }

func (newcomer) Idle() bool { return false }

// What appears behind a closed gate never runs; it must not cost the node.
func TestAStartUnderWayAtLeaseEndIsNoReset(t *testing.T) {
	r := newRig(t)
	cfg := r.config(r.path("nobody.sock"))
	cfg.Workloads = newcomer{r.guests}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer d.lock.Close()
	d.ctx = t.Context()
	d.leaseEnded(d.now())
	if len(r.resets) != 0 || r.guests.stops != 1 {
		t.Errorf("resets %q, stops %d", r.resets, r.guests.stops)
	}
	r.guests.stubborn = true
	if d.leaseEnded(d.now()); len(r.resets) != 1 {
		t.Error("a workload outlives the lease, and the node is not reset")
	}
}

// A watchdog that keeps a timeout of its own is petted, yet it is not shown as the one that W0 rests on.
func TestAWatchdogWithAnotherTimeoutIsNoWatchdog(t *testing.T) {
	r := newRig(t)
	r.watchdog = r.path("watchdog") // a file: it takes pets and no timeout
	if err := os.WriteFile(r.watchdog, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d, stop, _ := r.run(nil)
	until(t, "solo", func() bool { return d.View().State.Mode == membership.Solo })
	until(t, "a pet", func() bool { b, err := os.ReadFile(r.watchdog); return err == nil && len(b) > 0 })
	if d.View().Watchdog {
		t.Error("shown as armed")
	}
	_ = stop()
}
