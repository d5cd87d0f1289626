// Package scenario plays whole episodes in the lab, with real daemons, and judges them by oracles that share no code
// with the product: power cuts of either node, cut links, a stopped witness, killed daemons, under block load and
// with a counting guest.
//
// An episode does something to the hardware, waits for states (never for times), and ends when the site is paired
// again with every leg in sync. Then the verdict: nothing acknowledged is missing (the probe's log against the export,
// the guest's console across nodes), nothing ran twice (the lab's own monitor), both legs are byte-identical (read
// from outside the product). Timings are measured and reported; they decide nothing here except in the demo, whose
// targets are part of its promise.
//
// A verdict that cannot be reached is a failure: an oracle that could not read is never taken for a pass.
package scenario
