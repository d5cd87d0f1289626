package sim

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type node struct{ on atomic.Bool }

func (n *node) Powered() bool   { return n.on.Load() }
func (n *node) PowerOn() error  { n.on.Store(true); return nil }
func (n *node) PowerOff() error { n.on.Store(false); return nil }

// serve runs a simulator for the length of a test.
func serve(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// ipmitool is a client by other people: it judges the simulated BMC.
func TestIpmitool(t *testing.T) {
	program, err := exec.LookPath("ipmitool")
	if err != nil {
		if !testing.Short() { // a judge that is missing must not look green
			t.Fatal("needs the Debian package ipmitool")
		}
		t.Skip("needs the Debian package ipmitool")
	}
	n := &node{}
	n.on.Store(true)
	b, err := NewBMC(BMCConfig{User: "fence", Password: "not-a-secret", GUID: [16]byte{0xa1, 2, 3}, Chassis: n})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, func(ctx context.Context) error { return b.Serve(ctx, conn) })
	_, port, err := net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	tool := func(suite, password string, args ...string) (string, bool) {
		argv := append([]string{"-I", "lanplus", "-N", "1", "-R", "1", "-L", "OPERATOR", "-H", "127.0.0.1", "-p", port, "-U", "fence", "-C", suite, "-P", password}, args...)
		out, err := exec.Command(program, argv...).CombinedOutput()
		return string(out), err == nil
	}
	for _, suite := range []string{"3", "17"} {
		for _, step := range []struct {
			command, says string
			on            bool
		}{{"off", "Down/Off", false}, {"status", "is off", false}, {"on", "Up/On", true}, {"status", "is on", true}} {
			out, ok := tool(suite, "not-a-secret", "chassis", "power", step.command)
			if !ok || !strings.Contains(out, step.says) || n.Powered() != step.on {
				t.Errorf("suite %s, %s: %q, on %v", suite, step.command, out, n.Powered())
			}
		}
	}
	if out, ok := tool("17", "not-a-secret", "mc", "guid"); !ok || !strings.Contains(strings.ReplaceAll(strings.ToLower(out), "-", ""), "a1") {
		t.Errorf("guid: %q", out)
	}
	if out, ok := tool("17", "wrong", "chassis", "power", "status"); ok {
		t.Errorf("a wrong password comes in: %q", out)
	}
	if out, ok := tool("0", "", "chassis", "power", "status"); ok {
		t.Errorf("cipher suite 0, which needs no password, comes in: %q", out)
	}
	b.SetAlive(false)
	if out, ok := tool("17", "not-a-secret", "chassis", "power", "status"); ok {
		t.Errorf("a BMC without AC answers: %q", out)
	}
}

func TestBMCConfig(t *testing.T) {
	n := &node{}
	for name, cfg := range map[string]BMCConfig{
		"no chassis":    {User: "u", Password: "p"},
		"long user":     {User: strings.Repeat("u", 17), Chassis: n},
		"long password": {User: "u", Password: strings.Repeat("p", 17), Chassis: n},
		"suite 99":      {User: "u", Chassis: n, Suites: []uint8{99}},
	} {
		if _, err := NewBMC(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// talk sends Modbus frames to a fresh PDU of four outlets and returns what it answers, without the transaction id.
func talk(t *testing.T, p *PDU, requests ...string) []string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, func(ctx context.Context) error { return p.Serve(ctx, ln) })
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var replies []string
	for i, request := range requests {
		body, err := hex.DecodeString(strings.ReplaceAll(request, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		frame := binary.BigEndian.AppendUint16(nil, uint16(i))
		frame = append(frame, 0, 0, 0, byte(len(body)+1), 9)
		if _, err := conn.Write(append(frame, body...)); err != nil {
			t.Fatal(err)
		}
		var header [mbapSize]byte
		if _, err := io.ReadFull(conn, header[:]); err != nil {
			t.Fatalf("no answer to %s: %v", request, err)
		}
		reply := make([]byte, header[5]-1)
		if _, err := io.ReadFull(conn, reply); err != nil {
			t.Fatal(err)
		}
		if header[1] != byte(i) || header[6] != 9 {
			t.Errorf("header %x", header)
		}
		replies = append(replies, hex.EncodeToString(reply))
	}
	return replies
}

func newPDU(t *testing.T, set func(int, bool)) *PDU {
	t.Helper()
	p, err := NewPDU(PDUConfig{Product: "netio", Outlets: 4, SetOutlet: set})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestModbus(t *testing.T) {
	var moved []int
	p := newPDU(t, func(outlet int, on bool) {
		if on {
			moved = append(moved, outlet)
		} else {
			moved = append(moved, -outlet)
		}
	})
	exchange := []struct{ what, request, reply string }{
		{"count", "03 0001 0001", "03020004"},
		{"all on", "01 0065 0004", "01010f"},
		{"output 3 off", "05 0067 0000", "0500670000"},
		{"off again moves nothing", "05 0067 0000", "0500670000"},
		{"reads off", "01 0065 0004", "01010b"},
		{"a flip is no value", "05 0067 5500", "8503"},
		{"no output 5", "05 0069 0000", "8502"},
		{"outputs 1 and 2 off at once", "0f 0065 0002 01 00", "0f00650002"},
		{"all on at once", "0f 0065 0004 01 0f", "0f00650004"},
		{"beyond the last", "01 0065 0005", "8102"},
		{"no inputs", "02 0065 0001", "8202"},
		{"unknown function", "2b 0e 01 00 00", "ab01"},
		{"no coils", "01 0065 0000", "8103"},
	}
	requests := make([]string, len(exchange))
	for i, e := range exchange {
		requests[i] = e.request
	}
	for i, got := range talk(t, p, requests...) {
		if got != exchange[i].reply {
			t.Errorf("%s: %s is answered by %s, want %s", exchange[i].what, exchange[i].request, got, exchange[i].reply)
		}
	}
	if want := []int{-3, -1, -2, 1, 2, 3}; len(moved) != len(want) {
		t.Errorf("moved %v, want %v", moved, want)
	} else {
		for i := range want {
			if moved[i] != want[i] {
				t.Errorf("moved %v, want %v", moved, want)
				break
			}
		}
	}
}

func TestStuckAndLying(t *testing.T) {
	p := newPDU(t, nil)
	p.SetFaults(PDUFaults{Stuck: []int{1}, Lying: []int{2}})
	got := talk(t, p, "05 0065 0000", "05 0066 0000", "01 0065 0004")
	if got[2] != "01010d" {
		t.Errorf("stuck reads on, lying reads off: %s", got[2])
	}
	if !p.Outlet(1) || !p.Outlet(2) {
		t.Error("a relay moved")
	}
}

// Whatever a stranger sends, the PDU does not panic and the outlets stay.
func FuzzModbus(f *testing.F) {
	for _, text := range []string{"0300010001", "0500670000", "0f0065000401ff", "01", "2b0e0100", "043a020002"} {
		body, err := hex.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	var devices []*PDU
	for _, product := range []string{"netio", "gude", "waveshare", "xerus", "eaton"} {
		p, err := NewPDU(PDUConfig{Product: product, Outlets: 4, Device: [3]string{"GUDE", "8045", "1"}})
		if err != nil {
			f.Fatal(err)
		}
		devices = append(devices, p)
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		if len(request) == 0 || len(request) > pduMax {
			return
		}
		for _, p := range devices {
			if reply := p.answer(request, PDUFaults{}); len(reply) == 0 || len(reply) > pduMax {
				t.Errorf("%s: %x is answered by %x", p.product.Name, request, reply)
			}
		}
	})
}
