package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"duet/appliance/membership"
	"duet/appliance/site"
	"duet/ipmi/pdu"
	"duet/ipmi/sim"
)

// A live test that was cut short left the peer's outlets off, and no evidence can lead to R10b before the test has
// passed: giving the answers again gives the power back.
func TestAnswersAgainPowerThePeer(t *testing.T) {
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
	defer func() { cancel(); <-served }()

	doc := site.Document{PDU: &site.PDU{Address: l.Addr().String(), Product: "netio"}}
	doc.Nodes.B.Outlets = []site.Outlet{{Outlet: 3}, {Outlet: 4}}
	f, err := newFencer(doc, membership.A, site.Runtime{}, newFaults(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer f.close() // of a test
	off, err := pdu.New(pdu.Config{Address: l.Addr().String(), Product: "netio"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(off.Switch(t.Context(), []int{3, 4}, false), off.Close()); err != nil {
		t.Fatal(err)
	}
	n := newPlant(t).booted()
	n.mu.Lock()
	n.fencer = f
	n.mu.Unlock()
	within, done := context.WithTimeout(t.Context(), 20*time.Second)
	defer done()
	n.setup.powerPeer(within, func(string) {})
	if !device.Outlet(3) || !device.Outlet(4) {
		t.Error("the peer's outlets stay off")
	}
}
