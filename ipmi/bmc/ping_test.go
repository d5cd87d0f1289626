package bmc

import (
	"strings"
	"testing"
	"time"

	"duet/ipmi/sim"
)

// The ping and the inspection, against our simulator and against OpenIPMI's.
func TestPingAndInspect(t *testing.T) {
	ours, _, _ := embedded(t)
	for name, address := range map[string]string{"embedded": ours, "OpenIPMI": openipmi(t)} {
		c, err := New(Config{Address: address, User: user, Password: password})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.Ping(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		report, err := c.Inspect(t.Context())
		if err != nil || report.GUID != guid || report.State != On || !strings.Contains(report.Firmware, ".") {
			t.Errorf("%s: %+v, %v", name, report, err)
		}
	}
}

// A role that was reduced is found by signing in as a fencing would; new firmware shows; a dead BMC does not pong.
func TestInspectFinds(t *testing.T) {
	address, b, _ := embedded(t)
	c, err := New(Config{Address: address, User: user, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	before, err := c.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.SetFaults(sim.BMCFaults{Firmware: 7})
	if after, err := c.Inspect(t.Context()); err != nil || after.Firmware == before.Firmware {
		t.Errorf("%q then %q, %v", before.Firmware, after.Firmware, err)
	}
	b.SetFaults(sim.BMCFaults{RoleUser: true})
	if _, err := c.Inspect(t.Context()); failure(err) != RoleRefused {
		t.Errorf("role reduced: %v", err)
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Errorf("it is alive all the same: %v", err)
	}
	b.SetAlive(false)
	start := time.Now()
	if err := c.Ping(t.Context()); failure(err) != NoAnswer || time.Since(start) > 3*time.Second {
		t.Errorf("dead: %v after %s", err, time.Since(start))
	}
}

func failure(err error) Class {
	if e, ok := AsError(err); ok {
		return e.Class
	}
	return Other
}
