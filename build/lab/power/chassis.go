// Package power is the physics of a node's power: two power supplies, each with a cord in an outlet, a BMC that lives
// on standby power, and a main switch that the BMC and the button turn. Values in, values out; nothing is done here.
//
// The main switch remembers itself over a loss of AC, as a server set to "restore previous state" does: a node that
// was on when the cords were pulled starts when they are back; one that the BMC had switched off stays off. An IPMI
// "off" leaves standby power and so the BMC; a pulled cord or a switched-off outlet does not: without AC there is no
// BMC to ask, which is the most important scenario of all (lab.md section 5).
package power

// SuppliesPerNode is two: PSU 1 and 2.
const SuppliesPerNode = 2

// Watts that the load model gives each fed supply together: a running node, and a BMC alone.
const (
	wattsRunning = 180
	wattsStandby = 12
)

// Supply is one power supply.
type Supply struct {
	Cord   bool // plugged into its outlet
	Outlet bool // the outlet is switched on
}

// Live says whether the supply has AC.
func (s Supply) Live() bool { return s.Cord && s.Outlet }

// Chassis is the power state of one node.
type Chassis struct {
	Supplies [SuppliesPerNode]Supply
	main     bool // the main switch, meaningful with AC
	resume   bool // what the main switch becomes when AC returns
}

// AC says whether any supply is fed: then the BMC lives.
func (c Chassis) AC() bool { return c.Supplies[0].Live() || c.Supplies[1].Live() }

// On says whether the node itself has power.
func (c Chassis) On() bool { return c.AC() && c.main }

// settle applies a change of the supplies: losing AC remembers the switch, getting it back restores it.
func (c Chassis) settle(had bool) Chassis {
	switch has := c.AC(); {
	case had && !has:
		c.resume, c.main = c.main, false
	case !had && has:
		c.main = c.resume
	}
	return c
}

// Cords plugs in or pulls all cords.
func (c Chassis) Cords(in bool) Chassis {
	had := c.AC()
	for i := range c.Supplies {
		c.Supplies[i].Cord = in
	}
	return c.settle(had)
}

// Cord plugs in or pulls one cord.
func (c Chassis) Cord(supply int, in bool) Chassis {
	had := c.AC()
	c.Supplies[supply].Cord = in
	return c.settle(had)
}

// SwitchOutlet is the outlet of one supply switched.
func (c Chassis) SwitchOutlet(supply int, on bool) Chassis {
	had := c.AC()
	c.Supplies[supply].Outlet = on
	return c.settle(had)
}

// Press is the power button or the BMC's "on". Without AC nothing happens now; a finger on the button waits for it,
// so the node starts as soon as AC is there.
func (c Chassis) Press() Chassis {
	c.resume = true
	if c.AC() {
		c.main = true
	}
	return c
}

// Off is the BMC's "off". Without AC there is no BMC to say it.
func (c Chassis) Off() Chassis {
	if c.AC() {
		c.main, c.resume = false, false
	}
	return c
}

// Watts is what one supply draws.
func (c Chassis) Watts(supply int) int {
	if !c.Supplies[supply].Live() {
		return 0
	}
	total := wattsStandby
	if c.main {
		total = wattsRunning
	}
	if c.Supplies[0].Live() && c.Supplies[1].Live() {
		return total / SuppliesPerNode
	}
	return total
}
