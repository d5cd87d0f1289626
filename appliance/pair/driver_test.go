package pair

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/appliance/membership"
	"duet/appliance/pair/peerlink"
	"duet/appliance/pair/recordfile"
	"duet/replication/control"
	"duet/witness/register"
	"duet/witness/wire"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv("DUET_TEST_MIRROR"); socket != "" {
		stubbornMirror(socket)
	}
	if err := flag.Set("test.parallel", "16"); err != nil { // the sweeps wait more than they work
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// rig is one node without a peer: real record, real snapshot, real control socket, a witness with a real register.
type rig struct {
	t        *testing.T
	dir      string
	mirror   *memoryMirror
	guests   *memoryGuests
	witness  *memoryWitness
	resets   []string
	reports  []membership.ReportCode
	mu       sync.Mutex
	boot     string
	watchdog string
}

// memoryMirror obeys grants, and holds the driver to its word: a solo grant needs a durable record that says so.
type memoryMirror struct {
	rig   *rig
	mu    sync.Mutex
	grant control.Grant
	wrong []string
}

func (m *memoryMirror) Configure(control.Config) error { return nil }

func (m *memoryMirror) Grant(g control.Grant) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if g.Sequence <= m.grant.Sequence {
		m.wrong = append(m.wrong, "a grant with an old sequence")
		return errors.New("old")
	}
	rec := m.rig.recordOnDisk()
	if g.Mode == control.Solo && (rec.Members != membership.OnlyA || uint64(rec.Ep) != g.Epoch) {
		m.wrong = append(m.wrong, fmt.Sprintf("solo granted with a record of epoch %d, members %v", rec.Ep, rec.Members))
	}
	m.grant = g
	return nil
}

func (m *memoryMirror) Revoke() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.grant = control.Grant{Sequence: m.grant.Sequence}
	return nil
}

func (m *memoryMirror) Copy(uint64) error      { return errors.New("no lane") }
func (m *memoryMirror) Status() control.Status { return control.Status{} }
func (m *memoryMirror) Readmit(string) error   { return nil }
func (m *memoryMirror) Scrub(string) error     { return nil }

func (m *memoryMirror) Drain(volumes []string) (<-chan []string, error) {
	done := make(chan []string, 1)
	done <- volumes
	return done, nil
}
func (m *memoryMirror) Standing() []control.Event { return nil }

func (m *memoryMirror) mode() control.Mode {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.grant.Mode
}

// memoryGuests runs what it is told, if it was permitted.
type memoryGuests struct {
	mu        sync.Mutex
	permitted membership.Resources
	until     membership.Boottime
	running   membership.Resources
	wanted    []membership.ResourceID
	stubborn  bool
	stops     int
}

func (g *memoryGuests) Permit(_ membership.Epoch, rs membership.Resources, until membership.Boottime) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.permitted, g.until = rs, until
}

func (g *memoryGuests) Start(r membership.ResourceID, _ membership.Epoch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.permitted.Has(r) && (g.until == 0 || (&Driver{}).now() < g.until) {
		g.running |= 1 << r
	}
}

func (g *memoryGuests) Stop(_ context.Context, rs membership.Resources) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running &^= rs
	return nil
}

func (g *memoryGuests) StopAll(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stops++
	if g.stubborn {
		return errors.New("it does not die")
	}
	g.running = 0
	return nil
}

func (g *memoryGuests) Idle() bool { return g.runs() == 0 }

func (g *memoryGuests) Wanted() []membership.ResourceID {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []membership.ResourceID
	for _, r := range g.wanted {
		if !g.running.Has(r) {
			out = append(out, r)
		}
	}
	return out
}

func (g *memoryGuests) runs() membership.Resources {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running
}

type memoryWitness struct {
	mu  sync.Mutex
	reg register.Register
}

