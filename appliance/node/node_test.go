package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/site"
	"duet/build/testport"
	"duet/replication/control"
	"duet/witness/enrolment"
	"duet/witness/pinned"
	"duet/witness/server"
	"duet/witness/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cable joins two small mirrors: a lane of a session is up while both hold a grant with it and the cable is whole.
type cable struct {
	mu   sync.Mutex
	ends [2]*mirror
	cut  bool
}

// mirror is a duet-mirrord without disks: it obeys grants, reports lanes, and "copies" at once. It is served by the
// real control server, so the driver talks to it as to the real one.
type mirror struct {
	cable *cable
	node  int
	srv   *control.Server
	grant control.Grant
	cfg   control.Config
	lane  uint64
}

func (m *mirror) Configure(c control.Config) error {
	m.cable.mu.Lock()
	defer m.cable.mu.Unlock()
	m.cfg = c
	return nil
}

func (m *mirror) Grant(g control.Grant) error {
	m.cable.mu.Lock()
	defer m.cable.mu.Unlock()
	if g.Sequence <= m.grant.Sequence {
		return errors.New("an older grant")
	}
	m.grant = g
	m.cable.settle()
	return nil
}

func (m *mirror) Revoke() error {
	m.cable.mu.Lock()
	defer m.cable.mu.Unlock()
	m.grant = control.Grant{Sequence: m.grant.Sequence}
	m.cable.settle()
	return nil
}

func (m *mirror) Readmit(string) error { return nil }
func (m *mirror) Scrub(string) error   { return nil }

func (m *mirror) Drain(volumes []string) (<-chan []string, error) {
	done := make(chan []string, 1)
	done <- volumes
	return done, nil
}

func (m *mirror) Copy(session uint64) error {
	m.cable.mu.Lock()
	defer m.cable.mu.Unlock()
	if m.lane != session {
		return errors.New("no lane")
	}
	for _, end := range m.cable.ends {
		end.srv.Emit(control.Event{CopyDone: &control.CopyDone{Session: session, Digest: sha256.Sum256([]byte("equal"))}})
	}
	return nil
}

func (m *mirror) Status() control.Status {
	m.cable.mu.Lock()
	defer m.cable.mu.Unlock()
	s := control.Status{Grant: m.grant, LinkUp: m.lane != 0, LinkPath: "mirror0"}
	for _, v := range m.cfg.Volumes {
		stage := "held"
		if m.grant.Mode == control.Paired && m.lane != 0 {
			stage = "paired"
		}
		s.Volumes = append(s.Volumes, control.VolumeStatus{ID: v.ID, Name: v.Name, SizeBytes: v.SizeBytes, Stage: stage, LegState: "uptodate"})
	}
	return s
}

func (m *mirror) Standing() []control.Event { return nil }

// settle brings the lanes to what the grants and the cable allow.
func (c *cable) settle() {
	want := uint64(0)
	if a, b := c.ends[0].grant, c.ends[1].grant; !c.cut && a.Session == b.Session && a.Mode != control.Revoked && b.Mode != control.Revoked {
		want = a.Session
	}
	for _, m := range c.ends {
		if m.lane != want {
			if m.lane != 0 {
				m.srv.Emit(control.Event{Link: &control.LinkEvent{Session: m.lane}})
			}
			m.lane = want
			if want != 0 {
				m.srv.Emit(control.Event{Link: &control.LinkEvent{Session: want, Up: true, Path: "mirror0"}})
			}
		}
	}
}

// writers says which nodes may acknowledge writes now: the oracle of I2.
func (c *cable) writers() (solo []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, m := range c.ends {
		if m.grant.Mode == control.Solo {
			solo = append(solo, i)
		}
	}
	return solo
}

// plant is two nodes, their cable and a witness on this machine.
type plant struct {
	t       *testing.T
	cable   *cable
	boots   [2]site.Bootstrap
	nodes   [2]*Node
	stops   [2]func()
	witness struct {
		addr string
		key  string
		dir  string
		stop func()
	}
}

