package fence

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"duet/ipmi/sim"
)

// quick is the rhythm of the table a thousand times as fast.
var quick = Rhythm{Ping: 100 * ms, SignIn: 400 * ms, Outlets: 100 * ms, Again: 50 * ms, SignInAgain: 100 * ms, Fresh: 60 * Second}

// watched is a machine whose paths are being proven.
type watched struct {
	*machine
	w    *Watch
	r    *Runner
	gone atomic.Bool // the peer is not heard
}

func watch(t *testing.T, m *machine, change ...func(*Config)) *watched {
	t.Helper()
	v := &watched{machine: m, r: m.runner(t, append([]func(*Config){func(c *Config) { c.Target.Load = learned }}, change...)...)}
	v.w = NewWatch(v.r, quick, func() bool { return !v.gone.Load() }, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	runs.Go(func() { v.w.Run(ctx) })
	t.Cleanup(func() { cancel(); runs.Wait() })
	return v
}

// becomes waits until both paths stand like that: the code of each, empty for proven.
func (v *watched) becomes(t *testing.T, what, bmc, outlets string) {
	t.Helper()
	var last string
	for deadline := time.Now().Add(8 * time.Second); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		codes := map[PathKind]string{}
		for _, p := range v.w.Proofs() {
			codes[p.Kind] = "proven"
			switch {
			case p.Fault != nil:
				codes[p.Kind] = p.Fault.Code
			case p.ProvenAt == 0:
				codes[p.Kind] = "not yet"
			case p.Notice != nil:
				codes[p.Kind] = "notice " + p.Notice.Code
			}
		}
		if last = codes[PathBMC] + " " + codes[PathOutlets]; last == bmc+" "+outlets {
			return
		}
	}
	t.Fatalf("%s: it is %q, want %q", what, last, bmc+" "+outlets)
}

// Proves: F-09, X-13. The proof of the proof: each way in which a path may rot is found, with its code, and so is its
// mending; nothing is ever switched by it.
func TestProofOfTheProof(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name         string
		rot, mend    func(*watched)
		bmc, outlets string
	}{
		{"dead PDU", func(v *watched) { v.pdu.SetFaults(sim.PDUFaults{Mute: true}) }, nil, "proven", CodePDUSilent},
		{"PDU swapped: another count", func(v *watched) { v.pdu.SetFaults(sim.PDUFaults{Identity: 4}) }, nil, "proven", CodePDUIdentity},
		{"PDU answers wrongly", func(v *watched) { v.pdu.SetFaults(sim.PDUFaults{WrongID: true}) }, nil, "proven", CodePDUWrong},
		{"dead BMC", func(v *watched) { v.bmc.SetAlive(false) }, func(v *watched) { v.bmc.SetAlive(true) }, CodeBMCSilent, "proven"},
		{"role reduced", func(v *watched) { v.bmc.SetFaults(sim.BMCFaults{RoleUser: true}) }, nil, CodeBMCRole, "proven"},
		{"another system answers", func(v *watched) { v.bmc.SetFaults(sim.BMCFaults{WrongGUID: true}) }, nil, CodeWrongBMC, "proven"},
		{"firmware changed", func(v *watched) { v.bmc.SetFaults(sim.BMCFaults{Firmware: 9}) }, nil, CodeFirmware, "proven"},
		{"the BMC says off and the node is heard", func(v *watched) { v.bmc.SetFaults(sim.BMCFaults{Lie: sim.SaysOff}) }, nil, CodeSaysOff, "proven"},
		{"outlets crossed: the node runs by others", func(v *watched) { v.recable(5, 6) }, func(v *watched) { v.recable(3, 4) }, "proven", CodeCrossed},
		{"one outlet off", func(v *watched) { v.pdu.Press(3, false) }, func(v *watched) { v.pdu.Press(3, true) }, "proven", "notice " + CodeOutletOff},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v := watch(t, newMachine(t))
			v.becomes(t, "at first", "proven", "proven")
			if !v.w.Fresh() {
				t.Error("not fresh")
			}
			writes := v.pdu.Writes()
			test.rot(v)
			v.becomes(t, "withdrawn", test.bmc, test.outlets)
			if test.mend != nil {
				test.mend(v)
			} else {
				v.bmc.SetFaults(sim.BMCFaults{})
				v.pdu.SetFaults(sim.PDUFaults{})
			}
			v.becomes(t, "and back", "proven", "proven")
			if extra := v.pdu.Writes() - writes; !v.Powered() || (extra != 0 && test.name != "one outlet off") {
				t.Error("the proof switched something")
			}
		})
	}
}

