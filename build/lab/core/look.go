package core

import (
	"context"
	"fmt"
	"maps"
	"time"

	"duet/build/lab/control"
	"duet/build/lab/power"
)

// status is what the lab was told to be.
func (c *core) status(_ context.Context) (any, error) {
	s := control.Status{
		Name: c.cfg.Name, State: c.cfg.State, PID: c.cfg.PID, Seed: c.cfg.Seed, UpMS: time.Since(c.born).Milliseconds(),
		Machines: c.look(), Links: c.linkStates(), Drives: map[string]control.DriveState{}, BMC: map[string]string{},
	}
	for name, d := range c.drives {
		s.Drives[name] = d.State()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.Copy(s.BMC, c.bmcMode)
	s.PDU = c.pduMode
	for _, node := range []string{"a", "b"} {
		ch := c.machines[node].chassis
		if !ch.AC() {
			s.BMC[node] = "dead"
		}
		for i := range power.SuppliesPerNode {
			s.Outlets = append(s.Outlets, ch.Supplies[i].Outlet)
		}
	}
	return s, nil
}

// truth is what is so.
func (c *core) truth(_ context.Context) (any, error) {
	t := control.Truth{Name: c.cfg.Name, TimeMS: time.Since(c.born).Milliseconds(), Machines: c.look()}
	t.Events, t.Dropped = c.events.all()
	c.monitor.fill(&t)
	return t, nil
}

// look describes every machine from outside.
func (c *core) look() map[string]control.Machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]control.Machine{}
	for name, m := range c.machines {
		d := control.Machine{Power: m.power(), Boots: m.boots, Cause: m.cause, Resets: m.resets, ChassisOn: m.energised}
		if m.energised {
			d.BootID = m.bootID
		}
		if m.body != nil && m.energised {
			d.Services, d.PID = m.body.Services(), m.body.PID()
		}
		if isNode(name) {
			d.PSUs = map[string]control.PSU{}
			for i, s := range m.chassis.Supplies {
				d.PSUs[fmt.Sprintf("%s.%d", name, i+1)] = control.PSU{Cord: s.Cord, Outlet: outletOf(name, i) + 1, AC: s.Live()}
			}
		}
		if m.watchdog != nil {
			d.Watchdog = m.watchdog.State()
		}
		out[name] = d
	}
	return out
}

// power is the word for the machine's state.
func (m *machine) power() string {
	switch {
	case !m.energised:
		return "off"
	case m.crashed:
		return "crashed"
	case m.hung:
		return "hung"
	}
	return "on"
}

// linkStates shows the back-to-back cable, the switch between the nodes, and every port.
func (c *core) linkStates() map[string]string {
	c.wiring.Lock()
	defer c.wiring.Unlock()
	out := map[string]string{}
	for _, k := range []string{"mirror0", "lan"} {
		out[k] = "up"
		if c.wires[k] {
			out[k] = "cut"
		}
	}
	for _, name := range names {
		for _, p := range hardware[name] {
			switch key := name + "." + p.inner; {
			case c.wires[p.outer(name)]:
				out[key] = "cut"
			case !c.powered(name) || !c.wires.carrier(name, p, c.powered):
				out[key] = "no-carrier"
			default:
				out[key] = "up"
			}
		}
	}
	return out
}
