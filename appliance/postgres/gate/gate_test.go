package gate

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"duet/appliance/internal/boottime"
	"duet/appliance/internal/testnet"
	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
	"duet/appliance/postgres/gatetest"
)

const port = 5432

// addressesOf the two gates, of both families.
var addressesOf = map[string][2]netip.Addr{
	"4": {decide.Write: netip.MustParseAddr("10.9.0.100"), decide.Read: netip.MustParseAddr("10.9.0.101")},
	"6": {decide.Write: netip.MustParseAddr("2001:db8::64"), decide.Read: netip.MustParseAddr("2001:db8::65")},
}

func config() Config {
	four, six := addressesOf["4"], addressesOf["6"]
	return Config{
		Port: port, Exempt: []string{"mirror0"},
		Write: []netip.Addr{four[decide.Write], six[decide.Write]}, Read: []netip.Addr{four[decide.Read], six[decide.Read]},
	}
}

// machine is this node: an echo server on the port, reached from the room by the interface "svc" and by "mirror0".
func machine(t *testing.T) *testnet.Room {
	t.Helper()
	room := testnet.NewRoom(t)
	room.Cable(t, "svc", "eth")
	room.Cable(t, "mirror0", "far0")
	for name, all := range map[string][]string{
		"svc":     {"10.9.0.1/24", "10.9.0.100/32", "10.9.0.101/32", "2001:db8::1/64", "2001:db8::64/128", "2001:db8::65/128"},
		"mirror0": {"10.8.0.1/24"},
	} {
		for _, a := range all {
			if err := testnet.Address(name, a); err != nil {
				t.Fatal(err)
			}
		}
	}
	room.Do(t, func() error {
		for name, all := range map[string][]string{"eth": {"10.9.0.2/24", "2001:db8::2/64"}, "far0": {"10.8.0.2/24"}} {
			for _, a := range all {
				if err := testnet.Address(name, a); err != nil {
					return err
				}
			}
		}
		return nil
	})
	l, err := net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	go gatetest.Echo(l)
	t.Cleanup(func() { l.Close() })
	return room
}

func dial(t *testing.T, room *testnet.Room, address string) (c net.Conn, err error) {
	room.Do(t, func() error {
		d := net.Dialer{Timeout: gatetest.Patience}
		c, err = d.DialContext(t.Context(), "tcp", net.JoinHostPort(address, fmt.Sprint(port)))
		return nil
	})
	return c, err
}

// Proves: the gate of the kernel does what every gate must, for both families.
func TestConform(t *testing.T) {
	if !testnet.Isolate(t) {
		return
	}
	room := machine(t)
	for family, to := range addressesOf {
		t.Run(family, func(t *testing.T) {
			gatetest.Conform(t, func(t *testing.T) gatetest.Site {
				if err := Remove(); err != nil {
					t.Fatal(err)
				}
				g, err := New(config())
				if err != nil {
					t.Fatal(err)
				}
				return gatetest.Site{Gates: g, Dial: func(g decide.Gate) (net.Conn, error) { return dial(t, room, to[g].String()) }}
			})
		})
	}
}

// The link, loopback and other ports never meet a gate.
func TestExempt(t *testing.T) {
	if !testnet.Isolate(t) {
		return
	}
	room := machine(t)
	if _, err := New(config()); err != nil {
		t.Fatal(err)
	}
	if c, err := dial(t, room, "10.8.0.1"); err != nil {
		t.Errorf("by the link: %v", err)
	} else {
		c.Close()
	}
	if c, err := net.Dial("tcp", "10.9.0.100:5432"); err != nil {
		t.Errorf("from this node: %v", err)
	} else {
		c.Close()
	}
	if _, err := dial(t, room, "10.9.0.1"); err == nil {
		t.Error("an address of the node that no gate names is open")
	}
	l, err := net.Listen("tcp", "10.9.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	room.Do(t, func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), gatetest.Patience)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// opener is the process that opens and is gone.
const opener = "DUET_GATE_OPENER"

// A connection is cut at the deadline although the process that had opened the gate does not exist any more; the next process finds the gate
// as it is, and a table of another form is closed.
func TestProcessIsGone(t *testing.T) {
	if os.Getenv(opener) != "" {
		g, err := New(config())
		if err == nil {
			err = g.Set(decide.Write, true, membership.Boottime(boottime.Now())+membership.Boottime(2*time.Second))
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	if !testnet.Isolate(t) {
		return
	}
	room := machine(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestProcessIsGone$")
	cmd.Env = append(os.Environ(), opener+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c, err := dial(t, room, "10.9.0.100")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(4 * gatetest.Patience)); err != nil {
		t.Fatal(err)
	}
	next, err := New(config())
	if err != nil {
		t.Fatal(err)
	}
	if !next.Open(decide.Write) {
		t.Error("the next process closed a gate that was open")
	}
	for {
		if _, err = c.Write([]byte{1}); err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		if err != nil {
			break
		}
	}
	if ne, is := err.(net.Error); is && ne.Timeout() {
		t.Error("the connection outlives the deadline")
	}
	if next.Open(decide.Write) {
		t.Error("the gate outlives the deadline")
	}
	if err := next.Set(decide.Write, true, 0); err != nil {
		t.Fatal(err)
	}
	other := config()
	other.Exempt = []string{"lan0"}
	if g, err := New(other); err != nil || g.Open(decide.Write) {
		t.Errorf("a table of another form: open, or %v", err)
	}
}

// A table that somebody takes away leaves the server open: the next look closes it, and the next word opens what may be.
func TestTableIsTakenAway(t *testing.T) {
	if !testnet.Isolate(t) {
		return
	}
	room := machine(t)
	g, err := New(config())
	if err != nil {
		t.Fatal(err)
	}
	for _, open := range []bool{false, true} {
		if err := Remove(); err != nil {
			t.Fatal(err)
		}
		if g.Open(decide.Write) {
			t.Error("there is no gate, and it is said to be open")
		}
		if open {
			if err := Remove(); err != nil { // also when nobody has looked in between
				t.Fatal(err)
			}
			if err := g.Set(decide.Write, true, 0); err != nil {
				t.Fatal(err)
			}
		}
		for address, want := range map[string]bool{"10.9.0.100": open, "10.9.0.101": false} {
			c, err := dial(t, room, address)
			if (err == nil) != want {
				t.Errorf("write gate %v: %s: %v", open, address, err)
			}
			if err == nil {
				c.Close()
			}
		}
	}
}
