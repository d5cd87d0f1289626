package fence

import (
	"context"
	"errors"
	"flag"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/ipmi/bmc"
	"duet/ipmi/sim"
)

// The tests wait for simulated hardware and hardly compute, so they wait side by side.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "64"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// machine is a node with two power supplies, a BMC that lives while one of them has AC, and a PDU of eight outlets.
type machine struct {
	mu     sync.Mutex
	runs   bool
	pulled bool         // both cords are out
	ac     map[int]bool // by outlet
	feeds  []int        // the outlets that really feed it
	extra  float64      // something else draws this much from each of its outlets

	bmc        *sim.BMC
	pdu        *sim.PDU
	bmcAddress string
	pduAddress string
}

const user, password = "fence", "not-a-secret"

var peerGUID = bmc.GUID{0xb0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

func newMachine(t *testing.T, feeds ...int) *machine {
	t.Helper()
	if len(feeds) == 0 {
		feeds = []int{3, 4}
	}
	m := &machine{runs: true, ac: make(map[int]bool), feeds: feeds}
	for i := 1; i <= 8; i++ {
		m.ac[i] = true
	}
	var err error
	if m.bmc, err = sim.NewBMC(sim.BMCConfig{User: user, Password: password, GUID: peerGUID, Chassis: m}); err != nil {
		t.Fatal(err)
	}
	if m.pdu, err = sim.NewPDU(sim.PDUConfig{Product: "netio", Outlets: 8, SetOutlet: m.setOutlet, Watts: m.watts}); err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.bmcAddress, m.pduAddress = udp.LocalAddr().String(), tcp.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() {
		if err := m.bmc.Serve(ctx, udp); err != nil {
			t.Error(err)
		}
	})
	served.Go(func() {
		if err := m.pdu.Serve(ctx, tcp); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); served.Wait() })
	return m
}

func (m *machine) Powered() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.runs }

func (m *machine) PowerOn() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs = m.hasAC()
	return nil
}

func (m *machine) PowerOff() error { m.mu.Lock(); defer m.mu.Unlock(); m.runs = false; return nil }

func (m *machine) hasAC() bool {
	for _, outlet := range m.feeds {
		if m.ac[outlet] && !m.pulled {
			return true
		}
	}
	return false
}

func (m *machine) setOutlet(outlet int, on bool) {
	m.mu.Lock()
	m.ac[outlet] = on
	alive := m.hasAC()
	m.runs = m.runs && alive
	m.mu.Unlock()
	m.bmc.SetAlive(alive)
}

// watts is what one outlet gives: two supplies share the load; a node that is off draws 6 W at each.
func (m *machine) watts(outlet int) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case !slices.Contains(m.feeds, outlet) || m.pulled:
		return m.extra
	case m.runs:
		return 90 + m.extra
	default:
		return 6 + m.extra
	}
}

// cut pulls both cords: the node and its BMC are gone, the outlets stay on.
func (m *machine) cut() {
	m.mu.Lock()
	m.runs, m.pulled = false, true
	m.mu.Unlock()
	m.bmc.SetAlive(false)
}

// plug puts the cords back.
func (m *machine) plug() {
	m.mu.Lock()
	m.pulled = false
	alive := m.hasAC()
	m.mu.Unlock()
	m.bmc.SetAlive(alive)
}

func (m *machine) target() Target {
	return Target{
		Node: B, OutletsProven: true, Outlets: []int{3, 4},
		BMC: &BMCConfig{Address: m.bmcAddress, User: user, Password: password, GUID: peerGUID.String()},
		PDU: &PDUConfig{Address: m.pduAddress, Product: "netio"},
	}
}

