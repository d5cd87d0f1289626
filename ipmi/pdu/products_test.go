package pdu_test

import (
	"context"
	"errors"
	"math"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"duet/ipmi/pdu"
	"duet/ipmi/sim"
)

// The site's own numbers in these tests; they are invented, as those of every Xerus must be until one was seen.
var (
	xerusOwn = map[string]uint16{"switch.base": 0x20, "switch.stride": 1, "read.base": 0x20, "read.stride": 1, "meter.outlet.stride": 20}
	gudeOwn  = map[string]uint16{"meter.outlet.divisor": 100}
)

// The bytes of every product, written by hand from the vendors' texts: they share nothing with the product files. A
// request or answer is a Modbus frame without its transaction id.
func TestBytes(t *testing.T) {
	const (
		netioWho  = "0000 0006 00 03 0001 0001"
		netioIs4  = "0000 0005 00 03 02 0004"
		gudeWho   = "0000 0005 00 2b 0e 01 00"
		gudeIs    = "0000 001c 00 2b 0e 01 01 00 00 03 00 04 47554445 01 05 38303435 31 02 05 312e322e 33" // GUDE, 80451, 1.2.3
		xerusWho  = "0000 0006 00 03 0003 0001"
		xerusIs8  = "0000 0005 00 03 02 0008"
		xerusDev0 = "0000 0005 00 2b 0e 01 00"
		xerusObj0 = "0000 0011 00 2b 0e 01 01 ff 01 01 00 07 52617269 74616e" // Raritan, and more follows
		xerusDev1 = "0000 0005 00 2b 0e 01 01"
		xerusObj1 = "0000 000d 00 2b 0e 01 01 00 00 01 01 03 505833" // PX3
	)
	read := func(want string, watts ...float64) func(*testing.T, *pdu.Client) error {
		return func(t *testing.T, c *pdu.Client) error {
			outlets, err := c.Read(t.Context())
			if states(outlets) != want {
				t.Errorf("reads %q, want %q", states(outlets), want)
			}
			for i, w := range watts {
				if got := outlets[i]; got.Metered == math.IsNaN(w) || (got.Metered && got.Watts != w) {
					t.Errorf("outlet %d: %+v, want %v W", i+1, got, w)
				}
			}
			return err
		}
	}
	turn := func(outlet int, on bool) func(*testing.T, *pdu.Client) error {
		return func(t *testing.T, c *pdu.Client) error { return c.Switch(t.Context(), []int{outlet}, on) }
	}
	none := math.NaN()
	for _, test := range []struct {
		name     string
		config   pdu.Config
		do       func(*testing.T, *pdu.Client) error
		exchange []string
	}{
		{"netio: read", pdu.Config{Product: "netio"}, read("1011"), []string{netioWho, netioIs4, "0000 0006 00 01 0065 0004", "0000 0004 00 01 01 0d"}},
		{"netio: read and meter 1 and 2", pdu.Config{Product: "netio", Metered: []int{1, 2}}, read("1011", 57, 0), []string{
			netioWho, netioIs4, "0000 0006 00 01 0065 0004", "0000 0004 00 01 01 0d",
			"0000 0006 00 04 00c9 0001", "0000 0005 00 04 02 0039", "0000 0006 00 04 00ca 0001", "0000 0005 00 04 02 0000",
		}},
		{"netio without meters", pdu.Config{Product: "netio", Metered: []int{1}}, read("1011", none), []string{
			netioWho, netioIs4, "0000 0006 00 01 0065 0004", "0000 0004 00 01 01 0d", "0000 0006 00 04 00c9 0001", "0000 0003 00 84 02",
		}},
		{"netio: output 2 off", pdu.Config{Product: "netio"}, turn(2, false), []string{netioWho, netioIs4, "0000 0006 00 05 0066 0000", "0000 0006 00 05 0066 0000"}},
		{"netio: output 1 on", pdu.Config{Product: "netio"}, turn(1, true), []string{netioWho, netioIs4, "0000 0006 00 05 0065 ff00", "0000 0006 00 05 0065 ff00"}},
		{"gude: port 3 off", pdu.Config{Product: "gude", Outlets: 4}, turn(3, false), []string{gudeWho, gudeIs, "0000 0006 00 05 0002 0000", "0000 0006 00 05 0002 0000"}},
		{"gude: read", pdu.Config{Product: "gude", Outlets: 4, Metered: []int{1}}, read("1111", none), []string{gudeWho, gudeIs, "0000 0006 00 01 0000 0004", "0000 0004 00 01 01 0f"}},
		{"gude: power in hundredths, port 2 without sensor", pdu.Config{Product: "gude", Outlets: 2, Metered: []int{1, 2}, Numbers: gudeOwn}, read("11", 655.37, none), []string{
			gudeWho, gudeIs, "0000 0006 00 01 0000 0002", "0000 0004 00 01 01 03",
			"0000 0006 00 04 3a02 0002", "0000 0007 00 04 04 0001 0001", "0000 0006 00 04 3b22 0002", "0000 0007 00 04 04 8000 0000",
		}},
		{"xerus: outlet 2 off", pdu.Config{Product: "xerus", Numbers: xerusOwn}, turn(2, false), []string{
			xerusWho, xerusIs8, xerusDev0, xerusObj0, xerusDev1, xerusObj1, "0000 0006 00 05 0021 0000", "0000 0006 00 05 0021 0000",
		}},
		{"xerus: 123.5 W at outlet 1, big-endian float", pdu.Config{Product: "xerus", Numbers: xerusOwn, Metered: []int{1, 2}}, read("11111111", 123.5, -0.25), []string{
			xerusWho, xerusIs8, xerusDev0, xerusObj0, xerusDev1, xerusObj1, "0000 0006 00 01 0020 0008", "0000 0004 00 01 01 ff",
			"0000 0006 00 03 8012 0002", "0000 0007 00 03 04 42f7 0000", "0000 0006 00 03 8026 0002", "0000 0007 00 03 04 be80 0000",
		}},
		{"xerus: a meter that is no number", pdu.Config{Product: "xerus", Numbers: xerusOwn, Metered: []int{1, 2}}, read("11111111", none, none), []string{
			xerusWho, xerusIs8, xerusDev0, xerusObj0, xerusDev1, xerusObj1, "0000 0006 00 01 0020 0008", "0000 0004 00 01 01 ff",
			"0000 0006 00 03 8012 0002", "0000 0007 00 03 04 7fc0 0000",
		}},
		{"waveshare: relay 8 off", pdu.Config{Product: "waveshare", Outlets: 8}, turn(8, false), []string{"0000 0006 00 05 0007 0000", "0000 0006 00 05 0007 0000"}},
		{"waveshare: read", pdu.Config{Product: "waveshare", Outlets: 8}, read("11111110"), []string{"0000 0006 00 01 0000 0008", "0000 0004 00 01 01 7f"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ln := listen(t)
			played := make(chan error, 1)
			go func() { played <- play(ln, test.exchange) }()
			test.config.Address = ln.Addr().String()
			c, err := pdu.New(test.config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			if err := test.do(t, c); err != nil {
				t.Error(err)
			}
			if err := <-played; err != nil {
				t.Error(err)
			}
		})
	}
}

// Every product that switches, against the simulator of the same table: it reads, switches, meters, and refuses to
// switch another device.
func TestEveryProduct(t *testing.T) {
	for _, test := range []struct {
		product string
		own     map[string]uint16
		device  [3]string
		metered bool
	}{
		{"netio", nil, [3]string{}, true},
		{"gude", gudeOwn, [3]string{"GUDE Systems", "8045", "1.2"}, true},
		{"gude", nil, [3]string{"GUDE Systems", "8045", "1.2"}, false},
		{"xerus", xerusOwn, [3]string{"Raritan", "PX3-5000", "4.1"}, true},
		{"waveshare", nil, [3]string{}, false},
	} {
		t.Run(test.product, func(t *testing.T) {
			p, err := sim.NewPDU(sim.PDUConfig{
				Product: test.product, Outlets: 8, Numbers: test.own, Device: test.device,
				Watts: func(outlet int) float64 { return 100 + float64(outlet) },
			})
			if err != nil {
				t.Fatal(err)
			}
			address := serve(t, p)
			config := pdu.Config{Address: address, Product: test.product, Numbers: test.own, Outlets: 8, Metered: []int{3, 4}}
			c := dial(t, config)
			if err := c.Switch(t.Context(), []int{3}, false); err != nil {
				t.Fatal(err)
			}
			outlets, err := c.Read(t.Context())
			if err != nil || states(outlets) != "11011111" {
				t.Fatalf("%s, %v", states(outlets), err)
			}
			if o := outlets[3]; o.Metered != test.metered || (o.Metered && (o.Watts != 104 || outlets[2].Watts != 0)) {
				t.Errorf("outlet 4: %+v; outlet 3: %+v", o, outlets[2])
			}
			p.SetFaults(sim.PDUFaults{NoMeter: true})
			if outlets, err := c.Read(t.Context()); err != nil || outlets[3].Metered || states(outlets) != "11011111" {
				t.Errorf("without sensors: %+v, %v", outlets[3], err)
			}
			if test.product == "waveshare" {
				return // it cannot be told from another
			}
			recorded := config
			recorded.Identity = c.Seen().String()
			if test.product == "gude" { // a stranger at the first contact already
				alien, err := sim.NewPDU(sim.PDUConfig{Product: "gude", Outlets: 8, Device: [3]string{"Acme", "8045", "1.2"}})
				if err != nil {
					t.Fatal(err)
				}
				stranger := config
				stranger.Address = serve(t, alien)
				if err := dial(t, stranger).Switch(t.Context(), []int{4}, false); class(err) != pdu.WrongIdentity || alien.Writes() != 0 {
					t.Errorf("another company's device: %v", err)
				}
			}
			p.SetFaults(sim.PDUFaults{Product: "another", Identity: 7})
			writes := p.Writes()
			for name, client := range map[string]*pdu.Client{"learned": c, "recorded": dial(t, recorded)} {
				if err := client.Switch(t.Context(), []int{4}, false); class(err) != pdu.WrongIdentity || p.Writes() != writes {
					t.Errorf("%s: another device: %v", name, err)
				}
			}
		})
	}
}

// A product that only measures, and one whose coils nobody saw, are refused before anything is sent.
func TestNoMap(t *testing.T) {
	ln := listen(t)
	for _, product := range []string{"eaton", "xerus"} {
		c := dial(t, pdu.Config{Address: ln.Addr().String(), Product: product})
		for _, on := range []bool{false, true} {
			if err := c.Switch(t.Context(), []int{1}, on); class(err) != pdu.NoMap {
				t.Errorf("%s: %v", product, err)
			}
		}
		if _, err := c.Read(t.Context()); class(err) != pdu.NoMap {
			t.Errorf("%s: %v", product, err)
		}
	}
	if err := ln.(*net.TCPListener).SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if conn, err := ln.Accept(); err == nil {
		conn.Close()
		t.Error("somebody connected")
	}
}

// mbpoll reads floats and coils of the simulated products by the addresses that a person would type.
func TestMbpollProducts(t *testing.T) {
	program, err := exec.LookPath("mbpoll")
	if err != nil {
		if !testing.Short() {
			t.Fatal("needs the Debian package mbpoll")
		}
		t.Skip("needs the Debian package mbpoll")
	}
	for _, test := range []struct {
		sim  sim.PDUConfig
		args []string
		want string
	}{
		{sim.PDUConfig{Product: "xerus", Numbers: xerusOwn}, []string{"-t", "4:float", "-B", "-r", "32786", "-c", "1"}, "123.5"},
		{sim.PDUConfig{Product: "gude", Numbers: gudeOwn}, []string{"-t", "3:int", "-B", "-r", "14850", "-c", "1"}, "12350"},
		{sim.PDUConfig{Product: "netio"}, []string{"-t", "3", "-r", "201", "-c", "1"}, "123"},
		{sim.PDUConfig{Product: "waveshare"}, []string{"-t", "0", "-r", "0", "-c", "2"}, "1 1"},
	} {
		test.sim.Outlets, test.sim.Watts = 8, func(int) float64 { return 123.5 }
		p, err := sim.NewPDU(test.sim)
		if err != nil {
			t.Fatal(err)
		}
		host, port, err := net.SplitHostPort(serve(t, p))
		if err != nil {
			t.Fatal(err)
		}
		args := append([]string{"-m", "tcp", "-p", port, "-0", "-1", "-a", "1"}, test.args...)
		out, err := exec.Command(program, append(slices.Clip(args), host)...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", test.sim.Product, err, out)
		}
		var values []string
		for line := range strings.Lines(string(out)) {
			if name, value, ok := strings.Cut(line, "]:"); ok && strings.HasPrefix(name, "[") {
				values = append(values, strings.TrimSpace(value))
			}
		}
		if got := strings.Join(values, " "); got != test.want {
			t.Errorf("%s: mbpoll reads %q, want %q", test.sim.Product, got, test.want)
		}
	}
}

// serve lets a simulated PDU answer for the length of a test.
func serve(t *testing.T, p *sim.PDU) string {
	t.Helper()
	ln := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func dial(t *testing.T, cfg pdu.Config) *pdu.Client {
	t.Helper()
	c, err := pdu.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
