package node

import (
	"context"
	"fmt"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
	"duet/ipmi/pdu"
)

// orderWait bounds how long an order waits to see its effect; it goes on being wanted after it.
const orderWait = 25 * time.Second

// serveAPI is the interface to people and programs of this node.
func (n *Node) serveAPI(ctx context.Context) error {
	l, err := api.Listen(ctx, n.runDirFile(apiSocket))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return api.NewServer(api.ServerConfig{
		Backend: n, Node: n.self.String(), Products: pdu.Names(), Log: n.log.With("subsystem", "api"),
	}).Serve(ctx, l)
}

// Setup tells how far founding has come.
func (n *Node) Setup(context.Context) (api.Setup, error) { return n.setup.show(), nil }

// Answer founds the site.
func (n *Node) Answer(ctx context.Context, answers site.Document, report func(api.Step)) error {
	return n.setup.answer(ctx, answers, report)
}

// StartVM makes a VM wanted and waits until it runs.
func (n *Node) StartVM(ctx context.Context, name string) error {
	vm, err := n.orderable(name)
	if err != nil {
		return err
	}
	if err := n.wish(vm, false); err != nil {
		return err
	}
	return n.awaitGuest(ctx, vm, true)
}

// StopVM makes a VM unwanted and ends it.
func (n *Node) StopVM(ctx context.Context, name string) error {
	vm, err := n.orderable(name)
	if err != nil {
		return err
	}
	if err := n.wish(vm, true); err != nil {
		return err
	}
	if err := n.vms.Kill(ctx, []string{vm.ID}); err != nil {
		return err
	}
	return n.awaitGuest(ctx, vm, false)
}

// orderable finds a VM that this node may be given orders for.
func (n *Node) orderable(name string) (site.VM, error) {
	doc, ok := n.document()
	if !ok {
		return site.VM{}, event.New(event.NotFounded, "node", n.self.String())
	}
	vm, ok := doc.VMByName(name)
	if !ok {
		return site.VM{}, event.New(event.UnknownVM, "vm", name)
	}
	st := n.driver.View().State
	id := membership.ResourceID(vm.Slot) //nolint:gosec // bounded by site.Check
	switch {
	case st.Mode != membership.Solo && !st.Committed():
		return vm, event.New(event.FrozenWaits, "node", n.self.String(), "waits_for", n.waitsFor(facts{view: n.driver.View(), founded: true}))
	case st.Committed() && !st.Owns(id):
		return vm, &api.OtherNodeError{Object: "VM " + name, Node: st.Rec.Owners[id].Node.String()}
	}
	return vm, nil
}

func (n *Node) wish(vm site.VM, stopped bool) error {
	if n.store.Runtime().StoppedVMs[vm.ID] == stopped {
		n.driver.Wake()
		return nil
	}
	return n.changeRuntime(func(r *site.Runtime) {
		if stopped {
			r.StoppedVMs[vm.ID] = true
		} else {
			delete(r.StoppedVMs, vm.ID)
		}
	})
}

func (n *Node) awaitGuest(ctx context.Context, vm site.VM, up bool) error {
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	err := await(ctx, func() (bool, error) {
		running, err := n.vms.Running()
		if err != nil {
			return false, nil
		}
		found := false
		for _, p := range running {
			found = found || p.ID == vm.ID
		}
		return found == up && !n.guests.isStarting(membership.ResourceID(vm.Slot)), nil //nolint:gosec // bounded by site.Check
	})
	if err != nil {
		what := "stop of VM " + vm.Name
		if up {
			what = "start of VM " + vm.Name
		}
		return event.New(event.DeadlinePassed, "what", what, "seconds", fmt.Sprint(int(orderWait.Seconds())))
	}
	return nil
}
