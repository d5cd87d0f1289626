package pdu

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestProducts(t *testing.T) {
	if want := []string{"eaton", "gude", "netio", "waveshare", "xerus"}; !slices.Equal(Names(), want) {
		t.Errorf("products %v, want those of hardware.md section 3.1: %v", Names(), want)
	}
	for _, name := range Names() {
		p, err := Find(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if p.Supported {
			t.Errorf("%s says that every number was tried on a device: name the device in the release notes and here", name)
		}
		if len(p.Notes) == 0 || p.Title == "" {
			t.Errorf("%s says nothing to people", name)
		}
	}
	for _, name := range []string{"", "nobody", "../products/netio", "NETIO"} {
		if _, err := Find(name); err == nil || !strings.Contains(err.Error(), "netio") {
			t.Errorf("product %q: %v", name, err)
		}
	}
}

// The numbers of hardware.md section 3.1 with their states, written out a second time: a change of a file is a change
// of this table, and of what a person is told.
func TestStates(t *testing.T) {
	for name, want := range map[string]struct {
		states, switches string
		metered          bool
	}{
		"netio":     {"switch V, read V, meter V", "", true},
		"gude":      {"switch V, read V, meter N", "", false},
		"xerus":     {"switch N, read N, meter N", "switch.base, switch.stride, read.base, read.stride", false},
		"waveshare": {"switch V, read V, meter none", "", false},
		"eaton":     {"switch none, read none, meter N", "measures and does not switch", false},
	} {
		p, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		if p.States() != want.states {
			t.Errorf("%s: %s, want %s", name, p.States(), want.states)
		}
		problem := ""
		if err := p.CanSwitch(); err != nil {
			problem = err.Error()
		}
		if (problem == "") != (want.switches == "") || !strings.Contains(problem, want.switches) {
			t.Errorf("%s: %q, want %q", name, problem, want.switches)
		}
		if _, metered := p.OutletMeter(); metered != want.metered {
			t.Errorf("%s: metered %v", name, metered)
		}
	}
}

// A site's own numbers fill what nobody saw, and nothing else.
func TestOwnNumbers(t *testing.T) {
	p, err := Find("xerus")
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]uint16{"switch.base": 0, "switch.stride": 1, "read.base": 0, "read.stride": 1}
	filled, err := p.With(own)
	if err != nil || filled.CanSwitch() != nil || filled.States() != "switch S, read S, meter N" {
		t.Errorf("%v, %v: %s", err, filled.CanSwitch(), filled.States())
	}
	if p.CanSwitch() == nil {
		t.Error("the embedded product was changed")
	}
	for name, numbers := range map[string]map[string]uint16{
		"a number that is known":    {"switch.fc": 6},
		"a number it does not have": {"switch.bse": 1},
		"all outlets one":           {"switch.base": 1, "switch.stride": 0},
		"beyond the end":            {"switch.base": 65500, "switch.stride": 1},
	} {
		if _, err := p.With(numbers); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestProductRefusals(t *testing.T) {
	text, err := productFiles.ReadFile("products/netio.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"another name":                {`"name": "netio"`, `"name": "other"`},
		"unknown field":               {`"verify"`, `"verfiy"`},
		"no outlets":                  {`"outlets_max": "16 A"`, `"outlets_max": "0 A"`},
		"too many outlets":            {`"outlets_max": "16 A"`, `"outlets_max": "65 A"`},
		"write to identify":           {`"count": {"fc": "3 V"`, `"count": {"fc": "5 V"`},
		"no identity":                 {`"identify": {"count": {"fc": "3 V", "address": "1 V"}}`, `"identify": {}`},
		"toggle":                      {`"switch": {"fc": "5 V"`, `"switch": {"fc": "15 V"`},
		"read by a write":             {`"read": {"fc": "1 V"`, `"read": {"fc": "5 V"`},
		"all outlets one":             {`"read": {"fc": "1 V", "base": "101 V", "stride": "1 V"`, `"read": {"fc": "1 V", "base": "101 V", "stride": "0 V"`},
		"beyond the end":              {`"switch": {"fc": "5 V", "base": "101 V"`, `"switch": {"fc": "5 V", "base": "65530 V"`},
		"too far apart":               {`"read": {"fc": "1 V", "base": "101 V", "stride": "1 V"`, `"read": {"fc": "1 V", "base": "101 V", "stride": "200 V"`},
		"register without off":        {`"switch": {"fc": "5 V"`, `"switch": {"fc": "6 V"`},
		"coil with values":            {`"switch": {"fc": "5 V"`, `"switch": {"on": "1 V", "fc": "5 V"`},
		"a state that there is not":   {`"stride": "1 V"}`, `"stride": "1 X"}`},
		"a guess":                     {`"base": "101 V"`, `"base": "101 N"`},
		"a site's number in the file": {`"base": "101 V"`, `"base": "101 S"`},
		"supported and not seen":      {`"supported": false`, `"supported": true, "quirks": {"no_sensor": "? N"}`},
		"nothing is read back":        {`"verify": "both"`, `"verify": "power"`},
		"verify by hope":              {`"verify": "both"`, `"verify": "hope"`},
		"meter of nothing":            {`"of": "outlet"`, `"of": "room"`},
		"meter over meter":            {`"base": "201 V", "stride": "1 V", "type": "u16"`, `"base": "201 V", "stride": "1 V", "type": "f32"`},
		"divided by nothing":          {`"divisor": "1 V"`, `"divisor": "0 V"`},
		"unknown type":                {`"type": "u16"`, `"type": "bcd"`},
		"two meters of one thing":     {`"of": "total"`, `"of": "outlet"`},
		"two values":                  {"{\n  \"name\"", "{} {\n  \"name\""},
	} {
		changed := strings.Replace(string(text), change[0], change[1], 1)
		if name == "supported and not seen" {
			changed = strings.Replace(changed, `"quirks": {},`, "", 1)
		}
		if changed == string(text) {
			t.Errorf("%s: the file has no %s", name, change[0])
		}
		if _, err := Parse("netio", []byte(changed)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := Parse("netio", append(text, make([]byte, productBytesLimit)...)); err == nil {
		t.Error("a huge file: accepted")
	}
}

// What the loader accepts, the engine can address: every outlet lies inside the 16-bit space and one request, and no
// number that nobody saw has a value.
func FuzzProduct(f *testing.F) {
	for _, name := range Names() {
		text, err := productFiles.ReadFile("products/" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(strings.Replace(string(text), `"`+name+`"`, `"netio"`, 1)))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse("netio", text)
		if err != nil {
			return
		}
		for _, n := range p.Numbers() {
			if !n.Number.Known() && n.Number.Value != 0 {
				t.Fatalf("%s was not seen and is %d", n.Name, n.Number.Value)
			}
		}
		if _, err := json.Marshal(p); err != nil {
			t.Fatal(err)
		}
		outlets := int(p.OutletsMax.Value)
		if m, ok := p.OutletMeter(); ok && int(m.Base.Value)+(outlets-1)*int(m.Stride.Value) != int(m.Address(outlets)) {
			t.Fatal("a meter outside the address space")
		}
		if p.CanSwitch() != nil {
			return
		}
		for _, a := range []*Access{p.Switch, p.Read} {
			for outlet := 1; outlet <= outlets; outlet++ {
				if got, want := int(a.Address(outlet)), int(a.Base.Value)+(outlet-1)*int(a.Stride.Value); got != want {
					t.Fatalf("outlet %d at %d, want %d", outlet, got, want)
				}
			}
		}
	})
}

// Whatever a stranger answers to "who are you", it is an answer or an error.
func FuzzDevice(f *testing.F) {
	f.Add([]byte{0x0e, 1, 1, 0, 0, 2, 0, 4, 'G', 'U', 'D', 'E', 1, 1, 'x'})
	f.Add([]byte{0x0e, 1, 1, 0xff, 1, 1, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var objects [basicObjectCount]string
		_, _, err := parseDevice(data, &objects)
		for _, text := range objects {
			if len(text) > deviceTextBytes || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("%q, %v", text, err)
			}
		}
	})
}
