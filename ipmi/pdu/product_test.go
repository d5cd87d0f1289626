package pdu

import (
	"strings"
	"testing"
)

func TestProducts(t *testing.T) {
	if len(Names()) == 0 {
		t.Fatal("no products")
	}
	for _, name := range Names() {
		p, err := Find(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if p.Supported {
			t.Errorf("%s says that every number was tried on a device: name the device in the release notes and here", name)
		}
	}
	for _, name := range []string{"", "nobody", "../products/netio", "NETIO"} {
		if _, err := Find(name); err == nil || !strings.Contains(err.Error(), "netio") {
			t.Errorf("product %q: %v", name, err)
		}
	}
}

func TestProductRefusals(t *testing.T) {
	text, err := productFiles.ReadFile("products/netio.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"another name":         {`"name": "netio"`, `"name": "other"`},
		"unknown field":        {`"verify"`, `"verfiy"`},
		"no outlets":           {`"outlets_max": 16`, `"outlets_max": 0`},
		"too many outlets":     {`"outlets_max": 16`, `"outlets_max": 65`},
		"write to identify":    {`"identify": {"fc": 3`, `"identify": {"fc": 5`},
		"toggle":               {`"switch": {"fc": 5`, `"switch": {"fc": 15`},
		"read by a write":      {`"read": {"fc": 1`, `"read": {"fc": 5`},
		"all outlets one":      {`"read": {"fc": 1, "base": 101, "stride": 1`, `"read": {"fc": 1, "base": 101, "stride": 0`},
		"beyond the end":       {`"switch": {"fc": 5, "base": 101`, `"switch": {"fc": 5, "base": 65530`},
		"too far apart":        {`"read": {"fc": 1, "base": 101, "stride": 1`, `"read": {"fc": 1, "base": 101, "stride": 200`},
		"register without off": {`"switch": {"fc": 5`, `"switch": {"fc": 6`},
		"coil with values":     {`"switch": {"fc": 5`, `"switch": {"on": 1, "fc": 5`},
		"a number nobody saw":  {`"stride": 1, "state": "V"}`, `"stride": 1, "state": "N"}`},
		"power":                {`"verify": "state"`, `"verify": "power"`},
		"two values":           {"{\n  \"name\"", "{} {\n  \"name\""},
	} {
		changed := strings.Replace(string(text), change[0], change[1], 1)
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

// What the loader accepts, the engine can address: every outlet lies inside the 16-bit space and one request.
func FuzzProduct(f *testing.F) {
	for _, name := range Names() {
		text, err := productFiles.ReadFile("products/" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse("netio", text)
		if err != nil {
			return
		}
		for _, a := range []Access{p.Switch, p.Read} {
			for outlet := 1; outlet <= p.OutletsMax; outlet++ {
				if got, want := int(a.Address(outlet)), int(a.Base)+(outlet-1)*int(a.Stride); got != want {
					t.Fatalf("outlet %d at %d, want %d", outlet, got, want)
				}
			}
		}
	})
}
