package node

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"duet/appliance/addresses"
	"duet/appliance/internal/boottime"
	"duet/appliance/internal/testnet"
	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
	"duet/appliance/postgres/gate"
)

// A service address ends with its gate, in the kernel: with the gate's deadline when it is known before or comes after, and not
// at all without one. The database once lost its write address two seconds after its node had gone on alone.
func TestAddressEndsWithItsGate(t *testing.T) {
	if !testnet.Isolate(t) {
		return
	}
	testnet.NewRoom(t).Cable(t, "svc", "far")
	if err := testnet.Address("svc", "10.9.0.1/24"); err != nil {
		t.Fatal(err)
	}
	w := &databaseWays{}
	var service []netip.Addr
	for g, text := range [2]string{decide.Write: "10.9.0.100", decide.Read: "10.9.0.101"} {
		a := netip.MustParseAddr(text)
		service, w.address[g] = append(service, a), addresses.Address{IP: a, Interface: "svc"}
	}
	var err error
	if w.gates, err = gate.New(gate.Config{Port: 5432, Write: service[:1], Read: service[1:]}); err != nil {
		t.Fatal(err)
	}
	w.keeper, err = addresses.New(addresses.Config{Known: w.address[:], Memory: filepath.Join(t.TempDir(), "addresses"), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer w.keeper.Close()
	in := func(d time.Duration) membership.Boottime {
		return membership.Boottime(boottime.Now()) + membership.Boottime(d)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// left is what the kernel will give the address, in seconds; -1: it is not there.
	left := func(g decide.Gate) int64 {
		link, err := netlink.LinkByName("svc")
		must(err)
		all, err := netlink.AddrList(link, netlink.FAMILY_V4)
		must(err)
		for _, a := range all {
			if a.IP.Equal(service[g].AsSlice()) {
				return int64(uint32(a.ValidLft)) //nolint:gosec // a field of 32 bits
			}
		}
		return -1
	}
	const never = 1<<32 - 1
	settles := func(what string, g decide.Gate, ok func(seconds int64) bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !ok(left(g)); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d s", what, left(g))
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	gates, taken := gateWay{w}, addressWay{w}

	// The write gate opens before its address is taken.
	must(gates.Set(decide.Write, true, in(30*time.Second)))
	must(taken.Set(decide.Write, true))
	settles("the gate's end is known", decide.Write, func(s int64) bool { return s > 25 && s <= 32 })
	must(gates.Set(decide.Write, true, in(60*time.Second)))
	settles("the gate's end moves", decide.Write, func(s int64) bool { return s > 55 && s <= 62 })
	must(gates.Set(decide.Write, true, 0))
	settles("the node is alone now", decide.Write, func(s int64) bool { return s == never })
	must(gates.Set(decide.Write, false, 0))
	must(taken.Set(decide.Write, false))
	settles("dropped", decide.Write, func(s int64) bool { return s == -1 })
	must(gates.Set(decide.Write, true, 0))
	must(taken.Set(decide.Write, true))
	settles("taken by a node that is alone", decide.Write, func(s int64) bool { return s == never })

	// A grant with an end comes while this is open without one: the end is there before anybody has looked, and stays for what is decided late.
	d := &database{ways: w}
	d.permit(in(30 * time.Second))
	settles("paired again", decide.Write, func(s int64) bool { return s > 25 && s <= 32 })
	must(gates.Set(decide.Write, true, 0))
	settles("a word from before", decide.Write, func(s int64) bool { return s > 25 && s <= 32 })
	d.permit(0)
	must(gates.Set(decide.Write, true, 0))
	settles("alone once more", decide.Write, func(s int64) bool { return s == never })

	// The read gate opens after its address is taken.
	must(taken.Set(decide.Read, true))
	settles("for a moment", decide.Read, func(s int64) bool { return s > 0 && s <= 4 })
	must(gates.Set(decide.Read, true, in(30*time.Second)))
	settles("the gate's end comes", decide.Read, func(s int64) bool { return s > 25 && s <= 32 })
	if !taken.Held(decide.Read) || !gates.Open(decide.Read) {
		t.Error("it is not held, or closed")
	}

	// Nobody renews: both are gone.
	must(gates.Set(decide.Read, true, in(time.Second)))
	settles("nobody renews", decide.Read, func(s int64) bool { return s == -1 })
	if taken.Held(decide.Read) || gates.Open(decide.Read) {
		t.Error("it is still held, or open")
	}
}
