package core

import "duet/build/lab/power"

// The load model of the PDU's meters: what makes a node's outlets different from nothing, and a running node from one
// that is off. The numbers are those of a small server; nothing may depend on them but that they differ.
const (
	runningWatts = 180 // of a node, shared by its live supplies
	standbyWatts = 14  // its BMC and fans
)

// watts is what flows through outlet number n, from 1.
func (c *core) watts(n int) float64 {
	node, supply := "a", n-1
	if supply >= power.SuppliesPerNode {
		node, supply = "b", supply-power.SuppliesPerNode
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.machines[node]
	if m == nil || !m.chassis.Supplies[supply].Live() {
		return 0
	}
	live := 0.0
	for _, s := range m.chassis.Supplies {
		if s.Live() {
			live++
		}
	}
	if m.energised {
		return runningWatts / live
	}
	return standbyWatts / live
}
