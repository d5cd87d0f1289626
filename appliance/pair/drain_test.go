package pair

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"duet/appliance/membership"
	"duet/replication/control"
)

// drainMirror answers a drain when it is told to.
type drainMirror struct {
	memoryMirror
	mu    sync.Mutex
	calls []string
	later []chan []string
	fail  error
}

func (m *drainMirror) Drain(volumes []string) (<-chan []string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, strings.Join(volumes, "+"))
	ch := make(chan []string, 1)
	m.later = append(m.later, ch)
	return ch, m.fail
}

func (m *drainMirror) Grant(control.Grant) error { return nil }

func (m *drainMirror) seen() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.calls)
}

// answer the k-th call, once it is there.
func (m *drainMirror) answer(t *testing.T, k int, volumes ...string) {
	t.Helper()
	until(t, "the call", func() bool { return len(m.seen()) > k })
	m.mu.Lock()
	defer m.mu.Unlock()
	m.later[k] <- volumes
}

// drainRig is a driver without its loop: the test takes the inputs, and a recorder keeps what the core is told.
type drainRig struct {
	*Driver
	t      *testing.T
	told   []membership.Event
	mirror *drainMirror
	links  chan bool // of the connection
}

func (r *drainRig) Died(membership.State, membership.Input) {}

func (r *drainRig) Decided(_ membership.State, in membership.Input, _ membership.State, _ []membership.Effect) {
	r.told = append(r.told, in.Event)
}

func newDrainRig(t *testing.T) *drainRig {
	m := &drainMirror{}
	path := t.TempDir() + "/mirrord.sock"
	srv, err := control.Listen(path, "one", m, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served, left := make(chan struct{}), make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(ctx) }()
	log := slog.New(slog.DiscardHandler)
	r := &drainRig{t: t, mirror: m, links: make(chan bool, 16), Driver: &Driver{
		log: log, inputs: make(chan input, inputQueue), done: make(chan struct{}), ctx: ctx, mirror: newMirrord(path, "boot-1", log),
		pets: &pets{}, state: membership.State{Cfg: Durations(membership.A)},
		site: Site{Volumes: []SiteVolume{{ID: "v0", Resource: 1}, {ID: "v1", Resource: 2}, {ID: "v2", Resource: 2}}},
	}}
	r.cfg.Recorder = r
	r.Driver.mirror.tell, r.Driver.mirror.state = func(control.Event) {}, func(up bool) { r.links <- up }
	go func() { defer close(left); r.Driver.mirror.run(ctx) }()
	await(t, "the connection", r.links)
	t.Cleanup(func() { close(r.done); cancel(); <-served; <-left; r.wg.Wait() })
	return r
}

// turn takes the next input as the loop would.
func (r *drainRig) turn() {
	r.t.Helper()
	if err := r.take(await(r.t, "an input", r.inputs)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *drainRig) heard(want ...membership.Event) {
	r.t.Helper()
	if !slices.Equal(r.told, want) {
		r.t.Errorf("the core was told %v, not %v", r.told, want)
	}
	r.told = nil
}

// A drain is answered for each resource, all of whose volumes must be drained.
func TestDrainAnswersForEachResource(t *testing.T) {
	r := newDrainRig(t)
	r.drain(1<<1 | 1<<2 | 1<<3)
	r.mirror.answer(t, 0, "v0", "v2")
	r.turn()
	r.heard(membership.Drained{Resource: 1, OK: true}, membership.Drained{Resource: 2}, membership.Drained{Resource: 3, OK: true})
	r.drain(0)
	r.mirror.answer(t, 1)
	r.turn()
	r.heard()
	if got := r.mirror.seen(); !slices.Equal(got, []string{"v0+v1+v2", ""}) {
		t.Errorf("duet-mirrord was asked for %q", got)
	}
}

// The whole set is asked for each time, so the answer to an earlier call says nothing any more: between the two the
// volume may have been released.
func TestANewDrainReplacesTheOneBefore(t *testing.T) {
	r := newDrainRig(t)
	r.drain(1 << 1)
	r.mirror.answer(t, 0, "v0")
	first := await(t, "the first answer", r.inputs) // on its way when the second one is asked for
	r.drain(1<<1 | 1<<2)
	if err := r.take(first); err != nil {
		t.Fatal(err)
	}
	r.heard()
	r.mirror.answer(t, 1, "v0", "v1", "v2")
	r.turn()
	r.heard(membership.Drained{Resource: 1, OK: true}, membership.Drained{Resource: 2, OK: true})
}

func TestDrainThatIsRefused(t *testing.T) {
	r := newDrainRig(t)
	r.mirror.fail = errors.New("unknown volume")
	r.drain(1 << 1)
	r.turn()
	r.heard(membership.Drained{Resource: 1})
}

// A process that answered and is gone holds nothing any more, and neither does the next one.
func TestDrainOfAMirrorThatIsGone(t *testing.T) {
	r := newDrainRig(t)
	r.drain(1 << 1)
	r.mirror.answer(t, 0, "v0")
	answered := await(t, "the answer", r.inputs)
	_ = r.Driver.mirror.current().Close()
	await(t, "the end of the connection", r.links)
	if err := r.take(answered); err != nil {
		t.Fatal(err)
	}
	r.heard(membership.Drained{Resource: 1})
	await(t, "the next connection", r.links)

	r.drain(1 << 1) // the answer never comes
	_ = r.Driver.mirror.current().Close()
	r.turn()
	r.heard(membership.Drained{Resource: 1})
}

// A connection begins without a hold of the one before it, once the driver has granted anything at all.
func TestAConnectionBeginsReleased(t *testing.T) {
	r := newDrainRig(t)
	r.Driver.mirror.mu.Lock()
	r.Driver.mirror.told, r.Driver.mirror.grant = true, control.Grant{Mode: control.Paired}
	r.Driver.mirror.mu.Unlock()
	_ = r.Driver.mirror.current().Close()
	await(t, "the end of the connection", r.links)
	await(t, "the next connection", r.links)
	until(t, "the release", func() bool { return slices.Equal(r.mirror.seen(), []string{""}) })
}