// recable plugs the node's cords into other outlets.
func (m *machine) recable(outlets ...int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.feeds = outlets
}

// A changed password is found at the next sign-in; the new one, entered by a person, proves the path again.
func TestPasswordChanged(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	v := watch(t, m)
	v.becomes(t, "at first", "proven", "proven")
	m.bmc.SetFaults(sim.BMCFaults{Password: "another"})
	v.becomes(t, "changed", CodeBMCLogin, "proven")
	logins := m.bmc.Logins()
	for range 5 {
		v.w.Check(t.Context())
	}
	if again := m.bmc.Logins() - logins; again != 0 {
		t.Errorf("%d logins more with a password that was refused: the BMC would lock the user out", again)
	}
	mended := watch(t, m, func(c *Config) { c.Target.BMC.Password = "another" })
	mended.becomes(t, "entered", "proven", "proven")
}

// A PDU that names itself is known by that too, also over a restart of the daemon.
func TestSwappedPDUIsKnownByName(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	device, err := sim.NewPDU(sim.PDUConfig{Product: "gude", Outlets: 8, Device: [3]string{"GUDE Systems", "8045", "1"}, SetOutlet: m.setOutlet})
	if err != nil {
		t.Fatal(err)
	}
	m.serve(t, device)
	product := func(c *Config) {
		c.Target.PDU = &PDUConfig{Address: m.pduAddress, Product: "gude", Identity: "GUDE Systems 8045"}
		c.Target.Load = LearnedLoad{}
	}
	v := watch(t, m, product)
	v.becomes(t, "at first", "proven", "proven")
	device.SetFaults(sim.PDUFaults{Product: "8221"})
	v.becomes(t, "swapped", "proven", CodePDUIdentity)
	watch(t, m, product).becomes(t, "swapped, and the daemon begins anew", "proven", CodePDUIdentity)
	result, err := v.r.LiveTest(t.Context(), nil, nil) // a person says that it is the new one
	if err != nil || result.PDU != "GUDE Systems 8221" {
		t.Fatalf("%+v, %v", result, err)
	}
	v.becomes(t, "tested anew", "proven", "proven")
	device.SetFaults(sim.PDUFaults{Product: "third", Mute: false, Stuck: []int{3}})
	if _, err := v.r.LiveTest(t.Context(), nil, nil); err == nil {
		t.Error("a live test with a stuck relay passes")
	}
	v.becomes(t, "a test that failed teaches nothing", "proven", CodePDUIdentity)
}

// Maps that can never be evidence say so, whatever the device answers.
func TestPathsThatCannot(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	watch(t, m, func(c *Config) { c.Target.OutletsProven = false }).becomes(t, "no live test", "proven", CodeMapUnproven)
	watch(t, m, func(c *Config) { c.Target.PDU.Product = "xerus" }).becomes(t, "coils nobody saw", "proven", CodeNoMap)
	watch(t, m, func(c *Config) { c.Target.PDU.Product = "eaton" }).becomes(t, "it only measures", "proven", CodeNoMap)
	watch(t, m, func(c *Config) { c.Target.SharedPSUs = true }).becomes(t, "shared supplies", "proven", CodeSharedPSUs)
	watch(t, m, func(c *Config) { c.Target.PDU.Reserved = []int{3} }).becomes(t, "it feeds the PDU", "proven", CodeReserved)
	relay, err := sim.NewPDU(sim.PDUConfig{Product: "waveshare", Outlets: 8, SetOutlet: m.setOutlet})
	if err != nil {
		t.Fatal(err)
	}
	m.serve(t, relay)
	v := watch(t, m, func(c *Config) {
		c.Target.PDU = &PDUConfig{Address: m.pduAddress, Product: "waveshare"}
		c.Target.Load = LearnedLoad{}
	})
	v.becomes(t, "a relay", "proven", CodeRelayOnly)
	m.cut()
	expect(t, v.r.Run(t.Context(), Request{}), NoKind, Unknown, CodeRelayOnly)
	if relay.Outlet(3) || relay.Outlet(4) {
		t.Error("the relays were not even switched")
	}
}

