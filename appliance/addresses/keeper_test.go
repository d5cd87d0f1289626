package addresses

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"duet/appliance/internal/testnet"
)

// patience is for states that come; the machine is shared and slow.
const patience = 20 * time.Second

// lan is this node's interface "svc" and a room with the interface "eth" at the other end, each with addresses of its own.
func lan(t *testing.T) *testnet.Room {
	t.Helper()
	room := testnet.NewRoom(t)
	room.Cable(t, "svc", "eth")
	for _, own := range []string{"10.9.0.1/24", "2001:db8::1/64"} {
		if err := testnet.Address("svc", own); err != nil {
			t.Fatal(err)
		}
	}
	room.Do(t, func() error {
		for _, own := range []string{"10.9.0.2/24", "2001:db8::2/64"} {
			if err := testnet.Address("eth", own); err != nil {
				return err
			}
		}
		return nil
	})
	return room
}

func newKeeper(t *testing.T, cfg Config) *Keeper {
	t.Helper()
	if cfg.Memory == "" {
		cfg.Memory = filepath.Join(t.TempDir(), "addresses")
	}
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	k, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline.C:
			t.Fatalf("not in %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

func there(t *testing.T, a Address) bool {
	t.Helper()
	is, err := a.present()
	if err != nil {
		t.Fatal(err)
	}
	return is
}

var both = []Address{{four, "svc"}, {six, "svc"}}

// A neighbour that knows the address at another machine learns where it is now, by what the kernel there makes of the
// announcements; and hears all rounds of them.
func TestAnnounced(t *testing.T) {
	if !testnet.Isolate(t) {
		return
	}
	room := lan(t)
	var ear *line
	room.Do(t, func() (err error) {
		ear, err = openLine("eth", unix.ETH_P_ALL)
		if err != nil {
			return err
		}
		link, err := netlink.LinkByName("eth")
		if err != nil {
			return err
		}
		for _, a := range both {
			old := &netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_STALE, IP: a.IP.AsSlice(), HardwareAddr: theirs}
			if err := netlink.NeighSet(old); err != nil {
				return fmt.Errorf("neighbour: %w", err)
			}
		}
		return nil
	})
	defer ear.close()
	svc, err := net.InterfaceByName("svc")
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, Config{Known: both})
	for _, a := range both {
		if err := k.Take(a, 0); err != nil {
			t.Fatal(err)
		}
	}
	heard := [2]int{}
	buf := make([]byte, 2048)
	await(t, "three announcements of each", func() bool {
		for {
			n, err := unix.Read(ear.fd, buf)
			if err != nil {
				return heard[0] >= 6 && heard[1] >= 3
			}
			for i, a := range both {
				if claims(buf[:n], ear.mac, a.IP) != nil {
					heard[i]++
				}
			}
		}
	})
	knows := func(a Address) bool {
		var known bool
		room.Do(t, func() error {
			all, err := netlink.NeighList(0, 0)
			for _, n := range all {
				known = known || n.IP.Equal(a.IP.AsSlice()) && n.HardwareAddr.String() == svc.HardwareAddr.String()
			}
			return err
		})
		return known
	}
	for _, a := range both {
		await(t, "the neighbour knows where "+a.String()+" is", func() bool { return knows(a) })
	}
}

// Taken and dropped, each as often as one likes; the node's own addresses stay.
func TestTakeAndDrop(t *testing.T) {
	if !testnet.Isolate(t) {
		return
	}
	lan(t)
	k := newKeeper(t, Config{Known: both})
	for range 2 {
		for _, a := range both {
			for range 2 {
				if err := k.Take(a, 0); err != nil {
					t.Fatal(err)
				}
			}
			await(t, a.String()+" is held", func() bool { return k.Phase(a) == Held && there(t, a) })
		}
		for _, a := range both {
			for range 2 {
				if err := k.Drop(a); err != nil {
					t.Fatal(err)
				}
			}
			if k.Phase(a) != Absent || there(t, a) {
				t.Fatalf("%v is %v, on the interface: %v", a, k.Phase(a), there(t, a))
			}
		}
	}
	i, err := net.InterfaceByName("svc")
	if err != nil {
		t.Fatal(err)
	}
	own, err := i.Addrs()
	if err != nil || len(own) != 3 { // and a link-local one
		t.Errorf("own addresses: %v, %v", own, err)
	}
	// One that somebody takes away by hand is taken again.
	if err := k.Take(both[0], 0); err != nil {
		t.Fatal(err)
	}
	await(t, "held", func() bool { return k.Phase(both[0]) == Held })
	if err := both[0].remove(); err != nil {
		t.Fatal(err)
	}
	if k.Phase(both[0]) != Absent {
		t.Fatal("it is not there, and said to be held")
	}
	if err := k.Take(both[0], 0); err != nil {
		t.Fatal(err)
	}
	await(t, "held again", func() bool { return k.Phase(both[0]) == Held })
}

