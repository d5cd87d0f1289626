package power

import "testing"

// TestChassis: what a sequence of hands on cords, outlets, button and BMC leaves.
func TestChassis(t *testing.T) {
	in, out := func(c Chassis) Chassis { return c.Cords(true) }, func(c Chassis) Chassis { return c.Cords(false) }
	outlet := func(s int, on bool) func(Chassis) Chassis {
		return func(c Chassis) Chassis { return c.SwitchOutlet(s, on) }
	}
	cord := func(s int, on bool) func(Chassis) Chassis {
		return func(c Chassis) Chassis { return c.Cord(s, on) }
	}
	on := []func(Chassis) Chassis{outlet(0, true), outlet(1, true), in, Chassis.Press}
	for _, tc := range []struct {
		name   string
		steps  []func(Chassis) Chassis
		ac, on bool
	}{
		{"plugged in and pressed", nil, true, true},
		{"cut", []func(Chassis) Chassis{out}, false, false},
		{"cut and plugged in again: restores", []func(Chassis) Chassis{out, in}, true, true},
		{"BMC off: standby stays", []func(Chassis) Chassis{Chassis.Off}, true, false},
		{"BMC off, cut, plugged in: stays off", []func(Chassis) Chassis{Chassis.Off, out, in}, true, false},
		{"BMC off, cut, pressed, plugged in: starts", []func(Chassis) Chassis{Chassis.Off, out, Chassis.Press, in}, true, true},
		{"one outlet off: the other supply carries", []func(Chassis) Chassis{outlet(0, false)}, true, true},
		{"one outlet off, the other cord pulled", []func(Chassis) Chassis{outlet(0, false), cord(1, false)}, false, false},
		{"both outlets off", []func(Chassis) Chassis{outlet(0, false), outlet(1, false)}, false, false},
		{"both outlets off, BMC off has nobody to hear it, on again", []func(Chassis) Chassis{outlet(0, false), outlet(1, false), Chassis.Off, outlet(1, true)}, true, true},
		{"outlet on while the cords are out", []func(Chassis) Chassis{out, outlet(0, false), outlet(0, true)}, false, false},
	} {
		var c Chassis
		for _, f := range append(append([]func(Chassis) Chassis{}, on...), tc.steps...) {
			c = f(c)
		}
		if c.AC() != tc.ac || c.On() != tc.on {
			t.Errorf("%s: AC %v, on %v; want %v, %v", tc.name, c.AC(), c.On(), tc.ac, tc.on)
		}
		if w := c.Watts(0) + c.Watts(1); (w > 0) != tc.ac || (w == wattsRunning) != tc.on {
			t.Errorf("%s: %d W", tc.name, w)
		}
	}
}
