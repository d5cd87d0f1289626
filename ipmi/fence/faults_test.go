package fence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"duet/ipmi/sim"
)

// Proves: X-12. Each fault of BMC and PDU, what it comes to, and what a person reads.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		bmc     sim.BMCFaults
		pdu     sim.PDUFaults
		dead    bool // the BMC has no AC
		change  func(*Config)
		kind    Kind
		verdict Verdict
		code    string
	}{
		{"wrong password, outlets do it", sim.BMCFaults{Password: "other"}, sim.PDUFaults{}, false, nil, OutletsOff, Confirmed, ""},
		{"wrong password, no outlets", sim.BMCFaults{Password: "other"}, sim.PDUFaults{}, false, noPDU, NoKind, Unknown, CodeBMCLogin},
		{"BMC mute, outlets do it", sim.BMCFaults{Mute: true}, sim.PDUFaults{}, false, nil, OutletsOff, Confirmed, ""},
		{"BMC mute, no outlets", sim.BMCFaults{Mute: true}, sim.PDUFaults{}, false, noPDU, NoKind, Unknown, CodeBMCSilent},
		{"BMC refuses to switch, outlets do it", sim.BMCFaults{Refuse: true}, sim.PDUFaults{}, false, nil, OutletsOff, Confirmed, ""},
		{"BMC ignores off, no outlets", sim.BMCFaults{OffIgnored: true}, sim.PDUFaults{}, false, noPDU, BMCOff, Refused, CodeStaysOn},
		{"BMC is slow to switch", sim.BMCFaults{OffLate: 2 * time.Second}, sim.PDUFaults{}, false, nil, BMCOff, Confirmed, ""},
		{"BMC answers slowly", sim.BMCFaults{Slow: 100 * time.Millisecond}, sim.PDUFaults{}, false, nil, BMCOff, Confirmed, ""},
		{"no way: BMC dead, PDU mute", sim.BMCFaults{}, sim.PDUFaults{Mute: true}, true, nil, NoKind, Unknown, CodeBMCSilent},
		{"PDU answers too late", sim.BMCFaults{}, sim.PDUFaults{Late: 1500 * time.Millisecond}, true, nil, NoKind, Unknown, CodeBMCSilent},
		{"PDU cuts its answers short", sim.BMCFaults{}, sim.PDUFaults{Truncate: true}, true, nil, NoKind, Unknown, CodeBMCSilent},
		{"PDU answers another question", sim.BMCFaults{}, sim.PDUFaults{WrongID: true}, true, nil, NoKind, Unknown, CodeBMCSilent},
		{"PDU rejects", sim.BMCFaults{}, sim.PDUFaults{Exception: 4}, true, nil, NoKind, Unknown, CodeBMCSilent},
		{"one relay is stuck", sim.BMCFaults{}, sim.PDUFaults{Stuck: []int{4}}, true, nil, OutletsOff, Refused, CodeStaysOn},
		{"PDU is another device", sim.BMCFaults{}, sim.PDUFaults{Identity: 99}, true, onlyPDU, NoKind, Unknown, CodePDUIdentity},
		{"outlets were never proven", sim.BMCFaults{}, sim.PDUFaults{}, true, unproven, NoKind, Unknown, CodeMapUnproven},
		{"outlet that the PDU does not have", sim.BMCFaults{}, sim.PDUFaults{}, true, func(c *Config) { onlyPDU(c); c.Target.Outlets = []int{3, 9} }, NoKind, Unknown, CodePDUOutlet},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.bmc.SetFaults(test.bmc)
			m.pdu.SetFaults(test.pdu)
			if test.dead {
				m.cut()
			}
			r := m.runner(t, func(c *Config) {
				if test.change != nil {
					test.change(c)
				}
			})
			start := time.Now()
			e := r.Run(t.Context(), Request{Run: 1, Epoch: 1})
			expect(t, e, test.kind, test.verdict, test.code)
			if took := time.Since(start); took > 10500*time.Millisecond {
				t.Errorf("took %s", took)
			}
			if e.Verdict == Confirmed && m.Powered() {
				t.Error("confirmed, and the node runs")
			}
			if e.Fault != nil && (e.Fault.What == "" || e.Fault.Why == "" || e.Fault.Next == "" || strings.Contains(e.Fault.Error(), password)) {
				t.Errorf("a person reads: %v", e.Fault)
			}
		})
	}
}

func noPDU(c *Config)    { c.Target.PDU, c.Target.Outlets = nil, nil }
func onlyPDU(c *Config)  { c.Target.BMC = nil }
func unproven(c *Config) { c.Target.BMC = nil; c.Target.OutletsProven = false }

// A wrong password costs one login, however often the core asks.
func TestWrongPasswordIsNotRepeated(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.bmc.SetFaults(sim.BMCFaults{Password: "other"})
	r := m.runner(t, noPDU)
	for range 5 {
		expect(t, r.Run(t.Context(), Request{}), NoKind, Unknown, CodeBMCLogin)
	}
	if got := m.bmc.Logins(); got != 1 {
		t.Errorf("%d logins", got)
	}
}