// The kernel takes an address away at its end although nobody is there any more; a renewed one stays.
func TestEndsByItself(t *testing.T) {
	if !testnet.Isolate(t) {
		return
	}
	lan(t)
	k := newKeeper(t, Config{Known: both})
	if err := k.Take(both[0], time.Second); err != nil {
		t.Fatal(err)
	}
	if err := k.Take(both[1], time.Second); err != nil {
		t.Fatal(err)
	}
	for _, a := range both {
		await(t, "held", func() bool { return k.Phase(a) == Held })
	}
	if err := k.Take(both[1], time.Hour); err != nil {
		t.Fatal(err)
	}
	k.Close()
	await(t, "it is gone", func() bool { return !there(t, both[0]) })
	if !there(t, both[1]) || k.Phase(both[1]) != Held || k.Phase(both[0]) != Absent {
		t.Errorf("renewed: %v, ended: %v", k.Phase(both[1]), k.Phase(both[0]))
	}
}

// What an earlier process has left: the site's addresses are held on, others are dropped, and one that was held for a while
// can be held for good.
func TestNothingStaysBehind(t *testing.T) {
	if !testnet.Isolate(t) {
		return
	}
	lan(t)
	memory := filepath.Join(t.TempDir(), "addresses")
	first := newKeeper(t, Config{Known: both, Memory: memory})
	for _, a := range both {
		if err := first.Take(a, 2*time.Second); err != nil {
			t.Fatal(err)
		}
		await(t, "held", func() bool { return first.Phase(a) == Held })
	}
	first.Close() // as a crash: nothing is taken away
	next := newKeeper(t, Config{Known: both[1:], Memory: memory})
	if there(t, both[0]) {
		t.Error("an address that the site does not know has stayed behind")
	}
	if next.Phase(both[1]) != Held {
		t.Errorf("the site's address is %v", next.Phase(both[1]))
	}
	if err := next.Take(both[1], 0); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("svc")
	if err != nil {
		t.Fatal(err)
	}
	all, err := netlink.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if a.IP.Equal(six.AsSlice()) && uint32(a.ValidLft) != 0xffffffff { //nolint:gosec // a field of 32 bits
			t.Errorf("it would end in %d s", a.ValidLft)
		}
	}
}

// Somebody else who answers keeps the address, and it is told; when he is gone, it is taken.
func TestConflict(t *testing.T) {
	if !testnet.Isolate(t) {
		return
	}
	room := lan(t)
	eth := ""
	room.Do(t, func() error {
		i, err := net.InterfaceByName("eth")
		if err != nil {
			return err
		}
		eth = i.HardwareAddr.String()
		for _, a := range []string{four.String() + "/24", six.String() + "/64"} {
			if err := testnet.Address("eth", a); err != nil {
				return err
			}
		}
		return nil
	})
	var mu sync.Mutex
	told := map[Address]string{}
	k := newKeeper(t, Config{Known: both, Conflict: func(a Address, mac string, on bool) {
		mu.Lock()
		defer mu.Unlock()
		told[a] = fmt.Sprint(mac, on)
	}})
	for _, a := range both {
		if err := k.Take(a, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range both {
		await(t, "the conflict is told", func() bool { mu.Lock(); defer mu.Unlock(); return told[a] == eth+"true" })
		if k.Phase(a) != Claimed || there(t, a) {
			t.Errorf("%v is %v, on the interface: %v", a, k.Phase(a), there(t, a))
		}
	}
	room.Do(t, func() error {
		for _, a := range []Address{{four, "eth"}, {six, "eth"}} {
			link, err := netlink.LinkByName("eth")
			if err != nil {
				return err
			}
			bits := 24
			if a.IP.Is6() {
				bits = 64
			}
			if err := netlink.AddrDel(link, &netlink.Addr{IPNet: &net.IPNet{IP: a.IP.AsSlice(), Mask: net.CIDRMask(bits, a.IP.BitLen())}}); err != nil {
				return err
			}
		}
		return nil
	})
	for _, a := range both {
		await(t, "taken", func() bool { return k.Phase(a) == Held && there(t, a) })
		await(t, "the end of the conflict is told", func() bool { mu.Lock(); defer mu.Unlock(); return told[a] == "false" })
	}
}
