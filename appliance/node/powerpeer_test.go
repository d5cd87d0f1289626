package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
	"duet/ipmi/fence"
	"duet/ipmi/pdu"
	"duet/ipmi/sim"
)

// outletsOff is a node whose peer has its two outlets off, by a live test or a fencing.
func outletsOff(t *testing.T) (*Node, *sim.PDU) {
	t.Helper()
	device, err := sim.NewPDU(sim.PDUConfig{Product: "netio", Outlets: 8})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { defer close(served); _ = device.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-served })

	doc := site.Document{PDU: &site.PDU{Address: l.Addr().String(), Product: "netio"}}
	doc.Nodes.B.Outlets = []site.Outlet{{Outlet: 3}, {Outlet: 4}}
	f, err := newFencer(doc, membership.A, site.Runtime{}, newFaults(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	off, err := pdu.New(pdu.Config{Address: l.Addr().String(), Product: "netio"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(off.Switch(t.Context(), []int{3, 4}, false), off.Close()); err != nil {
		t.Fatal(err)
	}
	n := newPlant(t).booted()
	f.latched = func() (site.Latch, bool) { return n.latchOf("b") }
	n.mu.Lock()
	n.fencer = f
	n.mu.Unlock()
	return n, device
}

// A latch that is set while the peer is being given its power ends that before it is believed to be set: a person may say
// next that the peer is off and stays off. The PDU answers nothing at first, as in the state in which people override.
func TestLatchEndsAPowerOn(t *testing.T) {
	n, device := outletsOff(t)
	f := n.fencerNow()
	device.SetFaults(sim.PDUFaults{Mute: true})
	given := make(chan error, 1)
	go func() { given <- f.PowerOn(context.Background()) }()
	within, done := context.WithTimeout(t.Context(), 10*time.Second)
	defer done()
	if err := await(within, func() (bool, error) { return f.runner.Last().Paths[0].Fault.Code == fence.CodePDUSilent, nil }); err != nil {
		t.Fatalf("it is not under way: %v", err)
	}
	taken, err := n.latch(membership.B, "root", "burnt", false)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-given: // while the PDU is still silent, so it was the latch
		if event.CodeOf(err) != event.NodeLatched {
			t.Errorf("the power-on says %v", err)
		}
	case <-within.Done():
		t.Error("it goes on behind the latch")
	}
	device.SetFaults(sim.PDUFaults{}) // the PDU answers again
	if device.Outlet(3) || device.Outlet(4) {
		t.Error("a latched node has its power")
	}
	if err := errors.Join(taken(), f.PowerOn(t.Context())); err != nil || !device.Outlet(3) {
		t.Errorf("without the latch: %v", err)
	}
}

// A node that has left is not switched on, and that is no fault: it is said already that it has left, and why.
func TestANodeThatLeftIsNoFault(t *testing.T) {
	n, device := outletsOff(t)
	f := n.fencerNow()
	for by, faults := range map[string]int{byLeave: 0, "root": 1} {
		if err := n.changeRuntime(func(r *site.Runtime) { r.Latched["b"] = site.Latch{By: by, Reason: "new fan"} }); err != nil {
			t.Fatal(err)
		}
		err := f.PowerOn(t.Context())
		if event.CodeOf(err) != event.NodeLatched || device.Outlet(3) || len(f.told.list()) != faults {
			t.Errorf("latched by %s: %v, faults %v", by, err, f.told.list())
		}
	}
}

// A live test that was cut short left the peer's outlets off, and no evidence can lead to R10b before the test has
// passed: giving the answers again gives the power back.
func TestAnswersAgainPowerThePeer(t *testing.T) {
	n, device := outletsOff(t)
	within, done := context.WithTimeout(t.Context(), 20*time.Second)
	defer done()
	n.setup.powerPeer(within, func(string) {})
	if !device.Outlet(3) || !device.Outlet(4) {
		t.Error("the peer's outlets stay off")
	}
}