func (w *memoryWitness) Do(_ context.Context, r wire.Request) (wire.Reply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Op != wire.CAS {
		return wire.Reply{}, errors.New("not asked for")
	}
	after, done, _ := w.reg.CAS(r.Expected, r.New)
	w.reg = after
	result := wire.Failed
	if done {
		result = wire.OK
	}
	return wire.Reply{Op: r.Op, Result: result, Nonce: r.Nonce, RID: r.RID, Content: after.Content}, nil
}

var testRID = membership.ID{7}

// newRig is a node that was paired at epoch 1 and boots alone; it owns resource 1, the peer owns resource 2.
func newRig(t *testing.T) *rig {
	r := &rig{t: t, dir: t.TempDir(), guests: &memoryGuests{}, boot: "boot-1"}
	r.mirror = &memoryMirror{rig: r}
	r.witness = &memoryWitness{reg: register.Register{
		RID: register.ID(testRID), Content: register.Content{Epoch: 1, Set: register.Both},
	}}
	rec := membership.Record{
		Seq: 3, Site: membership.ID{1}, Ep: 1, Members: membership.Both, High: 1, Consistent: true,
		Arb: membership.Arb{Kind: membership.ArbWitness, RID: testRID},
	}
	rec.Owners[0] = membership.Owner{Version: 1}
	rec.Owners[1] = membership.Owner{Version: 1}
	rec.Owners[2] = membership.Owner{Node: membership.B, Version: 1}
	f, err := recordfile.Open(r.path("record"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Write(rec.Seq, membership.AppendRecord(nil, rec)), f.Close()); err != nil {
		t.Fatal(err)
	}
	srv, err := control.Listen(r.path("mirrord.sock"), "mirror", r.mirror, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) recordOnDisk() membership.Record {
	f, err := recordfile.Open(r.path("record"))
	if err != nil {
		r.t.Error(err)
		return membership.Record{}
	}
	defer f.Close()
	_, payload := f.Record()
	rec, err := membership.ParseRecord(payload)
	if err != nil {
		r.t.Error(err)
	}
	return rec
}

// quickTiming is the table with the waits of a boot made short; nothing here measures them.
func quickTiming() membership.Config {
	c := Durations(membership.A)
	c.BootWait, c.PeerWait, c.PowerOnWait = 20e6, 60e6, 1e9 // repeats stay slow: the number of effects must not grow with the load
	return c
}

func (r *rig) config(socket string) Config {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	records, err := recordfile.Open(r.path("record"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = records.Close() })
	out := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		out = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return Config{
		Timing: quickTiming(), Link: peerlink.Config{Key: key, Timing: peerlink.Default(), Log: out},
		BootID: r.boot, RunDir: r.dir, Records: records, MirrorSocket: socket, Watchdog: r.watchdog, Workloads: r.guests, Log: out,
		Hooks: Hooks{
			Adopt:       func(membership.Prepare, ed25519.PublicKey) error { return nil },
			Belongs:     func(membership.Record) (Site, error) { return r.site(), nil },
			Documents:   func() [][]byte { return nil },
			Holds:       func(membership.Digest) bool { return true },
			Began:       func(membership.Session, bool) {},
			Told:        func(byte, []byte) {},
			Refused:     func(peerlink.Refusal) {},
			MirrorFault: func(control.Fault) {},
			Reported: func(c membership.ReportCode) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.reports = append(r.reports, c)
			},
			Reset: func(why string) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.resets = append(r.resets, why)
			},
		},
	}
}

func (r *rig) site() Site {
	return Site{
		Witness: r.witness, Mirror: control.Config{Site: "x"},
		Volumes: []SiteVolume{{Slot: 0, ID: "v0", Resource: 1}, {Slot: 1, ID: "v1", Resource: 2}},
	}
}

// run starts a driver; the returned function stops it and gives its error.
func (r *rig) run(prepare func(*Driver)) (*Driver, func() error, <-chan error) {
	r.t.Helper()
	d, err := New(r.config(r.path("mirrord.sock")))
	if err != nil {
		r.t.Fatal(err)
	}
	if prepare != nil {
		prepare(d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended <- d.Run(ctx, r.site())
	}()
	stop := func() error { cancel(); <-done; return nil }
	r.t.Cleanup(func() { _ = stop() })
	return d, stop, ended
}

func until(t *testing.T, what string, ready func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
		<-tick.C
	}
}

