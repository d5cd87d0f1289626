package explore

import (
	"fmt"

	m "duet/appliance/membership"
)

// Begin is the first state of the world. Everything but FromFresh is reached from it by the core itself, with an
// environment that does no harm; then one VM is given to b, so that each node owns one.
func (p *Params) Begin() (World, error) {
	var w World
	for i := range w.N {
		w.N[i].Core.Cfg, w.N[i].Clock = config(m.Node(i)), clockBase
		w.Net.Learned[i] = true
	}
	if p.Start != FromFresh {
		mutated := unmutated()
		err := p.found(&w)
		mutated()
		if err != nil {
			return w, fmt.Errorf("world %s begins: %w", p.Name, err)
		}
	}
	for i := range w.N {
		w.N[i].Core.Cfg = config(m.Node(i))
	}
	if p.Budget.Copies > 0 {
		w.beginDatabase()
	}
	w.Left = p.Budget
	w.Drift = 0
	Canonical(&w)
	return w, nil
}

func (p *Params) found(w *World) error {
	calm := Params{Name: p.Name, Witness: true, Link: true, Beats: true, NoRun: true}
	w.Left = Budget{Session: 1}
	if err := calm.settle(w); err != nil {
		return err
	}
	for i := range w.N {
		n := &w.N[i]
		n.Disk.Owners[2] = m.Owner{Node: m.B, Version: 2}
		n.Core.Rec = n.Disk
		n.Grant.Owners = n.Disk.Owners
	}
	calm.NoRun = p.NoRun
	if err := calm.settle(w); err != nil {
		return err
	}
	switch p.Start {
	case FromPowerless:
		w.crash(m.A)
		w.crash(m.B)
	case FromSolo:
		w.crash(m.B)
		calm.Link = false
		return calm.settle(w)
	case FromFence:
		w.Left.Arbiter = 1
		return calm.settle(w)
	default: // the others as below
	}
	return nil
}

// settle lets everything happen that needs no fault, in a fixed order, until nothing more does.
func (p *Params) settle(w *World) error {
	p2 := *p
	p2.Start = FromFresh // allows the founding
	for range 500 {
		var next *Action
		for _, a := range p2.Actions(w, nil) {
			if a.Kind == ActBoot && p.settled(w, a.Node) {
				continue
			}
			next = &a
			break
		}
		if next == nil {
			return nil
		}
		if err := p2.Apply(w, *next); err != nil {
			return fmt.Errorf("%v: %w", *next, err)
		}
	}
	return fmt.Errorf("it does not come to rest")
}

// settled: a node that lies crashed beside a living one stays so.
func (p *Params) settled(w *World, id m.Node) bool { return !p.Link && w.N[id.Peer()].Up }