func newPlant(t *testing.T) *plant {
	p := &plant{t: t, cable: &cable{}}
	root := t.TempDir()
	ports := [2]int{testport.New(t), testport.New(t)}
	for i, name := range []string{"a", "b"} {
		dir := filepath.Join(root, name)
		run := filepath.Join(dir, "run")
		if err := os.MkdirAll(run, 0o700); err != nil {
			t.Fatal(err)
		}
		local, peer := fmt.Sprintf("127.0.0.%d", 1+i), fmt.Sprintf("127.0.0.%d", 2-i)
		p.boots[i] = site.Bootstrap{
			Node: name, ChassisSerial: "TEST-1", DataDir: filepath.Join(dir, "data"), PoolDir: filepath.Join(dir, "pool"), RunDir: run,
			PeerPort: ports[0], DataPort: ports[1], Accel: "tcg",
			Paths: []site.Path{{Name: "mirror0", Local: local, Peer: peer, Data: true, Chassis: true}},
		}
		p.startMirror(i)
	}
	p.startWitness(filepath.Join(root, "witness"))
	return p
}

func (p *plant) startMirror(i int) {
	m := &mirror{cable: p.cable, node: i}
	srv, err := control.Listen(filepath.Join(p.boots[i].RunDir, mirrorSocket), fmt.Sprint("mirror ", i), m, slog.New(slog.DiscardHandler))
	if err != nil {
		p.t.Fatal(err)
	}
	m.srv = srv
	p.cable.ends[i] = m
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ctx) }()
	p.t.Cleanup(func() { cancel(); <-done })
}

func (p *plant) startWitness(dir string) {
	t := p.t
	if err := os.MkdirAll(filepath.Join(dir, "sites"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	st, _, err := store.Open(store.Config{Path: filepath.Join(dir, "store"), Machine: store.ThisMachine()})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.New(server.Config{Identity: key, Sites: enrolment.Open(filepath.Join(dir, "sites"), func(error) {}), Store: st})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ctx, l) }()
	p.witness.addr, p.witness.key, p.witness.dir = l.Addr().String(), pinned.FormatKey(key.Public().(ed25519.PublicKey)), dir
	p.witness.stop = sync.OnceFunc(func() { cancel(); <-done; _ = st.Close() })
	t.Cleanup(p.witness.stop)
}

// start runs a node; fresh forgets what only this boot knew, as a reboot does.
func (p *plant) start(i int, reboot bool) {
	p.t.Helper()
	if reboot {
		_ = os.Remove(filepath.Join(p.boots[i].RunDir, "membership.snapshot"))
	}
	out := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		out = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	n, err := New(Config{Boot: p.boots[i], ProcDir: emptyProc(p.t), Log: out.With("node", p.boots[i].Node)})
	if err != nil {
		p.t.Fatal(err)
	}
	p.nodes[i] = n
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, func() {}) }()
	p.stops[i] = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("node %s: %v", p.boots[i].Node, err)
		}
	})
	p.t.Cleanup(p.stops[i])
}

// booted starts node a and waits until its driver has begun: before that a fresh node forgets what is in its store.
func (p *plant) booted() *Node {
	p.t.Helper()
	p.start(0, true)
	p.until("node a has booted", 5*time.Second, func() bool { return len(p.nodes[0].driver.Moments()) > 0 })
	return p.nodes[0]
}