// await receives within the same patience.
func await[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(5 * time.Second):
		t.Fatal("never: " + what)
		panic("unreachable")
	}
}

func (r *rig) sane() {
	r.t.Helper()
	r.mirror.mu.Lock()
	defer r.mirror.mu.Unlock()
	for _, w := range r.mirror.wrong {
		r.t.Error(w)
	}
}

// A node that was a member boots alone: it asks the witness, goes solo, runs what it owns at once, and what the peer
// owned after W0 (R1, R4, R5, R8).
func TestBootAloneAndTakeOver(t *testing.T) {
	r := newRig(t)
	r.guests.wanted = []membership.ResourceID{1, 2}
	d, stop, _ := r.run(nil)
	until(t, "both resources run", func() bool { return r.guests.runs() == 0b110 })
	until(t, "the view shows the record", func() bool { return d.View().State.Rec == r.recordOnDisk() })
	st := d.View().State
	if st.Mode != membership.Solo || st.Rec.Ep != 2 || st.Rec.Owners[2].Node != membership.A || r.mirror.mode() != control.Solo {
		t.Errorf("mode %v, epoch %d, owners %v", st.Mode, st.Rec.Ep, st.Rec.Owners[:3])
	}
	if rec := r.recordOnDisk(); rec != st.Rec {
		t.Errorf("record on disk %+v, in the state %+v", rec, st.Rec)
	}
	_ = stop()
	r.sane()
}

// The process dies before every single effect in turn; the next one must end where an undisturbed one ends, and must
// never have granted what was not recorded (protocol.md section 4: snapshot; 5.1: a crash between any two effects).
func TestDeathBeforeEveryEffect(t *testing.T) {
	const enough = 15 // effects, on a machine so slow that the timers go on repeating while the test dies once an effect
	for k, end := 0, time.Now().Add(20*time.Second); k < enough || time.Now().Before(end); k++ {
		r := newRig(t)
		r.guests.wanted = []membership.ResourceID{1, 2}
		n := 0
		_, stop, ended := r.run(func(d *Driver) {
			d.cut = func(membership.Effect) bool { n++; return n-1 == k }
		})
		died := false
		until(t, "the end", func() bool {
			select {
			case err := <-ended:
				if !errors.Is(err, errCut) {
					t.Fatalf("effect %d: %v", k, err)
				}
				died = true
			default:
			}
			return died || r.guests.runs() == 0b110
		})
		_ = stop()
		if !died {
			if k < enough {
				t.Fatalf("only %d effects", k)
			}
			return
		}
		d, stop, _ := r.run(nil)
		until(t, fmt.Sprintf("both resources run after a death before effect %d", k), func() bool { return r.guests.runs() == 0b110 })
		until(t, fmt.Sprintf("the view shows the record, solo, after a death before effect %d", k), func() bool {
			st := d.View().State // published at the end of a step
			return st.Mode == membership.Solo && st.Rec == r.recordOnDisk()
		})
		_ = stop()
		r.sane()
	}
}