// A PDU that was late once answers right the next time: a late answer does not poison the calls after it.
func TestLatePDURecovers(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.cut()
	r := m.runner(t)
	m.pdu.SetFaults(sim.PDUFaults{Late: 1200 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	expect(t, r.Run(ctx, Request{}), NoKind, Unknown, "")
	m.pdu.SetFaults(sim.PDUFaults{})
	expect(t, r.Run(t.Context(), Request{}), OutletsOff, Confirmed, "")
}

// A Run does not wait for people who look, nor for a node that is being switched on.
func TestRunGoesFirst(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	r := m.runner(t)
	m.PowerOff()
	m.bmc.SetMute(true)
	on, status := make(chan error, 1), make(chan Status, 1)
	go func() { on <- r.PowerOn(t.Context()) }()
	go func() { status <- r.Status(t.Context()) }()
	deadline := time.Now().Add(5 * time.Second)
	for r.waiting() < 2 {
		if time.Now().After(deadline) {
			t.Fatal("they do not wait")
		}
		<-time.After(time.Millisecond)
	}
	m.bmc.SetMute(false)
	expect(t, r.Run(t.Context(), Request{}), BMCOff, Confirmed, "")
	if err := <-on; !errors.Is(err, context.Canceled) {
		t.Errorf("power on: %v", err)
	}
	<-status
}

func (r *Runner) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.yielding)
}

func TestStatus(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	r := m.runner(t)
	show := func() string {
		var words []string
		for _, p := range r.Status(t.Context()).Paths {
			code := "-"
			if p.Fault != nil {
				code = p.Fault.Code
			}
			words = append(words, fmt.Sprintf("%s %s %v %s %v", p.Kind, p.State, p.Proven, code, !p.Checked.IsZero()))
		}
		return strings.Join(words, "; ")
	}
	if got, want := show(), "bmc on true - true; outlets on true - true"; got != want {
		t.Errorf("healthy: %s", got)
	}
	m.cut()
	m.pdu.Press(3, false)
	if got, want := show(), "bmc unknown false FENCE-5012 true; outlets mixed true - true"; got != want {
		t.Errorf("cut, one outlet off: %s", got)
	}
	if text, err := json.Marshal(m.target()); err != nil || strings.Contains(string(text), password) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestCheck(t *testing.T) {
	base := func() (Target, Target) {
		a := Target{Node: A, BMC: &BMCConfig{Address: "192.0.2.11"}, PDU: &PDUConfig{Address: "192.0.2.21:502", Product: "netio"}, Outlets: []int{1, 2}}
		b := Target{Node: B, BMC: &BMCConfig{Address: "192.0.2.12"}, PDU: &PDUConfig{Address: "192.0.2.21", Product: "netio"}, Outlets: []int{3, 4}}
		return a, b
	}
	for name, test := range map[string]struct {
		change func(a, b *Target)
		code   string
	}{
		"as it should be":      {func(a, b *Target) {}, ""},
		"an outlet feeds both": {func(a, b *Target) { b.Outlets = []int{2, 4} }, CodeSharedOutlet},
		"another PDU":          {func(a, b *Target) { b.Outlets = []int{1, 2}; b.PDU.Address = "192.0.2.22" }, ""},
		"one BMC for both":     {func(a, b *Target) { b.BMC.Address = "192.0.2.11:623" }, CodeSharedBMC},
		"one system for both": {func(a, b *Target) {
			a.BMC.GUID, b.BMC.GUID = strings.Repeat("ab", 16), strings.Repeat("AB", 16)
		}, CodeSharedBMC},
		"an outlet feeds the PDU":    {func(a, b *Target) { b.PDU.Reserved = []int{4} }, CodeReserved},
		"shared supplies":            {func(a, b *Target) { a.SharedPSUs = true }, CodeSharedPSUs},
		"shared, and no outlets":     {func(a, b *Target) { a.SharedPSUs, a.Outlets, b.SharedPSUs, b.Outlets = true, nil, true, nil }, ""},
		"a supply without an outlet": {func(a, b *Target) { a.PSUs = 3 }, CodeUncovered},
		"coils nobody saw":           {func(a, b *Target) { a.PDU.Product, b.PDU.Product = "xerus", "xerus" }, CodeNoMap},
		"it only measures":           {func(a, b *Target) { a.PDU.Product, b.PDU.Product = "eaton", "eaton" }, CodeNoMap},
		"a number it does not have":  {func(a, b *Target) { a.PDU.Numbers = map[string]uint16{"x": 1} }, CodeBadConfig},
		"the site's own numbers": {func(a, b *Target) {
			own := map[string]uint16{"switch.base": 0, "switch.stride": 1, "read.base": 0, "read.stride": 1}
			a.PDU.Product, b.PDU.Product, a.PDU.Numbers, b.PDU.Numbers = "xerus", "xerus", own, own
		}, ""},
		"an outlet twice":    {func(a, b *Target) { b.Outlets = []int{3, 3} }, CodeBadConfig},
		"outlet 0":           {func(a, b *Target) { b.Outlets = []int{0} }, CodeBadConfig},
		"outlets, no PDU":    {func(a, b *Target) { b.PDU = nil }, CodeBadConfig},
		"GUID is not a GUID": {func(a, b *Target) { b.BMC.GUID = "b" }, CodeBadConfig},
	} {
		a, b := base()
		test.change(&a, &b)
		err := Check(a, b)
		got := ""
		if fault, ok := asFault(err); ok {
			got = fault.Code
		}
		if got != test.code || (err != nil) != (test.code != "") {
			t.Errorf("%s: %v, want %q", name, err, test.code)
		}
	}
}