// A node that is off is no reason to withdraw its paths: the BMC answers "off", the outlets read off.
func TestPeerOffKeepsItsPaths(t *testing.T) {
	t.Parallel()
	v := watch(t, newMachine(t))
	v.becomes(t, "at first", "proven", "proven")
	v.gone.Store(true)
	if err := v.PowerOff(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		v.w.Check(t.Context())
	}
	v.becomes(t, "off", "proven", "proven")
}

// What is seen while the node is fenced or tested is of that, and withdraws nothing.
func TestWatchKeepsOutOfTheWay(t *testing.T) {
	t.Parallel()
	v := watch(t, newMachine(t))
	v.becomes(t, "at first", "proven", "proven")
	if _, err := v.r.LiveTest(t.Context(), nil, func(string) {
		for _, p := range v.w.Proofs() {
			if p.Fault != nil {
				t.Errorf("withdrawn by a live test: %v", p.Fault)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	v.becomes(t, "afterwards", "proven", "proven")
}

// What is wanted soon waits for the end of an order without being looked at: an order may last minutes.
func TestWatchWaitsForAnOrder(t *testing.T) {
	t.Parallel()
	r := newMachine(t).runner(t)
	if !r.enter(t.Context()) {
		t.Fatal("no order")
	}
	w := NewWatch(r, quick, func() bool { return true }, nil)
	w.Soon()
	ctx, cancel := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	runs.Go(func() { w.Run(ctx) })
	t.Cleanup(func() { cancel(); runs.Wait() })
	for deadline := time.Now().Add(200 * time.Millisecond); time.Now().Before(deadline); runtime.Gosched() {
		if len(w.soon) == 0 {
			t.Fatal("taken during the order")
		}
	}
	r.leave()
	deadline := time.Now().Add(5 * time.Second)
	for len(w.soon) > 0 || w.Proofs()[0].ProvenAt == 0 {
		if time.Now().After(deadline) {
			t.Fatal("forgotten after the order")
		}
		<-time.After(time.Millisecond)
	}
}

// A check that an order overtook says nothing, whatever it saw.
func TestOvertakenCheckIsThrownAway(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	r := m.runner(t)
	w := NewWatch(r, quick, func() bool { return true }, nil)
	w.Check(t.Context())
	m.pdu.SetFaults(sim.PDUFaults{Mute: true})
	m.bmc.SetMute(true)
	checked := make(chan []Proof, 1)
	go func() { checked <- w.Check(t.Context()) }()
	deadline := time.Now().Add(5 * time.Second)
	for r.waiting() == 0 {
		if time.Now().After(deadline) {
			t.Fatal("no check begins")
		}
		<-time.After(time.Millisecond)
	}
	if !r.enter(t.Context()) { // an order came and went
		t.Fatal("no order")
	}
	r.leave()
	for _, p := range <-checked {
		if p.Fault != nil || p.ProvenAt == 0 {
			t.Errorf("%+v", p)
		}
	}
	for _, p := range w.Check(t.Context()) {
		if p.Fault == nil {
			t.Errorf("%s: an undisturbed check finds nothing", p.Kind)
		}
	}
}

// The rhythm, on a clock of its own: each check is due within its period, and a proof counts for fifteen minutes.
func TestRhythm(t *testing.T) {
	rhythm := DefaultRhythm()
	stale := func(PathKind) *Fault { return &Fault{Code: CodeStale} }
	none := func() *Fault { return nil }
	word := func(code string) *Fault { return &Fault{Code: code} }
	p := StartProofs(Second, true, true)
	at := map[string]Boottime{}
	same := 0
	for now := Second; now < 3600*Second; now = p.Due() {
		random := uint32(now / ms * 7919)
		switch now {
		case p.SignInAt:
			if last := at["sign-in"]; last != 0 && now-last > rhythm.SignIn {
				t.Errorf("signed in after %d s", (now-last)/Second)
			}
			at["sign-in"] = now
			p = p.SignedIn(now, BMCSaysOn, true, nil, none, rhythm, random)
		case p.PingAt:
			at["ping"] = now
			p = p.Pinged(now, nil, rhythm, random)
		default:
			if last := at["outlets"]; last != 0 && now-last > rhythm.Outlets {
				t.Errorf("outlets read after %d s", (now-last)/Second)
			}
			at["outlets"] = now
			p = p.OutletsSeen(now, OutletsOn, LoadRuns, true, nil, nil, word, rhythm, random)
		}
		if same++; p.Due() > now {
			same = 0
		}
		if p.Due() < now || same > 2 { // all three may be due at once
			t.Fatalf("a check is due again at once, %d ms", now/ms)
		}
	}
	last := p.BMC.ProvenAt
	if proofs := p.At(last+rhythm.Fresh-1, rhythm, stale); proofs[0].Fault != nil {
		t.Error("stale too early")
	}
	if proofs := p.At(last+rhythm.Fresh, rhythm, stale); proofs[0].Fault == nil || proofs[0].Fault.Code != CodeStale || proofs[0].Fresh(last+rhythm.Fresh, rhythm) {
		t.Error("a proof counts longer than it should")
	}
	// What speaks against a path while the peer is heard counts the second time, and the second look comes soon.
	off := func() *Fault { return &Fault{Code: CodeSaysOff} }
	once := p.SignedIn(4000*Second, BMCSaysOff, true, nil, off, rhythm, 0)
	if once.BMC.Fault != nil || once.SignInAt != 4000*Second+rhythm.Again || once.SignedIn(4005*Second, BMCSaysOff, true, nil, off, rhythm, 0).BMC.Fault == nil ||
		once.SignedIn(4005*Second, BMCSaysOff, false, nil, off, rhythm, 0).BMC.Fault != nil {
		t.Errorf("off once: %+v", once.BMC)
	}
	once = p.OutletsSeen(4000*Second, OutletsOn, LoadNone, true, nil, nil, word, rhythm, 0)
	if once.Outlets.Fault != nil || once.OutletsAt != 4000*Second+rhythm.Again ||
		once.OutletsSeen(4005*Second, OutletsOn, LoadNone, true, nil, nil, word, rhythm, 0).Outlets.Fault == nil {
		t.Errorf("no power once: %+v", once.Outlets)
	}
	// A BMC that fell silent is pinged soon; alive again, it is signed in to at once, and only that proves it.
	dead := p.Pinged(5000*Second, &Fault{Code: CodeBMCSilent}, rhythm, 0)
	if dead.BMC.Fault == nil || dead.PingAt > 5000*Second+rhythm.Again {
		t.Errorf("%+v", dead.BMC)
	}
	alive := dead.Pinged(5005*Second, nil, rhythm, 0)
	if alive.BMC.Fault == nil || alive.SignInAt != 5005*Second {
		t.Errorf("alive is not proven: %+v", alive)
	}
}

// serve lets another PDU answer in place of the machine's.
func (m *machine) serve(t *testing.T, device *sim.PDU) {
	t.Helper()
	ln := listenTCP(t)
	m.pduAddress = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- device.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