// A restart with a snapshot of this boot and of this record goes on; one of another boot, or of another record, or
// damaged, is a boot: everything is killed first.
func TestSnapshotCountsOnlyForThisBootAndThisRecord(t *testing.T) {
	for name, spoil := range map[string]func(*rig){
		"":             func(*rig) {},
		"another boot": func(r *rig) { r.boot = "boot-2" },
		"cut short":    func(r *rig) { _ = os.WriteFile(r.path(snapshotName), []byte(`{"boot_id":"bo`), 0o600) },
		"missing":      func(r *rig) { _ = os.Remove(r.path(snapshotName)) },
		"older record": func(r *rig) {
			rec := r.recordOnDisk()
			rec.Seq++
			f, err := recordfile.Open(r.path("record"))
			if err != nil {
				r.t.Fatal(err)
			}
			if err := errors.Join(f.Write(rec.Seq, membership.AppendRecord(nil, rec)), f.Close()); err != nil {
				r.t.Fatal(err)
			}
		},
	} {
		r := newRig(t)
		r.guests.wanted = []membership.ResourceID{1}
		_, stop, _ := r.run(nil)
		until(t, "resource 1 runs", func() bool { return r.guests.runs() == 0b010 })
		_ = stop()
		spoil(r)
		stops := r.guests.stops
		r.guests.wanted = nil // what runs now was adopted, not started again
		d, stop, _ := r.run(nil)
		until(t, "solo", func() bool { return d.View().State.Mode == membership.Solo && r.mirror.mode() == control.Solo })
		_ = stop()
		if adopted := r.guests.runs() == 0b010 && r.guests.stops == stops; adopted != (name == "") {
			t.Errorf("%q: adopted %v", name, adopted)
		}
		r.sane()
	}
}

// A record that cannot be written ends the serving of this node: nothing runs, nothing is granted, and no reset hides it.
func TestPersistFails(t *testing.T) {
	r := newRig(t)
	r.guests.running = 0b010
	_, stop, ended := r.run(func(d *Driver) { _ = d.cfg.Records.Close() })
	err := await(t, "its end", ended)
	if !errors.Is(err, ErrHalted) {
		t.Fatalf("ended with %v", err)
	}
	_ = stop()
	if r.guests.runs() != 0 || r.mirror.mode() != control.Revoked || len(r.resets) != 0 {
		t.Errorf("runs %b, grant %v, resets %q", r.guests.runs(), r.mirror.mode(), r.resets)
	}
}

// A workload that does not die resets the node: it must not say that it has stopped.
func TestStopFails(t *testing.T) {
	r := newRig(t)
	r.guests.running, r.guests.stubborn = 0b010, true
	d, stop, ended := r.run(nil)
	if err := await(t, "its end", ended); !errors.Is(err, errReset) {
		t.Fatalf("ended with %v", err)
	}
	_ = stop()
	if len(r.resets) != 1 || !d.pets.hold.Load() {
		t.Errorf("resets %q, watchdog held %v", r.resets, d.pets.hold.Load())
	}
}

// Until duet-mirrord answers nothing is decided, and nothing of before may run without a right.
func TestNothingRunsUnguardedBeforeTheMirrorAnswers(t *testing.T) {
	r := newRig(t)
	r.guests.running = 0b010
	cfg := r.config(r.path("nobody.sock"))
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Run(ctx, r.site()) }()
	until(t, "everything is killed", r.guests.Idle)
	cancel()
	<-done

	// With a snapshot that has a running lease, at its end.
	r.guests.running = 0b010
	st := d.View().State
	st.Mode, st.Session, st.Lease = membership.Paired, 1, d.now()+200e6
	if err := writeSnapshot(r.dir, snapshot{BootID: r.boot, Seq: st.Rec.Seq, State: st}); err != nil {
		t.Fatal(err)
	}
	d, err = New(r.config(r.path("nobody.sock")))
	if err != nil || !d.resumed {
		t.Fatal(err, d.resumed)
	}
	ctx, cancel = context.WithCancel(context.Background())
	done = make(chan struct{})
	go func() { defer close(done); _ = d.Run(ctx, r.site()) }()
	until(t, "everything is killed", r.guests.Idle)
	if d.now() < st.Lease {
		t.Error("killed before the end of the lease")
	}
	cancel()
	<-done
}

// What may be started may be started up to the grant's deadline (membership duty 4).
func TestPermissionCarriesTheDeadline(t *testing.T) {
	r := newRig(t)
	r.guests.running = 0b010
	d, err := New(r.config(r.path("mirrord.sock")))
	if err != nil {
		t.Fatal(err)
	}
	st := d.state
	st.Cfg, st.Mode, st.Session, st.Lease = quickTiming(), membership.Paired, 1, d.now()+3e9
	if err := errors.Join(d.lock.Close(), writeSnapshot(r.dir, snapshot{BootID: r.boot, Seq: st.Rec.Seq, State: st})); err != nil {
		t.Fatal(err)
	}
	_, stop, _ := r.run(nil)
	until(t, "resource 1 is permitted up to the end of the lease", func() bool {
		r.guests.mu.Lock()
		defer r.guests.mu.Unlock()
		return r.guests.permitted == 0b010 && r.guests.until == st.Lease
	})
	_ = stop()
	r.sane()
}

