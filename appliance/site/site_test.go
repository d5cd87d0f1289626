package site

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"duet/appliance/membership"
)

func key(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

// answers are what a person writes for the lab's site.
func answers() Document {
	return Document{
		Format: 1, Name: "demo",
		Nodes: Nodes{
			A: Node{BMC: &BMC{Address: "192.0.2.11", User: "duet", Password: "secret-a"}, Outlets: []Outlet{{1, "a.1"}, {2, "a.2"}}},
			B: Node{BMC: &BMC{Address: "192.0.2.12:623", User: "duet", Password: "secret-b"}, Outlets: []Outlet{{3, "b.1"}, {4, "b.2"}}},
		},
		Witness: &Witness{Address: "203.0.113.13:7443", Key: base64.StdEncoding.EncodeToString(key(9))},
		PDU:     &PDU{Address: "192.0.2.21:502", Product: "netio"},
		Volumes: []Volume{{Name: "spare", SizeBytes: 4096}, {Name: "disk0", SizeBytes: 64 << 20}, {Name: "disk1", SizeBytes: 64 << 20}},
		VMs: []VM{
			{Name: "counter", MemoryMiB: 96, VCPUs: 1, Disks: []string{"disk0"}, Boot: Boot{Kernel: "/boot/vmlinuz", Initrd: "/boot/initrd", Cmdline: "console=ttyS0"}},
			{Name: "press", MemoryMiB: 96, VCPUs: 1, Disks: []string{"disk1"}},
		},
	}
}

func founding() Founding {
	return Founding{Random: rand.NewChaCha8([32]byte{1}), KeyA: key(1), KeyB: key(2), RID: strings.Repeat("ab", 16), GUIDA: strings.Repeat("0a", 16)}
}

func founded(t *testing.T) Document {
	t.Helper()
	d, err := Found(answers(), founding())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestValidateAcceptsTheLab(t *testing.T) {
	if err := Validate(answers(), "netio").Err(); err != nil {
		t.Fatal(err)
	}
}

// Each wrong answer is named by its field, and nothing else is.
func TestValidateNamesTheField(t *testing.T) {
	for field, spoil := range map[string]func(*Document){
		"format":                    func(d *Document) { d.Format = 2 },
		"version":                   func(d *Document) { d.Version = 1 },
		"site_id":                   func(d *Document) { d.SiteID = strings.Repeat("00", 16) },
		"name":                      func(d *Document) { d.Name = "Demo Site" },
		"witness.address":           func(d *Document) { d.Witness.Address = "witness.example:7443" },
		"witness.key":               func(d *Document) { d.Witness.Key = "abc" },
		"witness.rid":               func(d *Document) { d.Witness.RID = strings.Repeat("00", 16) },
		"pdu.address":               func(d *Document) { d.PDU.Address = "192.0.2.21" },
		"pdu.product":               func(d *Document) { d.PDU.Product = "toaster" },
		"nodes.a.key":               func(d *Document) { d.Nodes.A.Key = "!" },
		"nodes.a.bmc.address":       func(d *Document) { d.Nodes.A.BMC.Address = "0.0.0.0" },
		"nodes.a.bmc.user":          func(d *Document) { d.Nodes.A.BMC.User = "seventeen-letters" },
		"nodes.a.bmc.password":      func(d *Document) { d.Nodes.A.BMC.Password = "" },
		"nodes.b.bmc.address":       func(d *Document) { d.Nodes.B.BMC.Address = "192.0.2.11:623" },
		"nodes.a.outlets[1].outlet": func(d *Document) { d.Nodes.A.Outlets[1].Outlet = 0 },
		"nodes.a.outlets[1].psu":    func(d *Document) { d.Nodes.A.Outlets[1].PSU = "b.2" },
		"nodes.a.outlets[1]":        func(d *Document) { d.Nodes.A.Outlets[1] = Outlet{1, "a.2"} },
		"nodes.b.outlets[0].outlet": func(d *Document) { d.Nodes.B.Outlets[0].Outlet = 2 },
		"volumes[0].name":           func(d *Document) { d.Volumes[0].Name = "-spare" },
		"volumes[1].id":             func(d *Document) { d.Volumes[1].ID = "x" },
		"volumes[1].slot":           func(d *Document) { d.Volumes[1].Slot = 3 },
		"volumes[1].size_bytes":     func(d *Document) { d.Volumes[1].SizeBytes++ },
		"volumes[0].size_bytes":     func(d *Document) { d.Volumes[0].SizeBytes = -4096 },
		"volumes[2].size_bytes":     func(d *Document) { d.Volumes[2].SizeBytes = MaxVolumeBytes + 4096 },
		"volumes[2].name":           func(d *Document) { d.Volumes[0].Name = "disk1" },
		"vms[1].name":               func(d *Document) { d.VMs[1].Name = "counter" },
		"vms[0].memory_mib":         func(d *Document) { d.VMs[0].MemoryMiB = 1 },
		"vms[0].vcpus":              func(d *Document) { d.VMs[0].VCPUs = 0 },
		"vms[0].disks[0]":           func(d *Document) { d.VMs[0].Disks[0] = "disk9" },
		"vms[1].disks[0]":           func(d *Document) { d.VMs[1].Disks[0] = "disk0" },
		"vms[0].boot.kernel":        func(d *Document) { d.VMs[0].Boot.Kernel = "boot/vmlinuz" },
		"vms[0].boot.initrd":        func(d *Document) { d.VMs[0].Boot.Initrd = "/boot/../etc" },
		"vms[0].boot.cmdline":       func(d *Document) { d.VMs[0].Boot.Cmdline = "a\nb" },
		"vms[1].boot.kernel":        func(d *Document) { d.VMs[1].Boot.Cmdline = "quiet" },
		"vms[1].boot":               func(d *Document) { d.VMs[1].Disks = nil },
		"nodes.a.outlets":           func(d *Document) { d.PDU = nil; d.Nodes.B.Outlets = nil },
		"pdu":                       func(d *Document) { d.Nodes.A.Outlets, d.Nodes.B.Outlets = nil, nil },
		"volumes":                   func(d *Document) { many(d, MaxVolumes+1, 20) },
		"vms":                       func(d *Document) { many(d, MaxVolumes, 0) },
		"vms[0].disks":              func(d *Document) { many(d, MaxVolumes, MaxDisks) },
	} {
		t.Run(field, func(t *testing.T) {
			d := answers().clone()
			spoil(&d)
			var named []string
			for _, e := range Validate(d, "netio") {
				named = append(named, e.Field)
				if e.What == "" || e.Why == "" || e.Next == "" {
					t.Errorf("%+v leaves a word out", e)
				}
			}
			if !slices.Equal(named, []string{field}) {
				t.Fatalf("named %q", named)
			}
		})
	}
}

// many adds volumes up to n; with attach they become disks of counter.
func many(d *Document, n int, attach int) {
	for i := len(d.Volumes); i < n; i++ {
		name := fmt.Sprintf("extra%d", i)
		d.Volumes = append(d.Volumes, Volume{Name: name, SizeBytes: 4096})
		if attach--; attach >= 0 {
			d.VMs[0].Disks = append(d.VMs[0].Disks, name)
		}
	}
}

func TestLimitsAreThoseOfMembership(t *testing.T) {
	if MaxResources != membership.MaxResources || MaxVolumes != membership.MaxVolumes {
		t.Fatal("the tables of the record have another size")
	}
}

func TestFoundFillsSlots(t *testing.T) {
	d := founded(t)
	if d.Version != 1 || d.Nodes.A.BMC.GUID == "" || d.Witness.RID == "" {
		t.Fatalf("%+v", d)
	}
	var got []string
	for _, r := range d.Resources() {
		name := "-"
		if r.VM != nil {
			name = r.VM.Name
		}
		got = append(got, string(rune('0'+r.Slot))+name+r.Volumes[0].Name)
	}
	if want := []string{"1counterdisk0", "2pressdisk1", "3-spare"}; !slices.Equal(got, want) {
		t.Fatalf("resources %q, want %q", got, want)
	}
	if v, ok := d.VolumeBySlot(0); !ok || v.Name != "spare" {
		t.Fatalf("volume 0 is %+v", v)
	}
}

func TestFoundRefusesAForeignKey(t *testing.T) {
	d := answers()
	d.Nodes.B.Key = base64.StdEncoding.EncodeToString(key(7))
	if _, err := Found(d, founding()); err == nil || !strings.Contains(err.Error(), "nodes.b.key") {
		t.Fatalf("got %v", err)
	}
}

func TestFoundLeavesTheAnswersAlone(t *testing.T) {
	a := answers()
	founded(t)
	if _, err := Found(a, founding()); err != nil {
		t.Fatal(err)
	}
	if a.Witness.RID != "" || a.VMs[0].ID != "" || a.Nodes.A.Key != "" {
		t.Fatalf("answers were changed: %+v", a)
	}
}

// A received document is checked as hard as answers are.
func TestCheckNamesTheField(t *testing.T) {
	for field, spoil := range map[string]func(*Document){
		"version":             func(d *Document) { d.Version = 0 },
		"site_id":             func(d *Document) { d.SiteID = "AB" },
		"nodes.b.key":         func(d *Document) { d.Nodes.B.Key = d.Nodes.A.Key },
		"volumes[1].slot":     func(d *Document) { d.Volumes[1].Slot = 0 },
		"volumes[0].resource": func(d *Document) { d.Volumes[0].Resource = 1 },
		"volumes[1].resource": func(d *Document) { d.Volumes[1].Resource = 2 },
		"vms[1].slot":         func(d *Document) { d.VMs[1].Slot = 40; d.Volumes[2].Resource = 40 },
		"vms[0].id":           func(d *Document) { d.VMs[0].ID = "x" },
	} {
		d := founded(t)
		spoil(&d)
		if e := Check(d); len(e) != 1 || e[0].Field != field {
			t.Errorf("%s: got %v", field, e)
		}
	}
}

func TestCanonicalIsStable(t *testing.T) {
	d := founded(t)
	one, err := d.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse(one)
	if err != nil {
		t.Fatal(err)
	}
	two, err := back.Canonical()
	if err != nil || !bytes.Equal(one, two) {
		t.Fatalf("%s\n%s\n%v", one, two, err)
	}
	empty := Document{}
	withLists := Document{Volumes: []Volume{}, VMs: []VM{}}
	h1, _ := empty.Hash()
	h2, _ := withLists.Hash()
	if h1 != h2 {
		t.Fatal("no list and an empty list hash differently")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"format":1,"nmae":"x"}`, `unknown field "nmae"`},
		{"{\n\"format\": \"one\"}", "line 2"},
		{`{} {}`, "more than one"},
		{"{\n\n,}", "line 3"},
		{"", "EOF"},
		{strings.Repeat(" ", maxDocumentBytes+1), "more than"},
	} {
		if _, err := Parse([]byte(c.in)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.20q: got %v, want %q", c.in, err, c.want)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	d := answers()
	for _, text := range []string{sprint("%v", *d.Nodes.A.BMC), sprint("%+v", *d.Nodes.A.BMC), sprint("%#v", *d.Nodes.A.BMC)} {
		if strings.Contains(text, "secret-a") {
			t.Errorf("%s", text)
		}
	}
}

func FuzzParse(f *testing.F) {
	d, err := Found(answers(), founding())
	if err != nil {
		f.Fatal(err)
	}
	good, err := d.Canonical()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"volumes":[{"size_bytes":1e3}],"vms":[{"disks":[""]}],"nodes":{"a":{"outlets":[{}]}}}`))
	f.Add([]byte(`{"epoch":1,"version":2,"stopped_vms":{"x":true}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := ParseRuntime(data); err == nil && r.Version+1 != 0 && !r.Next(1).Newer(r) {
			t.Fatal("the next version is not newer")
		}
		d, err := Parse(data)
		if err != nil {
			return
		}
		Validate(d)
		if Check(d).Err() != nil {
			return
		}
		one, err := d.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(one)
		if err != nil || Check(back).Err() != nil {
			t.Fatalf("the canonical form is refused: %v %v", err, Check(back))
		}
		d.Resources()
	})
}