func (m *machine) runner(t *testing.T, change ...func(*Config)) *Runner {
	t.Helper()
	cfg := Config{Target: m.target()}
	for _, f := range change {
		f(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.pace.meter, r.pace.state = 50*time.Millisecond, 3*time.Second
	r.pace.autoOn, r.pace.silent, r.pace.silentProbe = 200*time.Millisecond, 2*time.Second, 300*time.Millisecond
	t.Cleanup(func() { r.Close() })
	return r
}

func expect(t *testing.T, e Evidence, kind Kind, verdict Verdict, code string) {
	t.Helper()
	got := ""
	if e.Fault != nil {
		got = e.Fault.Code
	}
	if e.Kind != kind || e.Verdict != verdict || got != code {
		t.Errorf("evidence %s %s (%s) %v, want %s %s %s", e.Verdict, e.Kind, e.Why, e.Fault, verdict, kind, code)
	}
}

func TestBMCSwitchesOff(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	e := m.runner(t).Run(t.Context(), Request{Run: 7, Epoch: 57})
	expect(t, e, BMCOff, Confirmed, "")
	if e.Node != B || e.Run != 7 || e.Epoch != 57 || e.At == 0 || e.Raw == [32]byte{} {
		t.Errorf("%+v", e)
	}
	if m.Powered() {
		t.Error("the node runs")
	}
	if m.pdu.Writes() != 0 {
		t.Error("the outlets were switched")
	}
}

func TestOffAlreadySwitchesNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.PowerOff()
	m.bmc.SetFaults(sim.BMCFaults{Refuse: true})
	expect(t, m.runner(t).Run(t.Context(), Request{}), BMCOff, Confirmed, "")
}

// Both cords are out, so the BMC is dead: the most important case of all (lab.md section 5).
func TestOutletsWhenTheBMCIsDead(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.cut()
	start := time.Now()
	expect(t, m.runner(t).Run(t.Context(), Request{}), OutletsOff, Confirmed, "")
	if m.pdu.Outlet(3) || m.pdu.Outlet(4) || !m.pdu.Outlet(1) {
		t.Error("wrong outlets")
	}
	if took := time.Since(start); took < 3*time.Second {
		t.Errorf("took %s; outlets begin at 2 s and count after 1 s", took)
	}
}

func TestStrangerSwitchesNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.bmc.SetFaults(sim.BMCFaults{WrongGUID: true})
	expect(t, m.runner(t).Run(t.Context(), Request{}), NoKind, Unknown, CodeWrongBMC)
	own := m.runner(t, func(c *Config) { c.OwnGUID = peerGUID.String(); c.Target.BMC.GUID = "" })
	m.bmc.SetFaults(sim.BMCFaults{})
	expect(t, own.Run(t.Context(), Request{}), NoKind, Unknown, CodeWrongBMC)
	if !m.Powered() || m.pdu.Writes() != 0 {
		t.Error("something was switched")
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.bmc.SetMute(true)
	r := m.runner(t)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	expect(t, r.Run(ctx, Request{}), NoKind, Unknown, "")
	if m.pdu.Writes() != 0 {
		t.Error("something was switched")
	}
}

func TestLiveTestAndPowerOn(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	r := m.runner(t, func(c *Config) { c.Target.OutletsProven = false; c.Target.BMC.GUID = "" })
	var steps []string
	result, err := r.LiveTest(t.Context(), nil, func(step string) { steps = append(steps, step) })
	if err != nil {
		t.Fatalf("%v after %q", err, steps)
	}
	t.Logf("%+v", result)
	if !result.BMCProven || !result.OutletsProven || result.GUID != peerGUID.String() || len(steps) != 12 || !m.Powered() ||
		result.Load != (LearnedLoad{true, 0, 12}) || result.PDU != "8 outlets" || result.Firmware == "" {
		t.Errorf("%+v; steps %q; powered %v", result, steps, m.Powered())
	}
	m.cut()
	expect(t, r.Run(t.Context(), Request{}), LoadGone, Confirmed, "") // proven and learned by the test
	m.plug()
	if err := r.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !m.Powered() || !m.pdu.Outlet(3) || !m.pdu.Outlet(4) {
		t.Error("not on")
	}
}

// The live test is what finds power cords in the wrong outlets; and it gives the power back.
func TestLiveTestFindsCrossedOutlets(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 5, 6)
	r := m.runner(t, func(c *Config) { c.Target.OutletsProven = false })
	_, err := r.LiveTest(t.Context(), nil, nil)
	var fault *Fault
	if !errors.As(err, &fault) || fault.Code != CodeCrossed {
		t.Fatalf("crossed outlets: %v", err)
	}
	if !m.pdu.Outlet(3) || !m.pdu.Outlet(4) || !m.Powered() {
		t.Error("the power was not given back")
	}
}