// silentWitness counts the calls that wait for it.
type silentWitness struct{ waiting atomic.Int32 }

func (w *silentWitness) Do(ctx context.Context, _ wire.Request) (wire.Reply, error) {
	w.waiting.Add(1)
	defer w.waiting.Add(-1)
	<-ctx.Done()
	return wire.Reply{}, ctx.Err()
}

// Calls of dead attempts end, so that a new attempt is asked for at once, however often the link comes and goes.
func TestANewAttemptEndsTheCallsOfTheOld(t *testing.T) {
	w := &silentWitness{}
	d := &Driver{
		site: Site{Witness: w}, log: slog.New(slog.DiscardHandler), inputs: make(chan input, inputQueue), done: make(chan struct{}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.ctx = ctx
	for range 2 * maxWitnessCalls {
		d.askWitness(membership.AskWitness{Nonce: 1})
	}
	until(t, "the calls of the first attempt, to their limit", func() bool { return w.waiting.Load() == maxWitnessCalls })
	for nonce := range membership.Nonce(20) {
		d.askWitness(membership.AskWitness{Nonce: nonce + 2})
	}
	until(t, "one call, of the last attempt", func() bool { return w.waiting.Load() == 1 })
	d.state.Claim.Nonce = 77
	for range 2 {
		d.askWitness(membership.AskWitness{Nonce: 77})
		d.askWitness(membership.AskWitness{Nonce: 21})
	}
	until(t, "the claim of an override beside it, both asked twice", func() bool { return w.waiting.Load() == 5 })
	d.pushWitness(membership.PushWitness{Nonce: 1})
	until(t, "a PUSH beside them", func() bool { return w.waiting.Load() == 6 })
	cancel()
	close(d.done)
	d.wg.Wait()
}

// A tmpfs that is full costs the snapshot, not what runs; an old snapshot does not stay behind.
func TestWithoutASnapshotTheNodeGoesOn(t *testing.T) {
	r := newRig(t)
	r.guests.wanted = []membership.ResourceID{1}
	_, stop, _ := r.run(nil)
	until(t, "resource 1 runs", func() bool { return r.guests.runs() == 0b010 })
	_ = stop()
	if err := os.Mkdir(r.path(snapshotName+".new"), 0o700); err != nil { // no snapshot can be written
		t.Fatal(err)
	}
	r.guests.wanted = []membership.ResourceID{1, 2}
	_, stop, ended := r.run(nil)
	until(t, "both resources run", func() bool {
		select {
		case err := <-ended:
			t.Fatal(err)
		default:
		}
		return r.guests.runs() == 0b110
	})
	_ = stop()
	if _, err := os.Stat(r.path(snapshotName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an old snapshot stays behind: %v", err)
	}
}

// A node that has halted is not shown as serving: its people would believe that the site is protected.
func TestAHaltedNodeIsNotShownAsServing(t *testing.T) {
	r := newRig(t)
	d, stop, ended := r.run(nil)
	until(t, "solo", func() bool { return d.View().State.Mode == membership.Solo })
	if err := d.cfg.Records.Close(); err != nil {
		t.Fatal(err)
	}
	r.guests.mu.Lock()
	r.guests.wanted = []membership.ResourceID{2} // the takeover is recorded first
	r.guests.mu.Unlock()
	if err := await(t, "its end", ended); !errors.Is(err, ErrHalted) {
		t.Fatalf("ended with %v", err)
	}
	_ = stop()
	if st := d.View().State; st.Mode != membership.Init || st.Session != 0 || st.Lease != 0 {
		t.Errorf("shown as %v", st.Mode)
	}
}