// emptyProc is a /proc without processes: these tests must not see, or kill, what else runs on the machine.
func emptyProc(t *testing.T) string {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "self", "ns"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("pid:[1]", filepath.Join(dir, "self", "ns", "pid")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// crash takes the power of a node away: its process ends and its mirror forgets its grant.
func (p *plant) crash(i int) {
	p.stops[i]()
	m := p.cable.ends[i]
	p.cable.mu.Lock()
	m.grant = control.Grant{Sequence: m.grant.Sequence}
	p.cable.settle()
	p.cable.mu.Unlock()
}

func (p *plant) site(i int) api.Site {
	s, err := p.nodes[i].Site(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *plant) until(what string, limit time.Duration, ready func() bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := await(ctx, func() (bool, error) {
		if solo := p.cable.writers(); len(solo) > 1 {
			return false, errors.New("I2 one-authority: both nodes may write alone")
		}
		return ready(), nil
	})
	if err != nil {
		for i := range p.nodes {
			s := p.site(i)
			p.t.Logf("node %s: mode %s epoch %d members %v waits for %q; %s", s.Node, s.Mode, s.Epoch, s.Members, s.WaitsFor, s.Sentence)
		}
		p.t.Fatalf("%s: %v", what, err)
	}
}

func (p *plant) mode(i int, word string) func() bool {
	return func() bool { return p.site(i).Mode == word }
}

func (p *plant) paired() bool {
	a, b := p.site(0), p.site(1)
	return a.Mode == "paired" && b.Mode == "paired" && a.Epoch == b.Epoch && a.Witness.Confirmed && b.Witness.Confirmed
}

func (p *plant) answers() site.Document {
	return site.Document{
		Format: 1, Name: "press-7", Witness: &site.Witness{Address: p.witness.addr, Key: p.witness.key},
		Volumes: []site.Volume{{Name: "data", SizeBytes: 1 << 20}},
	}
}

// enrol lets the witness know both nodes' keys.
func (p *plant) enrol() {
	p.t.Helper()
	var keys [2]ed25519.PublicKey
	for i, n := range p.nodes {
		keys[i] = n.key.Public().(ed25519.PublicKey)
	}
	dir := filepath.Join(p.witness.dir, "sites")
	if err := enrolment.Write(dir, enrolment.Site{Name: "press-7", KeyA: keys[0], KeyB: keys[1]}); err != nil {
		p.t.Fatal(err)
	}
}

// found gives the answers on node a and waits for the end of the founding.
func (p *plant) found() {
	p.t.Helper()
	p.enrol()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := p.nodes[0].Answer(ctx, p.answers(), func(s api.Step) { p.t.Logf("%s: %s %s", s.Name, s.State, s.Detail) })
	if err != nil {
		p.t.Fatal(err)
	}
}

// The whole life of a pair: founded, a node dies, the other goes on alone by the witness's vote, the dead one comes
// back and joins, and then the same the other way round (protocol.md 9.2, R1-R16).
func TestPairLivesThroughTheDeathOfEitherNode(t *testing.T) {
	p := newPlant(t)
	p.start(0, true)
	p.start(1, true)
	p.found()
	p.until("paired after founding", 5*time.Second, p.paired)
	for _, dead := range []int{1, 0} {
		alive := 1 - dead
		epoch := p.site(alive).Epoch
		p.crash(dead)
		p.until("the survivor is solo", 6*time.Second, p.mode(alive, "solo"))
		if s := p.site(alive); s.Epoch <= epoch || len(s.Members) != 1 {
			t.Fatalf("solo at epoch %d after %d, members %v", s.Epoch, epoch, s.Members)
		}
		p.start(dead, true)
		p.until("paired again", 10*time.Second, p.paired)
	}
	if got := p.site(0); got.Word == "" || got.Setup != "complete" {
		t.Errorf("setup %q, word %q", got.Setup, got.Word)
	}
}

// A restart of duetd is not a crash (protocol.md section 4): the session, the epoch and the leases go on.
func TestRestartOfDuetdIsNotACrash(t *testing.T) {
	p := newPlant(t)
	p.start(0, true)
	p.start(1, true)
	p.found()
	p.until("paired after founding", 5*time.Second, p.paired)
	before := p.site(0)
	for _, i := range []int{0, 1, 0, 1} {
		p.stops[i]()
		p.start(i, false)
		p.until("paired in the same session", 3*time.Second, func() bool {
			a, b := p.site(0), p.site(1)
			return p.paired() && a.Session == before.Session && b.Session == before.Session && a.LeaseMS > 3000 && b.LeaseMS > 3000 &&
				p.nodes[i].driver.Paths()[0].AckAge >= 0
		})
	}
	// Longer than it takes to lose a peer: it really goes on.
	soon := time.Now().Add(2 * time.Second)
	p.until("still paired", 5*time.Second, func() bool { return time.Now().After(soon) })
	after := p.site(0)
	if after.Session != before.Session || after.Epoch != before.Epoch || after.Mode != "paired" {
		t.Errorf("session %s epoch %d %s, was %s epoch %d", after.Session, after.Epoch, after.Mode, before.Session, before.Epoch)
	}
}

// Without a data lane the session ends after 1.5 s although beats flow (protocol.md 5.3), and exactly one side goes on.
func TestNoDataLaneEndsTheSession(t *testing.T) {
	p := newPlant(t)
	p.start(0, true)
	p.start(1, true)
	p.found()
	p.until("paired after founding", 5*time.Second, p.paired)
	p.cable.mu.Lock()
	p.cable.cut = true
	p.cable.settle()
	p.cable.mu.Unlock()
	p.until("one side goes on alone", 8*time.Second, func() bool { return len(p.cable.writers()) == 1 })
	p.cable.mu.Lock()
	p.cable.cut = false
	p.cable.settle()
	p.cable.mu.Unlock()
	p.until("paired again", 15*time.Second, p.paired)
}

// A founding that is cut at any moment, on either side, leaves both nodes fresh or both founded, and giving the answers
// again completes it (protocol.md 9.2).
func TestFoundingCutAnywhere(t *testing.T) {
	p := newPlant(t)
	p.start(0, true)
	p.start(1, true)
	p.enrol()
	rng := mathrand.New(mathrand.NewPCG(4, 1))
	for range 6 {
		if p.site(0).SiteID != "" {
			break // the cut came too late: it is founded, and the end of this test shows that it is whole
		}
		victim := rng.IntN(2)
		ctx, cancel := context.WithCancel(context.Background())
		founding := make(chan error, 1)
		p.until("the nodes see each other", 5*time.Second, func() bool { return p.site(0).Session != "" && p.site(1).Session != "" })
		go func() { founding <- p.nodes[0].Answer(ctx, p.answers(), func(api.Step) {}) }()
		cut := time.NewTimer(time.Duration(rng.IntN(50)) * time.Millisecond)
		<-cut.C
		p.crash(victim)
		cancel()
		<-founding
		p.start(victim, true)
	}
	if p.site(0).Setup != "complete" {
		p.found()
	}
	p.until("paired", 20*time.Second, p.paired)
}

// Orders that cannot be carried out are refused with a code, at once and without an effect.
func TestOrdersAreRefused(t *testing.T) {
	p := newPlant(t)
	p.start(0, true)
	p.start(1, true)
	ctx := context.Background()
	code := func(err error) event.Code { return event.CodeOf(err) }
	if err := p.nodes[0].StartVM(ctx, "press"); code(err) != event.NotFounded {
		t.Errorf("a fresh node: %v", err)
	}
	wrong := p.answers()
	wrong.Volumes[0].SizeBytes = 4095
	if err := p.nodes[0].Answer(ctx, wrong, func(api.Step) {}); code(err) != event.DocumentInvalid {
		t.Errorf("a volume of 4095 bytes: %v", err)
	}
	if err := p.nodes[0].Answer(ctx, p.answers(), func(api.Step) {}); code(err) != event.WitnessRefused {
		t.Errorf("keys that are not enrolled: %v", err)
	}
	if s := p.site(0); s.SiteID != "" || s.Setup != "fresh" {
		t.Errorf("a refused founding left site %q, setup %q", s.SiteID, s.Setup)
	}
	p.found()
	if err := p.nodes[0].StopVM(ctx, "press"); code(err) != event.UnknownVM {
		t.Errorf("an unknown VM: %v", err)
	}
	if err := p.nodes[0].Answer(ctx, p.answers(), func(api.Step) {}); code(err) != event.AlreadyFounded {
		t.Errorf("answers again: %v", err)
	}
}

// Two changes of the runtime document at once are both kept: a person's order must not be lost behind another one.
func TestRuntimeChangesAreNotLost(t *testing.T) {
	p := newPlant(t)
	n := p.booted()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if err := n.changeRuntime(func(r *site.Runtime) { r.StoppedVMs[fmt.Sprint(i)] = true }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if r := n.store.Runtime(); len(r.StoppedVMs) != 16 || r.Version != 16 {
		t.Errorf("%d of 16 changes are kept, version %d", len(r.StoppedVMs), r.Version)
	}
}

// A fresh node takes no runtime document: the next founding would begin with another site's setup as complete.
func TestAFreshNodeTakesNoRuntime(t *testing.T) {
	p := newPlant(t)
	n := p.booted()
	if err := n.toldRuntime([]byte(`{"epoch":3,"version":5,"setup_complete":true,"outlets_proven":{},"bmc_proven":{},"stopped_vms":{}}`)); err != nil {
		t.Fatal(err)
	}
	if r := n.store.Runtime(); r.SetupComplete || r.Version != 0 {
		t.Errorf("%+v", r)
	}
}