// A BMC that was exchanged is taken by a person's word and a test: the node must go with it, and what fails changes
// nothing. The own BMC is never taken for it.
func TestLiveTestTakesANewBMC(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.bmc.SetFaults(sim.BMCFaults{WrongGUID: true})
	own := func(c *Config) { c.OwnGUID = "a0000000000000000000000000000000" }
	r := m.runner(t, own)
	refused := func(what string, r *Runner, exchanged *NewBMC) {
		t.Helper()
		_, err := r.LiveTest(t.Context(), exchanged, nil)
		var fault *Fault
		if !errors.As(err, &fault) || fault.Code != CodeWrongBMC || r.recordedGUID() != r.cfg.Target.BMC.GUID || !m.Powered() {
			t.Errorf("%s: %v, recorded %s, powered %v", what, err, r.recordedGUID(), m.Powered())
		}
	}
	refused("nobody says that it is new", r, nil)
	refused("the node goes on", r, &NewBMC{Gone: func() bool { return false }})
	gone := &NewBMC{Gone: func() bool { return !m.Powered() }}
	refused("this node knows no GUID of its own", m.runner(t), gone)
	result, err := r.LiveTest(t.Context(), gone, nil)
	if err != nil || result.GUID == "" || result.GUID == peerGUID.String() || r.recordedGUID() != result.GUID {
		t.Fatalf("%+v, %v, recorded %s", result, err, r.recordedGUID())
	}
	refused("it is this node's own", m.runner(t, func(c *Config) { c.OwnGUID = result.GUID }), gone)
	expect(t, r.Run(t.Context(), Request{Run: 1, Epoch: 1}), BMCOff, Confirmed, "")
}

// Cords that were moved after the map was proven: the test that finds it takes the proof away, so that no silence of the
// BMC makes evidence of those outlets. A test that was ended shows nothing.
func TestLiveTestTakesTheProofAway(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 5, 6)
	r := m.runner(t)
	ctx, cancel := context.WithCancel(t.Context())
	result, err := r.LiveTest(ctx, nil, func(step string) {
		if step == "BMC falls silent" {
			cancel()
		}
	})
	if err == nil || result.OutletsWrong || !r.outletsProven() {
		t.Errorf("a test that was ended: %+v, %v, proven %v", result, err, r.outletsProven())
	}
	result, err = r.LiveTest(t.Context(), nil, nil)
	var fault *Fault
	if !errors.As(err, &fault) || fault.Code != CodeCrossed || !result.OutletsWrong || r.outletsProven() {
		t.Fatalf("crossed outlets: %+v, %v, proven %v", result, err, r.outletsProven())
	}
	r.Learn(true, LearnedLoad{}, "") // a document from before the test, changed for another reason
	m.bmc.SetMute(true)
	if e := r.Run(t.Context(), Request{Run: 1, Epoch: 1}); e.Verdict == Confirmed || !m.Powered() {
		t.Errorf("%s by %s while the node runs", e.Verdict, e.Kind)
	}
	r.Learn(false, LearnedLoad{}, "")
	if r.Learn(true, LearnedLoad{}, ""); !r.outletsProven() {
		t.Error("a proof that was recorded later does not count")
	}
}

var learned = LearnedLoad{Known: true, OffWatts: 0, StandbyWatts: 12}

// A welded relay reads off and feeds on: metered, it is found out (LoadGone refused); the node may still run.
func TestWeldedRelay(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.bmc.SetMute(true)
	m.pdu.SetFaults(sim.PDUFaults{Lying: []int{4}})
	r := m.runner(t, func(c *Config) { c.Target.Load = learned })
	e := r.Run(t.Context(), Request{})
	expect(t, e, LoadGone, Refused, CodeStaysOn)
	if e.Seen.Load != Refused || e.Policy(false).StartResources {
		t.Errorf("%+v", e.Seen)
	}
}

// A BMC that lies "off" is caught by what the node draws.
func TestLyingBMC(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.bmc.SetFaults(sim.BMCFaults{Lie: sim.SaysOff})
	r := m.runner(t, func(c *Config) { c.Target.Load = learned })
	e := r.Run(t.Context(), Request{Means: ByBMC, Until: now() + 6*Second})
	expect(t, e, NoKind, Unknown, CodeContradiction)
	if !e.Seen.Contradiction || e.Policy(false).WitnessLess {
		t.Errorf("%+v", e.Seen)
	}
	// With the right to switch the outlets it ends well: they take the power, and the meters say so.
	expect(t, r.Run(t.Context(), Request{}), BMCOff, Confirmed, "")
	if m.Powered() {
		t.Error("it runs")
	}
}

// In turns: beside its turn a node looks, in its turn it switches, and only by what the turn allows.
func TestInTurn(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	r := m.runner(t)
	e := r.InTurn(t.Context(), Request{Run: 1}, now()-Second, false)
	if e.Verdict == Confirmed || !m.Powered() || m.pdu.Writes() != 0 {
		t.Errorf("beside its turn: %+v", e)
	}
	expect(t, r.InTurn(t.Context(), Request{Run: 2}, now()-5*Second, false), BMCOff, Confirmed, "") // waits for its turn at 8 s
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	m.bmc.SetMute(true)
	e = r.InTurn(t.Context(), Request{Run: 3}, now(), true)
	if e.Verdict != Unknown || m.pdu.Writes() != 0 {
		t.Errorf("by BMC alone: %+v, %d writes", e, m.pdu.Writes())
	}
	expect(t, r.InTurn(t.Context(), Request{Run: 4}, now()-17*Second, true), OutletsOff, Confirmed, "")
}

// After a run that confirmed nothing the next ones only look (P7); what the look finds counts.
func TestPauseBetweenRuns(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.bmc.SetFaults(sim.BMCFaults{OffIgnored: true})
	r := m.runner(t, noPDU)
	expect(t, r.Run(t.Context(), Request{}), BMCOff, Refused, CodeStaysOn)
	m.bmc.SetFaults(sim.BMCFaults{})
	e := r.Run(t.Context(), Request{})
	if e.Verdict == Confirmed || !m.Powered() {
		t.Errorf("switched within the pause: %+v", e)
	}
	expect(t, r.Run(t.Context(), Request{Epoch: 1}), BMCOff, Confirmed, "") // another loss has no pause
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	m.bmc.SetFaults(sim.BMCFaults{OffIgnored: true})
	expect(t, r.Run(t.Context(), Request{Epoch: 1}), BMCOff, Refused, CodeStaysOn)
	if err := m.PowerOff(); err != nil {
		t.Fatal(err)
	}
	expect(t, r.Run(t.Context(), Request{Epoch: 1}), BMCOff, Confirmed, "")
}

// Outlets that a run left off are given back when the node is there again, and others are left as people set them.
func TestGiveBack(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	r := m.runner(t)
	m.pdu.Press(3, false)
	if err := r.GiveBack(t.Context()); err != nil || m.pdu.Outlet(3) {
		t.Errorf("an outlet that a person switched off: on %v, %v", m.pdu.Outlet(3), err)
	}
	m.bmc.SetMute(true)
	m.pdu.SetFaults(sim.PDUFaults{Stuck: []int{4}})
	if e := r.Run(t.Context(), Request{}); e.Verdict == Confirmed || m.pdu.Outlet(3) {
		t.Errorf("%+v", e)
	}
	m.pdu.SetFaults(sim.PDUFaults{})
	if err := r.GiveBack(t.Context()); err != nil || !m.pdu.Outlet(3) || !m.pdu.Outlet(4) {
		t.Errorf("not given back: %v", err)
	}
}

func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}
